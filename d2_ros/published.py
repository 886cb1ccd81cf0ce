"""What the topics say of a frame: all that any consumer of them has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera


@dataclass(frozen=True)
class PublishedFrame:
    """One frame as published.

    Attributes
    ----------
    stamp
        Integer nanoseconds.
    camera
        The calibration of the image; None where there is none.
    size
        (width, height) of the image, px.
    features
        ``(N,)`` of :data:`d2_ros.records.FEATURES`.
    matches
        ``(M,)`` of :data:`d2_ros.records.MATCHES`.
    """

    stamp: int
    camera: Camera | None
    size: tuple[int, int]
    features: NDArray[np.void]
    matches: NDArray[np.void]
