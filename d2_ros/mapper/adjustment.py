"""All keyframes of a segment smoothed together, once the live window has gone over them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from d2_ros.mapper.config import KEEP_ALL, MapperConfig
from d2_ros.mapper.inertial import Imu
from d2_ros.mapper.landmarks import Landmarks
from d2_ros.mapper.trajectory import Trajectory
from d2_ros.mapper.window import Keyframe, Window

_MOST_ROUNDS = 10
_AT_REST = 1e-4
"""Of the segment's extent: a round that moves no keyframe further has been the last."""


@dataclass(frozen=True)
class Map:
    """A trajectory, and the landmarks that it was made by."""

    trajectory: Trajectory
    landmarks: Landmarks


def adjust(
    keyframes: Sequence[Keyframe],
    config: MapperConfig,
    rig: NDArray[np.float64],
    imu: Imu | None,
    focal: float,
    landmarks: Landmarks,
    held: int = 1,
) -> NDArray[np.float64]:
    """Move keyframes to where all that they have seen agrees best (bundle adjustment).

    The live window takes its older keyframes for certain, so that their errors stay. Here only the
    first one holds, and all tracks count.

    Parameters
    ----------
    keyframes
        Of one segment, in time order, where they are now; they are not changed.
    config, rig, imu
        As of :class:`Window`; what is estimated of the IMU is not changed.
    focal
        px, of what the thresholds say in pixels.
    landmarks
        Get the new places.
    held
        The first so many do not move.

    Returns
    -------
    ``(K, 4, 4)`` T_world_camera.
    """
    count = len(keyframes)
    everything = replace(config, window=count, free=count - held, max_landmarks=KEEP_ALL)
    whole = Window(everything, rig, copy(imu))  # its estimates change, its samples are shared
    for keyframe in keyframes:
        whole.insert(keyframe.view, keyframe.pose)
    poses = np.stack([keyframe.pose for keyframe in keyframes])
    for _ in range(_MOST_ROUNDS):
        before = poses
        whole.smooth(focal, landmarks)
        poses = np.stack([keyframe.pose for keyframe in whole.keyframes])
        shift = np.linalg.norm(poses[:, :3, 3] - before[:, :3, 3], axis=1).max()
        if shift <= _AT_REST * np.ptp(poses[:, :3, 3], axis=0).max():
            break
    return poses
