"""Local affine motion between two images, from the verified matches around each place."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.matching.warps import Warps

_NEIGHBOURS = 12
_MATCH_SIGMA = 2.0  # px, how well D2-Net places a keypoint
_AFFINE_SIGMA = 0.15  # how far the local affine part strays from the pair's
_MIN_MATCHES = 6


def predict(
    places: NDArray[np.float64],
    pixels_from: NDArray[np.float64],
    pixels_to: NDArray[np.float64],
) -> Warps | None:
    """Predict where `places` of one image lie in another, and the local affine motion.

    A robust affine least-squares fit to the nearest matches of every place, drawn weakly to
    the affine motion of the whole pair.

    Parameters
    ----------
    places
        ``(Q, 2)`` px.
    pixels_from, pixels_to
        ``(M, 2)`` verified matches, px.

    Returns
    -------
    Warps of the Q places, or None where there are too few matches to say.
    """
    if len(pixels_from) < _MIN_MATCHES:
        return None
    source, target = torch.from_numpy(pixels_from), torch.from_numpy(pixels_to)
    centre = source.mean(0)
    identity = torch.cat([target.mean(0)[None], torch.eye(2, dtype=source.dtype)])[None]
    loose = torch.tensor([0.0, 1e-6, 1e-6], dtype=source.dtype)
    whole = _fit(source[None] - centre, target[None], identity, loose)
    query = torch.from_numpy(places)
    nearest = torch.cdist(query, source).topk(min(_NEIGHBOURS, len(source)), largest=False).indices
    offset = source[nearest] - query[:, None]
    prior = whole.expand(len(query), 3, 2).clone()
    prior[:, 0] += ((query - centre)[:, None] @ whole[0, 1:])[:, 0]
    information = torch.tensor([1e-2, 1.0, 1.0], dtype=source.dtype) / _AFFINE_SIGMA**2
    solution = _fit(offset, target[nearest], prior, information)
    return Warps(solution[:, 0].numpy(), solution[:, 1:].transpose(1, 2).numpy())


def _fit(
    offset: torch.Tensor, target: torch.Tensor, prior: torch.Tensor, information: torch.Tensor
) -> torch.Tensor:
    """Cauchy-weighted fits ``target = [1, offset] @ solution`` near `prior`, ``(Q, 3, 2)``."""
    rows = torch.cat([torch.ones_like(offset[..., :1]), offset], 2)
    solution = prior
    for _ in range(3):
        residual = (rows @ solution - target).norm(dim=2) / _MATCH_SIGMA
        weight = (1 / (1 + residual**2) / _MATCH_SIGMA**2)[..., None]
        normal = (rows * weight).transpose(1, 2) @ rows + torch.diag(information)
        right = (rows * weight).transpose(1, 2) @ target + information[:, None] * prior
        solution = torch.linalg.solve(normal, right)
    return solution
