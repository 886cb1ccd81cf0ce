"""The photographs that ship inside scikit-image, pasted onto the planes of the world."""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import optional_import
from d2_ros.sources.synthetic.world import Picture, Plane

TEXEL = 0.0035
"""Size of a texel, m: about a pixel of a 640x480 image at 1.5 m."""

LEVELS = 5
"""Levels of the texture pyramids, each half the size of the last."""

_LOADERS = {
    "hubble": "hubble_deep_field",
    "ihc": "immunohistochemistry",
    "motorcycle": "stereo_motorcycle",
}
_DARKEST, _BRIGHTEST = 24.0, 225.0  # what 98 % of a photograph is stretched to
_MIDDLE = 0.4  # share of that range to which the median of a darker photograph is lifted
_FRAME_WIDTH, _FRAME_COLOUR = 0.03, (205, 215, 220)  # m, BGR: of the frame of a picture


def pyramid(plane: Plane) -> tuple[NDArray[np.uint8], ...]:
    """Paint a plane.

    Returns
    -------
    Levels of ``(H, W, 3)`` uint8 BGR texels, each covering the whole plane and half the size
    of the last.
    """
    width, height = (max(2**LEVELS, round(edge / TEXEL)) for edge in plane.size)
    scale = width / plane.size[0]
    canvas = _cover(plane, width, height, scale)
    for picture in plane.pictures:
        _paste(canvas, picture, scale)
    levels = [canvas]
    for level in range(1, LEVELS):
        size = (max(1, width >> level), max(1, height >> level))
        levels.append(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA).astype(np.uint8))
    return tuple(levels)


def _cover(plane: Plane, width: int, height: int, scale: float) -> NDArray[np.uint8]:
    """Fill a canvas with the background photograph, mirrored at its edges."""
    tile = _fit(photograph(plane.background), round(plane.tile * scale))
    rows, columns = tile.shape[:2]
    pattern = np.block([[[tile], [tile[:, ::-1]]], [[tile[::-1]], [tile[::-1, ::-1]]]])
    repeats = (math.ceil(height / rows / 2), math.ceil(width / columns / 2), 1)
    canvas = np.tile(pattern, repeats)[:height, :width]
    return np.clip(canvas * np.array(plane.tint), 0, 255).astype(np.uint8)


def _paste(canvas: NDArray[np.uint8], picture: Picture, scale: float) -> None:
    """Hang a framed picture, cut off at the edges of the canvas."""
    image = np.rot90(photograph(picture.photo), picture.turns)
    image = _fit(image, round((picture.width - 2 * _FRAME_WIDTH) * scale))
    margin = round(_FRAME_WIDTH * scale)
    framed = np.full(np.add(image.shape, (2 * margin, 2 * margin, 0)), _FRAME_COLOUR, np.uint8)
    framed[margin:-margin, margin:-margin] = image
    left, top = round(picture.x * scale), round(picture.y * scale)
    window = canvas[top : top + framed.shape[0], left : left + framed.shape[1]]
    window[:] = framed[: window.shape[0], : window.shape[1]]


def _fit(image: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Resize to a width without aliasing."""
    height = round(width * image.shape[0] / image.shape[1])
    smaller = width < image.shape[1]
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=interpolation).astype(np.uint8)


@cache
def photograph(name: str) -> NDArray[np.uint8]:
    """Load a photograph as ``(H, W, 3)`` uint8 BGR, stretched to a common range of brightness.

    Raises
    ------
    D2RosError
        If scikit-image is not installed.
    """
    with optional_import(
        "the synthetic sequence needs scikit-image; install it with `pip install scikit-image`"
    ):
        import skimage.data
    image = getattr(skimage.data, _LOADERS.get(name, name))()
    image = np.asarray(image[0] if isinstance(image, tuple) else image)
    image = np.dstack([image] * 3) if image.ndim == 2 else image[..., ::-1]
    low, high = np.percentile(image, (1, 99))
    level = np.clip((image - low) / max(high - low, 1.0), 0, 1)
    gamma = np.log(_MIDDLE) / np.log(np.clip(np.median(level), 0.12, _MIDDLE))
    return np.rint(_DARKEST + (_BRIGHTEST - _DARKEST) * level**gamma).astype(np.uint8)
