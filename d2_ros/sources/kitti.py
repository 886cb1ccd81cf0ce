"""KITTI odometry folders: ``image_0/``, ``calib.txt``, ``times.txt``, and ``poses.txt`` beside.

Geiger et al., "Are we ready for autonomous driving?", CVPR 2012. Images are rectified.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.sources.files import ImageFiles, image_files
from d2_ros.sources.images import read_image
from d2_ros.sources.trajectories import nanoseconds, numbers, read_table


def is_kitti(path: Path) -> bool:
    """Return whether `path` looks like a KITTI odometry sequence (left grey camera)."""
    return (path / "calib.txt").is_file() and (path / "image_0").is_dir()


def open_kitti(path: Path) -> ImageFiles:
    """Open the left grey camera of a sequence; poses are that camera's, to the first frame.

    Raises
    ------
    D2RosError
        If a file is missing or malformed, or the counts of images, times and poses differ.
    """
    files = sorted(image_files(path / "image_0"))
    if not files:
        raise D2RosError(f"{path / 'image_0'} has no images")
    times = path / "times.txt"
    stamps = nanoseconds(times, (row[0] for row in read_table(times)))
    truth = path / "poses.txt"
    poses = None
    if truth.is_file():
        rows = numbers(truth, read_table(truth), 12).reshape(-1, 3, 4)
        poses = np.concatenate([rows, np.tile([[[0.0, 0, 0, 1]]], (len(rows), 1, 1))], axis=1)
    height, width = read_image(files[0]).shape[:2]
    return ImageFiles(str(path), stamps, tuple(files), _camera(path, width, height), poses)


def _camera(path: Path, width: int, height: int) -> Camera:
    """Return the camera of row ``P0`` of ``calib.txt``, which knows no image size."""
    calibration = path / "calib.txt"
    rows = {row[0]: row[1:] for row in read_table(calibration)}
    if "P0:" not in rows:
        raise D2RosError(f"{calibration} has no row P0; it must be KITTI odometry's own")
    projection = numbers(calibration, [rows["P0:"]], 12).reshape(3, 4)
    return Camera(width, height, projection[:, :3], np.empty(0))
