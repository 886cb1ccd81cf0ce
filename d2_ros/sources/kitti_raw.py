"""KITTI raw recordings: ``DATE/DATE_drive_NNNN_sync/image_02/`` with ``timestamps.txt``, ``data/``.

Geiger et al., "Vision meets robotics: the KITTI dataset", IJRR 2013. The calibration is
``calib_cam_to_cam.txt`` in the folder of the date, or in that of the drive. The poses of the
vehicle (``oxts``) are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera, from_calibration
from d2_ros.errors import D2RosError
from d2_ros.sources.files import ImageFiles, image_files
from d2_ros.sources.kitti import CAMERAS, rows_of, size_of
from d2_ros.sources.trajectories import numbers, read_table

CALIBRATION = "calib_cam_to_cam.txt"


def find_kitti_raw(path: Path) -> Path | None:
    """Return the camera folder if `path` is one, its ``data``, or a drive's."""
    path = path.resolve() if path.name in ("", "data") else path
    folders = [path, *(path / f"image_{number:02}" for number in CAMERAS)]
    if path.name == "data":
        folders.append(path.parent)
    for folder in folders:
        if (folder / "timestamps.txt").is_file() and (folder / "data").is_dir():
            return folder
    return None


def open_kitti_raw(folder: Path) -> ImageFiles:
    """Open a camera folder (``.../image_02``).

    Raises
    ------
    D2RosError
        If a file is malformed, or there are images without a time.
    """
    files = sorted(image_files(folder / "data"))
    if not files:
        raise D2RosError(f"{folder / 'data'} has no images")
    times = folder / "timestamps.txt"
    stamps = np.array([_nanoseconds(times, row) for row in read_table(times)], np.int64)
    stamps = stamps[rows_of(files, len(stamps), times)]
    drive = folder.resolve().parent
    places = (drive / CALIBRATION, drive.parent / CALIBRATION)
    calibration = next((place for place in places if place.is_file()), None)
    camera = None
    if calibration is not None:
        number = folder.resolve().name.removeprefix("image_")
        camera = _camera(calibration, number, size_of(files))
    return ImageFiles(str(folder), stamps, tuple(files), camera)


def _nanoseconds(path: Path, row: list[str]) -> int:
    """Return ``2011-09-26 13:02:25.964389445`` as integer nanoseconds; KITTI names no time zone."""
    whole, _, fraction = " ".join(row).partition(".")
    try:
        time = datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc)
        return int(time.timestamp()) * 10**9 + int(fraction[:9].ljust(9, "0"))
    except ValueError as error:
        raise D2RosError(f"{path} holds a time that cannot be read: {error}") from None


def _camera(path: Path, number: str, size: tuple[int, int]) -> Camera:
    """Return the camera of images of this size: rectified ones, or those that were recorded."""
    rows = {row[0].rstrip(":"): row[1:] for row in read_table(path)}
    if _size(path, rows, f"S_rect_{number}") == size:
        projection = _values(path, rows, f"P_rect_{number}", 12).reshape(3, 4)
        return Camera(*size, projection[:, :3], np.empty(0))
    if _size(path, rows, f"S_{number}") == size:
        matrix = _values(path, rows, f"K_{number}", 9)
        return from_calibration(*size, "plumb_bob", matrix, _values(path, rows, f"D_{number}", 5))
    raise D2RosError(
        f"{path} has no calibration of camera {number} for images of {size[0]}x{size[1]}; "
        "take the one of the same day"
    )


def _size(path: Path, rows: Mapping[str, list[str]], name: str) -> tuple[int, int] | None:
    if name not in rows:
        return None
    width, height = _values(path, rows, name, 2)
    return int(width), int(height)


def _values(
    path: Path, rows: Mapping[str, list[str]], name: str, count: int
) -> NDArray[np.float64]:
    if name not in rows:
        raise D2RosError(f"{path} has no row {name}; it must be KITTI's own")
    return numbers(path, [rows[name]], count)[0]
