"""What a camera gave at one time: an image, made ready to be looked at again and again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.matching.early import LazyPyramid
from d2_ros.matching.pyramid import Pyramid


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
