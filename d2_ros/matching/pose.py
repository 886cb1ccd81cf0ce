"""Relative pose of two views from their matches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.two_view import essential_pose

MIN_MATCHES = 8
"""Fewer matches give no pose."""


def estimate_pose(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    cameras: tuple[Camera, Camera],
    max_error: float,
) -> NDArray[np.float64] | None:
    """Relative pose of two views from their matches (five points, MAGSAC++ of OpenCV).

    Parameters
    ----------
    first, second
        ``(M, 2)`` matched raw pixels.
    cameras
        Calibrations of the two images.
    max_error
        Inlier threshold, px of the mean focal length.

    Returns
    -------
    ``(4, 4)`` ``T_second_first`` with a translation of length 1; None where there is none.
    """
    focal = (cameras[0].focal + cameras[1].focal) / 2
    near, far = cameras[0].bearings(first)[:, :2], cameras[1].bearings(second)[:, :2]
    known = np.isfinite(near + far).all(axis=1)
    near, far = near[known], far[known]
    if len(near) < MIN_MATCHES:
        return None
    return essential_pose(near, far, max_error / focal)
