"""What a camera gave at one time: an image, made ready to be looked at again and again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.features.extractor import Extractor
from d2_ros.matching.early import LazyPyramid, early_pyramid
from d2_ros.matching.pyramid import Pyramid, build_pyramid, to_gray


@dataclass(frozen=True)
class View:
    """One image of one camera.

    Attributes
    ----------
    stamp
        Integer nanoseconds.
    camera
        Calibration, or None.
    pyramid
        Gray pyramid, on the device.
    early
        Pyramid of the network's early maps, built once it is needed; None where there is none.
    gray
        ``(H, W)`` float32 gray values from 0 to 255.
    """

    stamp: int
    camera: Camera | None
    pyramid: Pyramid
    early: LazyPyramid | None
    gray: NDArray[np.float32]

    @cached_property
    def rounded(self) -> NDArray[np.uint8]:
        """The gray values as Lucas-Kanade wants them; made once, where frames are followed."""
        return np.rint(self.gray).astype(np.uint8)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image, px."""
        return self.pyramid[0].size

    def pyramid_of(self, early: bool) -> Pyramid:
        """The pyramid of gray values, or of early maps."""
        if not early:
            return self.pyramid
        if self.early is None:
            raise ValueError("a frame without early maps cannot be aligned by them")
        return self.early.pyramid


def view_of(
    image: NDArray[Any], stamp: int, camera: Camera | None, extractor: Extractor, config: Config
) -> View:
    """Make an image ready, on the extractor's device.

    Raises
    ------
    D2RosError
        If ``alignment.mode`` asks for early maps that the weights do not have.
    """
    gray = to_gray(image)
    pyramid = build_pyramid(gray, config.alignment.levels, extractor.device)
    return View(stamp, camera, pyramid, _early(image, extractor, config), gray)


def _early(image: NDArray[Any], extractor: Extractor, config: Config) -> LazyPyramid | None:
    """The early maps of an image, to be computed if they are needed."""
    settings = config.alignment
    if settings.mode == "gray":
        return None
    if not extractor.has_early_maps:
        if settings.mode == "features":
            raise D2RosError(
                f"weights {config.weights} have no early maps to align; "
                "set alignment.mode to gray or auto"
            )
        return None
    kept = image.copy()  # the caller may write the next frame into its array
    return LazyPyramid(lambda: early_pyramid(extractor.early(kept), settings.levels))
