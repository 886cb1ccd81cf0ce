"""The match graph of a window, prepared for a solver: plain arrays, for any process to solve."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from d2_ros.config import RefinementConfig
from d2_ros.tracks.graph import Edges

EDGE_FLOOR = 0.05
"""px: no edge is taken to be more certain than this; interpolation and the affine model
leave errors that the residual of a patch does not show."""

HOLD_SIGMA = 1e-4  # px

SETTLED = 0.005
"""px: a track none of whose observations would move by more is left as it is. A tenth of
:data:`EDGE_FLOOR`; half of a window's edges, or more, are of such tracks."""


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

    @cached_property
    def covariance(self) -> NDArray[np.float64]:
        """``(E, 2, 2)`` of the edges, px^2, with their floor."""
        return self.edges.covariance + EDGE_FLOOR**2 * np.eye(2)

    @cached_property
    def information(self) -> NDArray[np.float64]:
        """``(E, 2, 2)`` inverses of :attr:`covariance`; every pass of a solver asks for them."""
        return np.asarray(np.linalg.inv(self.covariance))


def unsettled(
    problem: Problem, places: NDArray[np.float64], kernel: float, prior_sigma: float
) -> NDArray[np.int64]:
    """Edges of the tracks that a solution is yet to move.

    Of every observation the step that it would take if the others stayed (Jacobi's) is compared
    with :data:`SETTLED`; one that goes further wakes its whole track.

    Parameters
    ----------
    places
        ``(N, 2)`` where the observations are, px.
    kernel
        Width of the Cauchy kernel, px.
    prior_sigma
        Of every observation about where it stood before, px.
    """
    edges, first, second = problem.edges, problem.first, problem.second
    information = problem.information
    residual = places[second] - edges.pixels
    residual -= np.einsum("eij,ej->ei", edges.affine, places[first] - edges.centre)
    pull = np.einsum("eij,ej->ei", information, residual)
    width = (kernel / EDGE_FLOOR) ** 2
    weight = width / (width + (residual * pull).sum(1))  # Cauchy's
    ends, count = np.concatenate([first, second]), len(places)
    pulls = np.concatenate([-weight[:, None] * pull, weight[:, None] * pull])
    blocks = np.tile(weight[:, None, None] * information, (2, 1, 1)).reshape(-1, 4)
    prior = np.where(problem.held, HOLD_SIGMA, prior_sigma)[:, None] ** -2.0
    gradient = _sums(ends, pulls, count) + prior * (places - problem.pixels)
    hessian = _sums(ends, blocks, count).reshape(-1, 2, 2) + prior[:, :, None] * np.eye(2)
    step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
    restless = np.linalg.norm(step, axis=1) > SETTLED
    woken = np.unique(edges.track[restless[first] | restless[second]])
    return np.flatnonzero(np.isin(edges.track, woken))


def _sums(rows: NDArray[np.int64], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Sums of the values of each row, ``(M, D)`` -> ``(count, D)``."""
    return np.stack([np.bincount(rows, column, count) for column in values.T], 1)


def kernel_widths(config: RefinementConfig) -> NDArray[np.float64]:
    """Widths (px) of the Cauchy kernel of the window solution, pass by pass."""
    widths = np.geomspace(config.kernel_start, config.kernel_end, config.passes)
    return np.asarray(widths, np.float64)
