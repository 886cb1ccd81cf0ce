"""Relative pose of two views from matched bearings."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def essential_pose(
    first: NDArray[np.float64], second: NDArray[np.float64], max_error: float
) -> NDArray[np.float64] | None:
    """Pose from the essential matrix (five points, MAGSAC++ of OpenCV).

    Parameters
    ----------
    first, second
        ``(M, 2)`` x and y of matched bearings (x, y, 1).
    max_error
        Inlier threshold, in the same unit: px over the focal length.

    Returns
    -------
    ``(4, 4)`` ``T_second_first`` with a translation of length 1; None where there is none.
    """
    try:
        essential, mask = cv2.findEssentialMat(
            first, second, np.eye(3), cv2.USAC_MAGSAC, 0.9999, max_error, 5000
        )
        if essential is None or essential.shape != (3, 3):
            return None
        _, rotation, translation, _ = cv2.recoverPose(
            essential, first, second, np.eye(3), mask=mask
        )
    except cv2.error:  # degenerate points make the solvers throw
        return None
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, translation[:, 0]
    return pose
