"""Images from which the ranges of 8-bit activations are taken."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import optional_import
from d2_ros.features.images import prepare

LONG_EDGE = 480
"""Images are reduced to this, px: ranges hardly depend on it, time does."""

MOST = 16
"""Images used."""

NAMES = (
    "astronaut", "camera", "coffee", "chelsea", "rocket", "brick", "gravel", "grass", "page",
    "coins", "text", "clock", "moon", "retina", "hubble_deep_field", "immunohistochemistry",
)  # fmt: skip
"""Photographs inside scikit-image itself; nothing is downloaded."""


def photographs() -> list[NDArray[np.float32]]:
    """The photographs that ship with scikit-image, as :func:`batches` gives them.

    Raises
    ------
    D2RosError
        If scikit-image is not installed.
    """
    with optional_import(
        "int8 is calibrated on scikit-image's photographs; install it with "
        "`pip install scikit-image`"
    ):
        import skimage.data
    images = (np.asarray(getattr(skimage.data, name)()) for name in NAMES)
    return batches(image if image.ndim == 2 else image[..., 2::-1] for image in images)


def batches(images: Iterable[NDArray[Any]]) -> list[NDArray[np.float32]]:
    """The first :data:`MOST` images, each ``(1, H, W, 3)`` float32 BGR, 0-255.

    Parameters
    ----------
    images
        Each ``(H, W)`` gray or ``(H, W, 3)`` BGR, uint8 or uint16.
    """
    taken = []
    for image, _ in zip(images, range(MOST), strict=False):
        small, _ = prepare(np.ascontiguousarray(image), LONG_EDGE)
        taken.append(np.repeat(small, 3 // small.shape[2], 2).astype(np.float32)[None])
    return taken


def resized(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """One of :func:`batches` at another width and height, for models of a fixed size."""
    return np.asarray(cv2.resize(image[0], size, interpolation=cv2.INTER_AREA), np.float32)[None]
