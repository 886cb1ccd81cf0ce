"""The graph of :mod:`d2_ros.refinement.multiview` solved with SciPy instead of GTSAM.

The same costs, kernels and stopping rule: iteratively reweighted least squares on sparse normal
equations, all edges at once in NumPy. Quicker by a multiple, since no Python object is made per
factor, and it holds Python's global lock for shorter stretches; docs/performance.md has figures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu

from d2_ros.config import RefinementConfig
from d2_ros.refinement.multiview import (
    ABSOLUTE_TOLERANCE,
    ITERATIONS,
    RELATIVE_TOLERANCE,
)
from d2_ros.refinement.problem import (
    EDGE_FLOOR,
    HOLD_SIGMA,
    Problem,
    kernel_widths,
    unsettled,
)


def refine_graph(problem: Problem, config: RefinementConfig) -> NDArray[np.float64]:
    """Move all observations into agreement; as :func:`d2_ros.refinement.multiview.refine_graph`."""
    solution = problem.pixels.copy()
    for kernel in kernel_widths(config) if len(problem.edges) else ():
        rows = unsettled(problem, solution, kernel, config.prior_sigma)
        if len(rows):
            _solve(problem, rows, solution, kernel, config.prior_sigma)
    return solution


def _solve(
    problem: Problem,
    rows: NDArray[np.int64],
    solution: NDArray[np.float64],
    kernel: float,
    prior_sigma: float,
) -> None:
    """One pass over the edges `rows`; changes the solution in place."""
    edges = problem.edges.select(rows)
    ends = np.concatenate([problem.first[rows], problem.second[rows]])
    used, nodes = np.unique(ends, return_inverse=True)
    start, end = nodes[: len(edges)], nodes[len(edges) :]
    information = problem.information[rows]
    prior = np.where(problem.held[used], HOLD_SIGMA, prior_sigma)[:, None] ** -2.0
    places = _places(start, end, len(used))
    origin, x = problem.pixels[used], solution[used]
    # The affine part is lagged: fixed at the last pass's solution, renewed each pass.
    offset = x[start] - edges.centre
    shift = edges.pixels + np.einsum("eij,ej->ei", edges.affine, offset) - x[start]
    width, before = (kernel / EDGE_FLOOR) ** 2, np.inf
    for _ in range(ITERATIONS):
        residual, moved = x[end] - x[start] - shift, x - origin
        pull = np.einsum("eij,ej->ei", information, residual)
        squared = (residual * pull).sum(1)
        error = 0.5 * (width * np.log1p(squared / width).sum() + (prior * moved**2).sum())
        if before - error < max(ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE * error):
            break
        before = error
        weight = width / (width + squared)  # Cauchy's
        gradient = _gather(weight[:, None] * pull, start, end, len(x)) + prior * moved
        normal = _normal(weight[:, None, None] * information, prior, places)
        factored = splu(normal, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
        x = x - factored.solve(gradient.ravel()).reshape(-1, 2)
    solution[used] = x


def _places(
    start: NDArray[np.int64], end: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of every entry that :func:`_normal` adds up."""
    down, across = np.repeat([0, 1], 2), np.tile([0, 1], 2)
    diagonal = np.arange(2 * count)
    firsts, seconds = (start, end, start, end), (start, end, end, start)
    rows = [(2 * node[:, None] + down).ravel() for node in firsts]
    columns = [(2 * node[:, None] + across).ravel() for node in seconds]
    return np.concatenate([*rows, diagonal]), np.concatenate([*columns, diagonal])


def _normal(
    blocks: NDArray[np.float64],
    prior: NDArray[np.float64],
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> csc_matrix:
    """Normal equations: each edge's 2x2 block at both ends, its negative between them."""
    flat = blocks.ravel()
    values = np.concatenate([flat, flat, -flat, -flat, np.repeat(prior.ravel(), 2)])
    size = 2 * len(prior)
    return csc_matrix((values, places), (size, size))


def _gather(
    pull: NDArray[np.float64], start: NDArray[np.int64], end: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Sum over the edges at each node: with the edge at its end, against it at its start."""
    columns = [np.bincount(end, p, count) - np.bincount(start, p, count) for p in pull.T]
    return np.stack(columns, 1)
