"""A plain folder of images, ordered as a person would: ``2.png`` before ``10.png``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from d2_ros.errors import D2RosError
from d2_ros.sources.calibration import find_camera
from d2_ros.sources.files import ImageFiles, image_files

PERIOD = 100_000_000
"""Nanoseconds between images that carry no time stamp (10 Hz); the first is at one period,
because a ROS stamp of zero means "not set"."""


def open_folder(path: Path) -> ImageFiles:
    """Open the images directly in `path`; ``camera.yaml`` is their calibration if there.

    Raises
    ------
    D2RosError
        If there is no image or the calibration is unusable.
    """
    files = sorted(image_files(path), key=lambda file: natural_key(file.name))
    if not files:
        raise D2RosError(f"{path} has no images; give a folder of images")
    return ImageFiles(
        str(path),
        PERIOD * np.arange(1, len(files) + 1),
        tuple(files),
        find_camera(path),
    )


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a sort key under which runs of digits compare as numbers."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]
