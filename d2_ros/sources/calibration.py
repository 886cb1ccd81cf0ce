"""Calibration files: YAML as ROS and OpenCV write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from d2_ros.camera import Camera, from_calibration
from d2_ros.errors import D2RosError


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping, plain or with OpenCV's ``%YAML:1.0`` head and matrix tags.

    Raises
    ------
    D2RosError
        If the file cannot be read or is no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        head, _, rest = text.partition("\n")
        if head.startswith("%YAML:"):  # OpenCV's spelling, which is not YAML
            text = rest
        tree = yaml.safe_load(text.replace("!!opencv-matrix", ""))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise D2RosError(f"calibration {path} cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise D2RosError(f"calibration {path} holds no keys; it must be a camera calibration")
    return tree


def load_camera(path: Path) -> Camera:
    """Read a file of ROS camera calibration (``camera_calibration``, ``camera_info_manager``).

    Raises
    ------
    D2RosError
        If the file cannot be read, lacks a key or holds an unusable calibration.
    """
    tree = load_yaml(path)
    try:
        return from_calibration(
            int(tree["image_width"]),
            int(tree["image_height"]),
            str(tree["distortion_model"]),
            tree["camera_matrix"]["data"],
            tree["distortion_coefficients"]["data"],
        )
    except KeyError as error:
        raise D2RosError(
            f"calibration {path} lacks {error}; it must be in the layout of ROS camera calibration"
        ) from None
    except (TypeError, ValueError) as error:
        raise D2RosError(f"calibration {path} is malformed: {error}") from None
    except D2RosError as error:
        raise D2RosError(f"calibration {path} is unusable: {error}") from None
