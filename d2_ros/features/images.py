"""Raw images -> what the network takes: checked, reduced to the largest edge, 0-255."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError
from d2_ros.features.network import MIN_EDGE

MIN_RAW_EDGE = 64
"""Shortest edge, px, of an image that is worth looking for features in."""


def prepare(image: NDArray[Any], max_edge: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Check an image and reduce it.

    Parameters
    ----------
    image
        ``(H, W)`` gray or ``(H, W, 3)`` BGR, uint8 or uint16.
    max_edge
        Longest edge of the result, px.

    Returns
    -------
    image
        ``(h, w, 1)`` or ``(h, w, 3)``, uint8, or float32 0-255 from 16 bits (full scale / 257).
    scale
        ``(2,)`` network px per raw px, (u, v).

    Raises
    ------
    D2RosError
        For anything that is not such an image, or too small.
    """
    size = network_size(image, max_edge)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    height, width = image.shape[:2]
    if size != (width, height):
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if image.dtype == np.uint16:
        image = image.astype(np.float32) / 257
    return np.ascontiguousarray(image.reshape(size[1], size[0], -1)), np.divide(
        size, (width, height)
    )


def network_size(image: NDArray[Any], max_edge: int) -> tuple[int, int]:
    """Return the (width, height) at which the network sees an image.

    Raises
    ------
    D2RosError
        For anything that is not an image of :func:`prepare`, or too small.
    """
    if not isinstance(image, np.ndarray) or image.dtype not in (np.uint8, np.uint16):
        kind = getattr(image, "dtype", type(image).__name__)
        raise D2RosError(f"an image has pixels of type {kind}; convert it to uint8 or uint16")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise D2RosError(f"an image has shape {image.shape}; it must be (H, W) or (H, W, 3)")
    height, width = image.shape[:2]
    if min(height, width) < MIN_RAW_EDGE:
        raise D2RosError(
            f"an image has {width}x{height} px; both sides must be at least {MIN_RAW_EDGE} px"
        )
    shrink = min(1.0, max_edge / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    if min(size) < MIN_EDGE:
        raise D2RosError(
            f"an image of {width}x{height} px is only {size[0]}x{size[1]} px for the network; "
            "raise features.max_edge"
        )
    return size
