"""The value a source yields, and what every source offers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera


@dataclass(frozen=True)
class Frame:
    """One camera image.

    Attributes
    ----------
    stamp
        Integer nanoseconds.
    image
        ``(H, W)`` grey or ``(H, W, 3)`` BGR, uint8 or uint16.
    camera
        The calibration for this very image size, or None where there is none.
    frame_id
        The camera's optical frame.
    """

    stamp: int
    image: NDArray[np.uint8] | NDArray[np.uint16]
    camera: Camera | None
    frame_id: str = "camera"


class Source(Protocol):
    """Frames of one camera in time order; iterating twice gives the same frames."""

    name: str

    def __len__(self) -> int:
        """Return the number of frames."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in time order."""
        ...

    def poses(self) -> NDArray[np.float64] | None:
        """Ground truth ``T_world_camera``, ``(len, 4, 4)``, NaN where unknown; None without."""
        ...
