"""TUM RGB-D folders: ``rgb.txt``, ``groundtruth.txt``; ``camera.yaml`` beside them if calibrated.

Sturm et al., "A benchmark for the evaluation of RGB-D SLAM systems", IROS 2012. The format has
no calibration file; one in the layout of ROS camera calibration is taken where it lies there.
"""

from __future__ import annotations

from pathlib import Path

from d2_ros.errors import D2RosError
from d2_ros.sources.calibration import find_camera
from d2_ros.sources.files import ImageFiles
from d2_ros.sources.trajectories import interpolate, nanoseconds, read_table, read_trajectory


def is_tum(path: Path) -> bool:
    """Return whether `path` looks like a TUM RGB-D sequence."""
    return (path / "rgb.txt").is_file()


def open_tum(path: Path) -> ImageFiles:
    """Open a sequence; stamps are those of ``rgb.txt``, poses camera-to-world.

    Raises
    ------
    D2RosError
        If a file is missing or malformed.
    """
    index = path / "rgb.txt"
    table = read_table(index)
    if any(len(row) < 2 for row in table):
        raise D2RosError(f"{index} must have two columns, time in seconds and file name")
    stamps = nanoseconds(index, (row[0] for row in table))
    truth = path / "groundtruth.txt"
    poses = known = None
    if truth.is_file():
        known, known_poses = read_trajectory(truth)
        poses = interpolate(known, known_poses, stamps)
    return ImageFiles(
        str(path),
        stamps,
        tuple(_file(path, row[1:]) for row in table),
        find_camera(path),
        poses,
        known,
    )


def _file(folder: Path, words: list[str]) -> Path:
    """Return the file of a row, whose name may hold spaces; in associations more columns follow."""
    whole, first = folder / " ".join(words), folder / words[0]
    return first if first.is_file() and not whole.is_file() else whole
