"""Relative poses: errors against the truth, area under the curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2_ros.camera import Camera


def relative(T_world_first: ArrayLike, T_world_second: ArrayLike) -> NDArray[np.float64]:
    """``T_second_first`` of two ``(4, 4)`` poses ``T_world_camera``."""
    inverse = np.linalg.inv(np.asarray(T_world_second, np.float64))
    return np.asarray(inverse @ np.asarray(T_world_first, np.float64))


def epipolar_errors(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    cameras: tuple[Camera, Camera],
    T_second_first: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Distance of matches from each other's true epipolar lines.

    Parameters
    ----------
    first, second
        ``(M, 2)`` matched raw pixels.
    cameras
        Calibrations of the two images.
    T_second_first
        ``(4, 4)`` true relative pose, with a translation.

    Returns
    -------
    ``(M,)`` mean of the distances in the two images, both undistorted, px; infinite where a pixel
    has no bearing, for no mapper could use such a match.
    """
    x, y, z = T_second_first[:3, 3]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    essential = cross @ T_second_first[:3, :3]
    rays, rays_second = cameras[0].bearings(first), cameras[1].bearings(second)
    lines_second, lines = rays @ essential.T, rays_second @ essential
    off = np.abs((rays_second * lines_second).sum(axis=1))
    near = off / np.linalg.norm(lines[:, :2], axis=1) * cameras[0].focal
    far = off / np.linalg.norm(lines_second[:, :2], axis=1) * cameras[1].focal
    return np.nan_to_num((near + far) / 2, nan=np.inf)


def pose_errors(estimated: NDArray[np.float64], true: NDArray[np.float64]) -> tuple[float, float]:
    """Angle between rotations and between translation directions, degrees.

    As in SuperGlue, opposite translations count as equal (an essential matrix has no sign).
    """
    rotation = estimated[:3, :3] @ true[:3, :3].T
    # The vector part keeps small angles exact, where the arc cosine of the trace would not.
    sine = np.linalg.norm(rotation - rotation.T) / np.sqrt(8)
    turn = np.arctan2(sine, (np.trace(rotation) - 1) / 2)
    aside = np.linalg.norm(np.cross(estimated[:3, 3], true[:3, 3]))
    along = abs(estimated[:3, 3] @ true[:3, 3])
    return float(np.degrees(turn)), float(np.degrees(np.arctan2(aside, along)))


def pose_auc(errors: ArrayLike, thresholds: Sequence[float]) -> list[float]:
    """Area under the cumulative curve of pose errors, up to each threshold, as a share of it.

    Parameters
    ----------
    errors
        ``(P,)`` degrees, the larger of rotation and translation error; inf for failures.
    thresholds
        Degrees.

    Returns
    -------
    One value, 0 to 1, per threshold (the convention of SuperGlue: trapezoids through the
    steps' corners).
    """
    ordered = np.sort(np.asarray(errors, np.float64))
    heights = np.arange(len(ordered) + 1) / max(len(ordered), 1)
    places = np.concatenate([[0.0], ordered])
    areas = []
    for threshold in thresholds:
        last = int(np.searchsorted(places, threshold))
        x = np.append(places[:last], threshold)
        y = np.append(heights[:last], heights[last - 1])
        areas.append(float(((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum() / threshold))
    return areas
