"""KITTI odometry folders: ``image_0/``, ``calib.txt``, ``times.txt``, and poses.

Geiger et al., "Are we ready for autonomous driving?", CVPR 2012. Images are rectified.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.sources.files import ImageFiles, image_files
from d2_ros.sources.images import read_image
from d2_ros.sources.trajectories import nanoseconds, numbers, read_table

CAMERAS = (0, 2, 1, 3)
"""Left gray, left colour, right gray, right colour: the first that is there is read."""


def find_kitti(path: Path) -> tuple[Path, int] | None:
    """Return the sequence and the number of the camera if `path` is a KITTI odometry sequence.

    `path` may also be the folder of one of its cameras, ``image_0`` to ``image_3``.
    """
    parent, number = path.resolve().parent, path.resolve().name.removeprefix("image_")
    if number in map(str, CAMERAS) and (parent / "calib.txt").is_file():
        return parent, int(number)
    first = _camera_number(path) if (path / "calib.txt").is_file() else None
    return None if first is None else (path, first)


def _camera_number(path: Path) -> int | None:
    return next((number for number in CAMERAS if (path / f"image_{number}").is_dir()), None)


def open_kitti(path: Path, number: int) -> ImageFiles:
    """Open a camera of a sequence; poses are that camera's, to the first frame's left gray.

    The poses are ``poses.txt`` in the folder, or ``../../poses/NAME.txt`` as KITTI ships them.

    Raises
    ------
    D2RosError
        If a file is missing or malformed, or there are images without a time or pose.
    """
    folder = path / f"image_{number}"
    files = sorted(image_files(folder))
    if not files:
        raise D2RosError(f"{folder} has no images")
    times = path / "times.txt"
    stamps = nanoseconds(times, (row[0] for row in read_table(times)))
    rows = rows_of(files, len(stamps), times)
    projection = _projection(path / "calib.txt", f"P{number}:")
    width, height = size_of(files)
    camera = Camera(width, height, projection[:, :3], np.empty(0))
    # Points of the left gray camera are x, those of this one x + K^-1 p, p the last column of P.
    offset = np.eye(4)
    offset[:3, 3] = -np.linalg.solve(projection[:, :3], projection[:, 3])
    shipped = path.resolve().parents[1] / "poses" / f"{path.resolve().name}.txt"
    truth = next((file for file in (path / "poses.txt", shipped) if file.is_file()), None)
    poses = None
    if truth is not None:
        table = numbers(truth, read_table(truth), 12).reshape(-1, 3, 4)
        known = np.concatenate([table, np.tile([[[0.0, 0, 0, 1]]], (len(table), 1, 1))], axis=1)
        poses = known[rows_of(files, len(known), truth)] @ offset
    return ImageFiles(str(path), stamps[rows], tuple(files), camera, poses, T_body_camera=offset)


def rows_of(files: Sequence[Path], count: int, table: Path) -> NDArray[np.int64]:
    """Return the row of each image in a table of `count` rows.

    KITTI numbers the files by row from 0, so that a part of a sequence keeps its times.

    Raises
    ------
    D2RosError
        If there are images without a row.
    """
    numbered = all(file.stem.isdecimal() for file in files)
    rows = np.array([int(file.stem) for file in files] if numbered else range(len(files)))
    if rows.max() >= count and len(files) == count:
        return np.arange(count)  # numbered from elsewhere
    if rows.max() >= count:
        last = files[int(rows.argmax())].name
        raise D2RosError(
            f"{table} has {count} rows for {len(files)} images up to {last}; "
            "it must have one for each, in the order of their numbers"
        )
    return rows


def size_of(files: Sequence[Path]) -> tuple[int, int]:
    """Return width and height of the first image that can be read.

    Raises
    ------
    D2RosError
        If none can be: the fault of the first.
    """
    fault: D2RosError | None = None
    for file in files:
        try:
            height, width = read_image(file).shape[:2]
        except D2RosError as error:
            fault = fault or error
        else:
            return width, height
    raise fault or D2RosError("there is no image")


def _projection(calibration: Path, name: str) -> NDArray[np.float64]:
    """Return row `name` of ``calib.txt``, ``(3, 4)``; it knows no image size."""
    rows = {row[0]: row[1:] for row in read_table(calibration)}
    if name not in rows:
        raise D2RosError(
            f"{calibration} has no row {name.rstrip(':')}; it must be KITTI odometry's own"
        )
    return numbers(calibration, [rows[name]], 12).reshape(3, 4)
