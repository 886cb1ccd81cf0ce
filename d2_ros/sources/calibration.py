"""Calibration files: as ROS and OpenCV write them, and as ``ros2 topic echo`` prints them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from d2_ros.camera import Camera, from_calibration
from d2_ros.errors import D2RosError

NAMES = ("camera.yaml", "camera.yml", "camera.xml")
"""Files of an image folder that hold its calibration, in order of preference."""

MATRIX = ("camera_matrix", "cameraMatrix", "K")
DISTORTION = ("distortion_coefficients", "distCoeffs", "dist_coeffs", "D")
SIZE = ("image_size", "cameraResolution")


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping, plain or with OpenCV's ``%YAML:1.0`` head and matrix tags.

    Of several documents, as ``ros2 topic echo`` prints them, the first counts.

    Raises
    ------
    D2RosError
        If the file cannot be read or is no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        head, _, rest = text.partition("\n")
        if head.startswith("%YAML:"):  # OpenCV's spelling, which is not YAML
            text = rest
        tree = next(yaml.safe_load_all(text.replace("!!opencv-matrix", "")), None)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        raise D2RosError(f"calibration {path} cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise D2RosError(f"calibration {path} holds no keys; it must be a camera calibration")
    return tree


def find_camera(folder: Path) -> Camera | None:
    """Return the calibration that lies in a folder of images, None if none does.

    Raises
    ------
    D2RosError
        As :func:`load_camera` does.
    """
    files = (folder / name for name in NAMES)
    return next((load_camera(file) for file in files if file.is_file()), None)


def load_camera(path: Path) -> Camera:
    """Read a calibration file.

    It is one of ROS (``camera_calibration``, ``camera_info_manager``), the output of ``ros2 topic
    echo`` or ``rostopic echo`` on a ``camera_info``, or a file of OpenCV's ``FileStorage``: YAML,
    JSON or XML, with the names of OpenCV's own calibration programs. The last kind says no model,
    which follows from the number of coefficients, and perhaps no image size.

    Returns
    -------
    The camera, of size 0 where the file does not say it.

    Raises
    ------
    D2RosError
        If the file cannot be read, lacks a key or holds an unusable calibration.
    """
    tree = _load_xml(path) if path.suffix.lower() == ".xml" else load_yaml(path)
    # The spellings differ in capitals and underscores only: image_width, Image_Width, imageWidth.
    keys = {_plain(str(key)): value for key, value in tree.items()}
    try:
        matrix, distortion = _numbers(_first(keys, MATRIX)), _numbers(_first(keys, DISTORTION))
        width, height = _size(keys)
        model = keys.get("distortionmodel")
        if model is None:
            model = "plumb_bob" if len(distortion) <= 5 else "rational_polynomial"
            model = "equidistant" if keys.get("fisheyemodel") else model
        roi, binning = keys.get("roi") or {}, (keys.get("binningx", 0), keys.get("binningy", 0))
        return from_calibration(
            width,
            height,
            str(model),
            matrix,
            distortion,
            binning=(int(binning[0]), int(binning[1])),
            roi=(
                int(roi.get("x_offset", 0)),
                int(roi.get("y_offset", 0)),
                int(roi.get("width", 0)),
                int(roi.get("height", 0)),
            ),
        )
    except KeyError as error:
        raise D2RosError(
            f"calibration {path} lacks {error}; it must be in the layout of ROS camera "
            "calibration, of a camera_info that was printed, or of OpenCV"
        ) from None
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise D2RosError(f"calibration {path} is malformed: {error}") from None
    except D2RosError as error:
        raise D2RosError(f"calibration {path} is unusable: {error}") from None


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _first(keys: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if _plain(name) in keys:
            return keys[_plain(name)]
    raise KeyError(names[0])


def _numbers(value: Any) -> NDArray[np.float64]:
    """Return a matrix, with or without its rows and columns beside it, as a flat array."""
    return np.asarray(value["data"] if isinstance(value, dict) else value, np.float64).ravel()


def _size(keys: Mapping[str, Any]) -> tuple[int, int]:
    for width, height in (("imagewidth", "imageheight"), ("width", "height")):
        if width in keys or height in keys:
            return int(_first(keys, (width,))), int(_first(keys, (height,)))
    try:
        width, height = _numbers(_first(keys, SIZE))
    except KeyError:
        return 0, 0
    return int(width), int(height)


def _load_xml(path: Path) -> dict[str, Any]:
    try:
        storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
        nodes = {name: storage.getNode(name) for name in storage.root().keys()}  # noqa: SIM118
        return {name: _content(node) for name, node in nodes.items()}
    except (cv2.error, SystemError) as error:
        raise D2RosError(f"calibration {path} cannot be read: {error}") from None


def _content(node: cv2.FileNode) -> Any:
    if node.isMap():
        return node.mat()
    if node.isSeq():
        return [node.at(index).real() for index in range(node.size())]
    return node.string() if node.isString() else node.real()
