"""Per-frame refinement: one frame's keypoints against the window as it stands.

The neighbours of a star graph are held, so every keypoint is a robust mean of the places
its edges predict; vectorised over all keypoints (a test shows it equal to GTSAM).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from d2_ros.config import RefinementConfig
from d2_ros.matching.alignment import largest_sigma
from d2_ros.refinement.problem import EDGE_FLOOR
from d2_ros.tracks.graph import Edges
from d2_ros.tracks.observations import Observations

SIGMA_SCALE = 0.75
"""Errors of refined positions over the sum of what is known of them (:func:`refine_frame`),
measured on the synthetic sequence."""

ISOTROPIC = 0.4
"""Share of an ellipse's long axis that its short one has at least: along an edge, errors of the
affine part turn the long axis into the short one."""

OUTLYING = 3.0
"""Standard deviations up to so many times the frame's median are no reason to end a track."""

_STEPS = 30  # reweighting steps, at most
_CONVERGED = 1e-3  # px


@dataclass(frozen=True)
class Refined:
    """Refined positions.

    Attributes
    ----------
    pixels
        ``(N, 2)`` float64, px.
    covariance
        ``(N, 2, 2)`` float64, px^2, relative to the track.
    weight
        ``(E,)`` float64 robust weight of each edge at the solution, 0 to 1.
    """

    pixels: NDArray[np.float64]
    covariance: NDArray[np.float64]
    weight: NDArray[np.float64]


def refine_frame(
    owner: NDArray[np.int64],
    predicted: NDArray[np.float64],
    covariance: NDArray[np.float64],
    count: int,
    config: RefinementConfig,
) -> Refined:
    """Robust (Cauchy) mean of the predicted places of each keypoint, from the best of them.

    Parameters
    ----------
    owner
        ``(E,)`` keypoint of each edge.
    predicted, covariance
        ``(E, 2)``, ``(E, 2, 2)``: where each edge puts its keypoint and how surely.
    count
        N, keypoints; those without an edge come back NaN.
    """
    slot = _slots(owner, count)
    width = int(slot.max(initial=-1)) + 1
    places: NDArray[np.float64] = np.zeros((count, width, 2))
    places[owner, slot] = predicted
    information = np.zeros((count, width, 2, 2))
    information[owner, slot] = np.linalg.inv(covariance + EDGE_FLOOR**2 * np.eye(2))
    scale = (EDGE_FLOOR / config.kernel_end) ** 2
    pixels = _best_edge(places, information, scale)
    weight: NDArray[np.float64] = np.zeros((count, width))
    for _ in range(_STEPS):
        last = pixels
        weight = 1 / (1 + scale * _squared(pixels[:, None], places, information))
        pixels = _weighted_mean(places, information * weight[:, :, None, None])
        if not np.nanmax(np.abs(pixels - last), initial=0.0) > _CONVERGED:
            break
    edge_weight = weight[owner, slot]
    offset = predicted - pixels[owner]
    scatter = offset[:, :, None] * offset[:, None]
    spread = np.zeros((count, width, 2, 2))
    spread[owner, slot] = (covariance + scatter) * edge_weight[:, None, None]
    total = np.bincount(owner, edge_weight, minlength=count)
    with np.errstate(invalid="ignore", divide="ignore"):
        # The mean, not the inverse of the summed information: all edges of a keypoint share
        # the noise of its patch and that of the track's first one, which averaging over
        # keyframes cannot remove. Many edges make a place robust, hardly more certain.
        mean = spread.sum(1) / total[:, None, None]
    return Refined(pixels, _rounder(mean) * SIGMA_SCALE**2, edge_weight)


def refined(
    obs: Observations, owner: NDArray[np.int64], edges: Edges, config: RefinementConfig
) -> Observations:
    """Keypoints moved to where the window says that they lie; without a track if that is unsure."""
    found = refine_frame(owner, edges.pixels, edges.covariance, len(obs), config)
    agreed = np.isfinite(found.pixels[:, 0])
    sure = agreed & sure_enough(found.covariance, config)
    return replace(
        obs,
        pixels=np.where(agreed[:, None], found.pixels, obs.pixels),
        covariance=np.where(agreed[:, None, None], found.covariance, obs.covariance),
        drift=np.where(agreed[:, None, None], found.covariance, 0.0),
        tracks=np.where(sure, obs.tracks, 0),
    )


def sure_enough(covariance: NDArray[np.float64], config: RefinementConfig) -> NDArray[np.bool_]:
    """Which of one frame's keypoints may stay in their track.

    Those of a blurred or poorly textured image are all uncertain, and no more suspect for it: too
    uncertain is what is so beside the frame's others as well.

    Parameters
    ----------
    covariance
        ``(N, 2, 2)`` px^2; NaN where there is none, which is not sure.
    """
    sigma = largest_sigma(covariance)
    known = sigma[np.isfinite(sigma)]
    typical = float(np.median(known)) if len(known) else 0.0
    return np.asarray(sigma <= max(config.max_sigma, OUTLYING * typical))


def _rounder(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    shortest = ISOTROPIC * largest_sigma(covariance)
    return covariance + (shortest**2)[:, None, None] * np.eye(2)


def _slots(owner: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Number each edge among those of its keypoint: 0, 1, 2, ..."""
    order = np.argsort(owner, kind="stable")
    begin = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=count))[:-1]])
    slot = np.empty(len(owner), np.int64)
    slot[order] = np.arange(len(owner)) - begin[owner[order]]
    return slot


def _squared(
    pixels: NDArray[np.float64], places: NDArray[np.float64], information: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Squared normalised distances; 0 for the padding, whose information is 0."""
    residual = pixels - places
    return np.einsum("...i,...ij,...j->...", residual, information, residual)


def _best_edge(
    places: NDArray[np.float64], information: NDArray[np.float64], scale: float
) -> NDArray[np.float64]:
    """The place of the edge that the others contradict least, ``(N, 2)``.

    Trying every edge finds the right minimum of the narrow kernel where a descent from the
    mean would end between two camps.
    """
    count, width = places.shape[:2]
    if width == 0:
        return np.full((count, 2), np.nan)
    distance = _squared(places[:, :, None], places[:, None], information[:, None])
    cost = np.log1p(scale * distance).sum(2)
    cost[information[:, :, 0, 0] == 0] = np.inf
    return places[np.arange(count), cost.argmin(1)]


def _weighted_mean(
    places: NDArray[np.float64], information: NDArray[np.float64]
) -> NDArray[np.float64]:
    total = information.sum(1)
    right = np.einsum("nmij,nmj->ni", information, places)
    empty = total[:, 0, 0] == 0
    total[empty] = np.eye(2)
    right[empty] = np.nan
    mean: NDArray[np.float64] = np.linalg.solve(total, right[:, :, None])[:, :, 0]
    return mean
