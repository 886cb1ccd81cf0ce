"""Ground truth that a judgement can rest on."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError
from d2_ros.sources.base import Source
from d2_ros.sources.trajectories import check_rigid, read_trajectory


@runtime_checkable
class Timed(Protocol):
    """A source whose ground truth has a clock of its own."""

    def clocks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Stamps of the frames and of the known poses, ns."""
        ...


def known_poses(source: Source) -> NDArray[np.float64] | None:
    """Poses of a source, ``(len, 4, 4)`` as of :meth:`Source.poses`, of which some are known.

    Raises
    ------
    D2RosError
        If it has ground truth, and no frame a pose.
    """
    poses = source.poses()
    if poses is None or np.isfinite(poses).all(axis=(1, 2)).any():
        return poses
    times = ""
    if isinstance(source, Timed):
        images, truth = source.clocks()
        times = f": its images are from {_range(images)}, its poses from {_range(truth)}"
    raise D2RosError(
        f"no frame of {source.name} has a ground-truth pose{times}; give poses by the images' clock"
    )


def true_poses(source: Source) -> NDArray[np.float64]:
    """``T_world_camera`` of the frames of a source, ``(N, 4, 4)``, NaN where unknown.

    Raises
    ------
    D2RosError
        If it has none, or none of its frames has a pose.
    """
    poses = known_poses(source)
    if poses is None:
        raise D2RosError(
            f"{source.name} has no ground truth; give a source that has true poses, or a file"
        )
    return poses


def true_trajectory(source: Source) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Stamps of the frames of a source, ``(N,)`` integer nanoseconds, and their poses.

    Raises
    ------
    D2RosError
        As :func:`true_poses` does.
    """
    poses = true_poses(source)
    known = source.clocks()[0] if isinstance(source, Timed) else np.empty(0, np.int64)
    if len(known) != len(poses):  # a source without a clock of its own has no unusable frames
        known = np.array([frame.stamp for frame in source], np.int64)
    return known, poses


def is_trajectory(name: str) -> bool:
    """Whether a name is that of a trajectory in TUM's format, not of a source."""
    return Path(name).suffix.lower() in (".txt", ".tum")


def read_truth(name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read the true poses that a TUM trajectory or a source holds, by time.

    Returns
    -------
    ``(K,)`` integer nanoseconds and ``(K, 4, 4)`` ``T_world_camera``; NaN where unknown.

    Raises
    ------
    D2RosError
        If there are none, or those of a file are no poses.
    """
    from d2_ros.sources.opening import open_source  # opens every kind of source

    if not is_trajectory(name):
        return true_trajectory(open_source(name))
    stamps, poses = read_trajectory(Path(name))
    check_rigid(poses, name)
    order = np.argsort(stamps, kind="stable")
    return stamps[order], poses[order]


def _range(stamps: NDArray[np.int64]) -> str:
    if not len(stamps):
        return "no time"
    first, last = (f"{int(stamp) / 1e9:.3f}" for stamp in (stamps.min(), stamps.max()))
    return f"{first} to {last} s"
