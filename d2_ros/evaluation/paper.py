"""The multi-view optimisation as its paper has it, for comparison with ours.

M. Dusmanu, J. L. Schonberger, M. Pollefeys, "Multi-View Optimization of Local Feature
Geometry" (ECCV 2020): minimise ``sum s_ij rho(|x_j - T_ij(x_i)| / 16 px)`` over the
displacements of the detected keypoints, at most 16 px per axis, with a fixed Cauchy kernel of
0.25 and the similarities s_ij as weights; the observation of a track with the largest sum of
similarities is its root and stays where it was detected. Not taken over are the measurements
themselves: the edges are ours, with affine transforms where the paper interpolates a grid of
3 x 3 displacements, and in one direction only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d2_ros.evaluation.accuracy import ages
from d2_ros.evaluation.graphs import WindowGraph

UNIT = 16.0
"""Half a patch of the paper, px: the unit of its kernel and the bound of its displacements."""

KERNEL = 0.25
"""Width of the Cauchy kernel, in units."""

_STEPS = 100  # reweighting steps, at most
_CONVERGED = 1e-4  # px
_LOOSE = 1e-9  # weight that keeps observations without an edge where they were detected


def roots_by_similarity(graph: WindowGraph) -> NDArray[np.bool_]:
    """``(N,)`` bool: the observation of each track with the largest sum of similarities."""
    count = len(graph.track)
    strength = np.bincount(graph.first, graph.similarity, minlength=count)
    strength += np.bincount(graph.second, graph.similarity, minlength=count)
    order = np.lexsort([-strength, graph.track])
    held = np.zeros(count, bool)
    held[order[np.unique(graph.track[order], return_index=True)[1]]] = True
    return held


def refine_as_published(graph: WindowGraph) -> NDArray[np.float64]:
    """Places of all observations by the paper's scheme, ``(N, 2)`` px.

    Reweighted least squares from the detected places, all tracks at once, each a dense system
    of its observations.
    """
    _, track = np.unique(graph.track, return_inverse=True)
    slot = ages(track)
    shape = (int(track.max(initial=-1)) + 1, int(slot.max(initial=-1)) + 1)
    held = roots_by_similarity(graph)
    move = np.zeros(graph.detected.shape)
    for _ in range(_STEPS):
        residual, jacobian = _residuals(graph, graph.detected + move)
        squared = (residual**2).sum(1) / (KERNEL * UNIT) ** 2
        weight = np.maximum(graph.similarity, 0) / (1 + squared)
        normal = np.zeros((*shape, shape[1], 2, 2))
        right = np.zeros((*shape, 2))
        owner, i, j = track[graph.first], slot[graph.first], slot[graph.second]
        scaled = weight[:, None, None] * jacobian
        turned = scaled.transpose(0, 2, 1)
        np.add.at(normal, (owner, j, j), weight[:, None, None] * np.eye(2))
        np.add.at(normal, (owner, i, i), turned @ jacobian)
        np.add.at(normal, (owner, j, i), -scaled)
        np.add.at(normal, (owner, i, j), -turned)
        np.add.at(right, (owner, j), -weight[:, None] * residual)
        np.add.at(right, (owner, i), np.einsum("eji,ej->ei", scaled, residual))
        step = _solve(normal, right, held, track, slot)
        moved = np.clip(move + step, -UNIT, UNIT)
        done = np.abs(moved - move).max(initial=0.0) < _CONVERGED
        move = moved
        if done:
            break
    return np.asarray(graph.detected + move)


def _residuals(
    graph: WindowGraph, places: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``x_j - T_ij(x_i)``, px, and the derivative of ``T_ij``."""
    edges = graph.edges
    offset = places[graph.first] - edges.centre
    there = edges.pixels + np.einsum("eij,ej->ei", edges.affine, offset)
    return places[graph.second] - there, edges.affine


def _solve(
    normal: NDArray[np.float64],
    right: NDArray[np.float64],
    held: NDArray[np.bool_],
    track: NDArray[np.int64],
    slot: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Steps ``(N, 2)`` of the observations, 0 for those that are held.

    `normal` is ``(T, S, S, 2, 2)`` and `right` ``(T, S, 2)``: tracks, their observations.
    """
    tracks, width = right.shape[:2]
    fixed = np.ones((tracks, width), bool)  # empty slots as well
    fixed[track, slot] = held
    rows = np.repeat(fixed, 2, axis=1)
    matrix = normal.transpose(0, 1, 3, 2, 4).reshape(tracks, 2 * width, 2 * width)
    matrix[rows[:, :, None] | rows[:, None]] = 0.0
    diagonal = np.arange(2 * width)
    matrix[:, diagonal, diagonal] += np.where(rows, 1.0, _LOOSE)
    vector = np.where(rows, 0.0, right.reshape(tracks, -1))
    step = np.linalg.solve(matrix, vector[:, :, None])[:, :, 0]
    return np.asarray(step.reshape(tracks, width, 2)[track, slot])
