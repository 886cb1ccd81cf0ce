"""The match graph of a window, prepared for a solver: plain arrays, for any process to solve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2_ros.config import RefinementConfig
from d2_ros.tracks.graph import Edges

EDGE_FLOOR = 0.05
"""px: no edge is taken to be more certain than this; interpolation and the affine model
leave errors that the residual of a patch does not show."""


@dataclass(frozen=True)
class Problem:
    """N observations and the E edges between them.

    Attributes
    ----------
    pixels
        ``(N, 2)`` float64 observations as they stand, px.
    held
        ``(N,)`` bool: observations that must not move, the root of every track.
    first, second
        ``(E,)`` int64 observations that each edge joins.
    edges
        The transforms, first -> second.
    """

    pixels: NDArray[np.float64]
    held: NDArray[np.bool_]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    edges: Edges

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.held):
            raise ValueError("pixels and held must have one length")
        if not len(self.first) == len(self.second) == len(self.edges):
            raise ValueError("every edge must have a first and a second observation")


def kernel_widths(config: RefinementConfig) -> NDArray[np.float64]:
    """Widths (px) of the Cauchy kernel of the window solution, pass by pass."""
    widths = np.geomspace(config.kernel_start, config.kernel_end, config.passes)
    return np.asarray(widths, np.float64)
