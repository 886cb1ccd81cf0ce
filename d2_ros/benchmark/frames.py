"""Frames for as long as a benchmark wants them, at the size it wants them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.sources import Frame, Source

_FIRST_PERIOD = 50_000_000  # ns, where a single frame does not tell


def endless(source: Source) -> Iterator[Frame]:
    """Yield the frames of `source` again and again, their stamps going on.

    Frames that are not later than their predecessor are left out.

    Raises
    ------
    D2RosError
        If the source has no frames, or as it does itself.
    """
    shift, last, period = 0, None, _FIRST_PERIOD
    while True:
        start = last
        for frame in source:
            if last is None:
                shift = 0
            elif last == start:  # the first of another round
                shift = last + period - frame.stamp
            stamp = frame.stamp + shift
            if last is not None and stamp <= last:
                continue
            if last is not None:
                period = stamp - last
            last = stamp
            yield replace(frame, stamp=stamp)
        if last == start:
            raise D2RosError(f"{source.name} has no frames to measure with")


def resized(frame: Frame, edge: int) -> Frame:
    """The frame reduced or enlarged to a long edge of `edge` px, with its calibration."""
    height, width = frame.image.shape[:2]
    factor = edge / max(height, width)
    size = (round(width * factor), round(height * factor))
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    image: NDArray[Any] = cv2.resize(frame.image, size, interpolation=kind)
    camera = None if frame.camera is None else _scaled(frame.camera, *size)
    return replace(frame, image=image, camera=camera)


def _scaled(camera: Camera, width: int, height: int) -> Camera:
    """The calibration of an image resized to this size; a resize keeps corners, not centres."""
    scale = np.array([width / camera.width, height / camera.height])
    matrix = camera.matrix.copy()
    matrix[:2] *= scale[:, None]
    matrix[:2, 2] += (scale - 1) / 2
    return replace(camera, width=width, height=height, matrix=matrix)
