"""What the epipolar geometry of image pairs says of the covariances of a view's keypoints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from d2_ros.matching.verification import Verdict
from d2_ros.tracks.links import Links
from d2_ros.tracks.observations import Observations

_PRIOR = 1.0  # observations of an ordinary epipolar distance that are taken for granted


def with_epipolar_consistency(obs: Observations, links: Links, verdict: Verdict) -> Observations:
    """Scale the covariances of tracked keypoints by their :func:`epipolar_factors`."""
    here = links.tracked
    owner = links.matches.index[here]
    factor = epipolar_factors(owner, verdict.residual[here], verdict.normal[here], obs.covariance)
    scale = factor[:, None, None]
    return replace(obs, covariance=obs.covariance * scale, drift=obs.drift * scale)


def epipolar_factors(
    owner: NDArray[np.int64],
    residual: NDArray[np.float64],
    normal: NDArray[np.float64],
    covariance: NDArray[np.float64],
) -> NDArray[np.float64]:
    """By how much each covariance is too small, or too large, for its epipolar distances.

    The geometry of the whole pair tells one component of the error of every keypoint. Its
    square over the variance it should have is averaged over the keyframes and, as one more
    observation of the keypoint's own variance, with a prior of 1.

    Parameters
    ----------
    owner
        ``(L,)`` keypoint of each link.
    residual, normal
        ``(L,)``, ``(L, 2)``: its distance from the epipolar line (NaN: unknown), the unit normal.
    covariance
        ``(N, 2, 2)`` of the keypoints, px^2.

    Returns
    -------
    ``(N,)`` factors for the covariances; 1 for keypoints of which nothing is known.
    """
    known = np.isfinite(residual)
    owner, residual, normal = owner[known], residual[known], normal[known]
    variance = np.einsum("li,lij,lj->l", normal, covariance[owner], normal)
    count = np.bincount(owner, minlength=len(covariance))
    squared = np.bincount(owner, residual**2 / variance, minlength=len(covariance))
    mean = np.where(count > 0, squared / np.maximum(count, 1), 1.0)
    factor: NDArray[np.float64] = (_PRIOR + mean) / (_PRIOR + 1)
    return factor
