"""What the topics ``loops`` and ``loop_pose`` say of a revisit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d2_ros.matching.pose import estimate_pose
from d2_ros.places.revisit import Revisit
from d2_ros.places.uncertainty import refined_motion, refined_turn, resampled_scatter
from d2_ros.records import LOOPS, split_stamp

UNKNOWN = 1e6
"""Variance of a translation that is not known at all."""


def loop_rows(found: Revisit) -> NDArray[np.void]:
    """Rows of the ``loops`` topic."""
    rows = np.zeros(len(found.index), LOOPS)
    rows["keyframe_sec"], rows["keyframe_nanosec"] = split_stamp(found.known.stamp)
    rows["session"] = found.place.session - found.known.session
    rows["index"], rows["keyframe_index"] = found.index, found.known_index
    rows["u"], rows["v"] = found.pixels.T
    rows["keyframe_u"], rows["keyframe_v"] = found.known_pixels.T
    rows["sigma_uu"] = found.covariance[:, 0, 0]
    rows["sigma_uv"] = found.covariance[:, 0, 1]
    rows["sigma_vv"] = found.covariance[:, 1, 1]
    rows["similarity"] = found.similarity
    return rows


def loop_pose(found: Revisit) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Pose of the earlier keyframe's camera in that of now, and how sure it is.

    Returns
    -------
    ``(4, 4)`` ``T_now_keyframe``, its translation of length 1, or 0 where it is not known; and its
    covariance ``(6, 6)``: translation, rotation about the axes of now (rad). None where there is
    no pose, as without calibrations.
    """
    camera, known = found.place.camera, found.known.camera
    if found.rotation is None or camera is None or known is None:
        return None
    then, now = known.bearings(found.known_pixels), camera.bearings(found.pixels)
    seen = np.isfinite(then + now).all(1)
    then, now, spread = then[seen], now[seen], found.covariance[seen] / camera.focal**2
    pose: NDArray[np.float64] = np.eye(4)
    covariance: NDArray[np.float64] = np.zeros((6, 6))
    if found.direction is None:
        covariance[:3, :3] = UNKNOWN * np.eye(3)
        pose[:3, :3], covariance[3:, 3:] = refined_turn(then, now, spread, found.rotation)
    else:
        pose[:3, :3], pose[:3, 3], covariance = refined_motion(
            then, now, spread, found.rotation, found.direction
        )
        cameras, error = (known, camera), found.max_error

        def estimate(rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
            return estimate_pose(found.known_pixels[rows], found.pixels[rows], cameras, error)

        count = len(found.index)
        covariance += resampled_scatter(estimate, count, pose[:3, :3], pose[:3, 3])
    return pose, covariance
