"""EuRoC MAV (ASL) folders: ``mav0/cam0`` with ``data.csv``, ``sensor.yaml`` and ``data/``.

The format is described in Burri et al., "The EuRoC micro aerial vehicle datasets", IJRR 2016.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera, from_calibration
from d2_ros.errors import D2RosError
from d2_ros.sources.calibration import load_yaml
from d2_ros.sources.files import ImageFiles
from d2_ros.sources.trajectories import interpolate, numbers, pose_matrices, read_table

_REMEDIES = {
    "data.csv": "the times; copy it from the data set",
    "sensor.yaml": "the calibration; copy it from the data set, or give the folder data for "
    "images without one",
}
"""What the files of a camera folder hold, and what to do where one is missing."""

_MODELS = {"radial-tangential": "plumb_bob", "radtan": "plumb_bob", "equidistant": "equidistant"}


def find_euroc(path: Path) -> Path | None:
    """Return the camera folder if `path` is one, holds ``cam0``, or holds ``mav0/cam0``.

    Two of its parts make a camera folder: :func:`open_euroc` says which one is missing.
    """
    for folder in (path, path / "cam0", path / "mav0" / "cam0"):
        if sum((folder / part).exists() for part in _REMEDIES) + (folder / "data").is_dir() >= 2:
            return folder
    return None


def open_euroc(folder: Path) -> ImageFiles:
    """Open a camera folder (``.../mav0/cam0``); ground truth is looked for beside it.

    Raises
    ------
    D2RosError
        If a file is missing or malformed.
    """
    for name, remedy in _REMEDIES.items():
        if not (folder / name).is_file():
            raise D2RosError(f"EuRoC folder {folder} lacks {name}, which holds {remedy}")
    table = read_table(folder / "data.csv", ",")
    if any(len(row) < 2 for row in table):
        raise D2RosError(f"{folder / 'data.csv'} must have two columns, time in ns and file name")
    stamps = _stamps(folder / "data.csv", table)
    sensor = load_yaml(folder / "sensor.yaml")
    try:
        camera = _camera(sensor)
        body_camera = np.array(sensor["T_BS"]["data"], float).reshape(4, 4)
    except (KeyError, TypeError, ValueError) as error:
        raise D2RosError(f"{folder / 'sensor.yaml'} is no camera calibration: {error!r}") from None
    truth = folder.parent / "state_groundtruth_estimate0" / "data.csv"
    poses = known = None
    if truth.is_file():
        known, bodies = _body_poses(truth)
        poses = interpolate(known, bodies, stamps) @ body_camera
    files = tuple(folder / "data" / row[1] for row in table)
    return ImageFiles(str(folder), stamps, files, camera, poses, known, body_camera)


def _stamps(path: Path, table: list[list[str]]) -> NDArray[np.int64]:
    try:
        return np.array([int(row[0]) for row in table], np.int64)
    except (ValueError, OverflowError) as error:
        raise D2RosError(f"{path} holds a time stamp that is no integer: {error}") from None


def _camera(sensor: dict[str, Any]) -> Camera:
    width, height = sensor["resolution"]
    fu, fv, cu, cv = sensor["intrinsics"]
    model = sensor["distortion_model"]
    return from_calibration(
        int(width),
        int(height),
        _MODELS.get(model, model),
        [fu, 0, cu, 0, fv, cv, 0, 0, 1],
        sensor["distortion_coefficients"],
    )


def _body_poses(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Stamps and ``T_world_body``; columns t, p (x, y, z), q (w, x, y, z; body to world)."""
    table = read_table(path, ",")
    values = numbers(path, table, 8)
    return _stamps(path, table), pose_matrices(values[:, 1:4], values[:, [5, 6, 7, 4]])
