"""Per-frame refinement: one frame's keypoints against the window as it stands.

The neighbours of a star graph are held, so every keypoint is a robust mean of the places
its edges predict; vectorised over all keypoints (a test shows it equal to GTSAM).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2_ros.config import RefinementConfig

EDGE_FLOOR = 0.05
"""px: no edge is taken to be more certain than this; interpolation and the affine model
leave errors that the residual of a patch does not show."""

_STEPS = 3  # reweighting steps per kernel width


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
    """Robust mean of the predicted places of each keypoint, kernel annealed wide to narrow.

    Parameters
    ----------
    owner
        ``(E,)`` keypoint of each edge.
    predicted, covariance
        ``(E, 2)``, ``(E, 2, 2)``: where each edge puts its keypoint and how surely.
    count
        N, keypoints; those without an edge come back NaN.
    """
    information = np.linalg.inv(covariance + EDGE_FLOOR**2 * np.eye(2))
    weight = np.ones(len(owner))
    pixels = _mean(owner, predicted, information, count)
    for kernel in kernel_widths(config):
        for _ in range(_STEPS):
            residual = pixels[owner] - predicted
            squared = np.einsum("ei,eij,ej->e", residual, information, residual)
            weight = 1 / (1 + squared * (EDGE_FLOOR / kernel) ** 2)
            pixels = _mean(owner, predicted, information * weight[:, None, None], count)
    return Refined(pixels, _mean_covariance(owner, covariance, weight, count), weight)


def kernel_widths(config: RefinementConfig) -> NDArray[np.float64]:
    """Widths (px) of the Cauchy kernel, pass by pass."""
    return np.geomspace(config.kernel_start, config.kernel_end, config.passes)


def _sum(owner: NDArray[np.int64], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    flat = values.reshape(len(values), -1)
    columns = [np.bincount(owner, column, minlength=count) for column in flat.T]
    return np.stack(columns, 1).reshape(count, *values.shape[1:])


def _mean(
    owner: NDArray[np.int64],
    places: NDArray[np.float64],
    information: NDArray[np.float64],
    count: int,
) -> NDArray[np.float64]:
    if len(owner) == 0:
        return np.full((count, 2), np.nan)
    total = _sum(owner, information, count)
    right = _sum(owner, np.einsum("eij,ej->ei", information, places), count)
    empty = total[:, 0, 0] == 0
    total[empty] = np.eye(2)
    right[empty] = np.nan
    return np.linalg.solve(total, right[:, :, None])[:, :, 0]


def _mean_covariance(
    owner: NDArray[np.int64],
    covariance: NDArray[np.float64],
    weight: NDArray[np.float64],
    count: int,
) -> NDArray[np.float64]:
    """Mean, not the sum of information: all edges of a keypoint share the noise of its patch.

    Averaging over keyframes cannot remove that noise, nor that of the track's first patch,
    so many edges make a position robust but hardly more certain than one.
    """
    if len(owner) == 0:
        return np.full((count, 2, 2), np.nan)
    total = _sum(owner, weight[:, None], count)[:, 0]
    summed = _sum(owner, covariance * weight[:, None, None], count)
    with np.errstate(invalid="ignore", divide="ignore"):
        return summed / total[:, None, None]
