"""Matches of a rectified stereo pair with exact disparity: Middlebury's motorcycle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError
from d2_ros.evaluation.homographies import accuracy
from d2_ros.evaluation.match_sets import MATCH_SETS, MatchSets, prefixed
from d2_ros.evaluation.peers import Points
from d2_ros.evaluation.tracking import Figures

EDGE = 1.0
"""Disparities of neighbouring pixels that differ by more are a depth edge, px."""


@dataclass(frozen=True)
class StereoPair:
    """Two rectified images.

    Attributes
    ----------
    left, right
        ``(H, W, 3)`` uint8 BGR.
    disparity
        ``(H, W)`` float64: pixel (u, v) of the left image lies at (u - disparity, v) of the
        right one; not finite where unknown.
    """

    left: NDArray[np.uint8]
    right: NDArray[np.uint8]
    disparity: NDArray[np.float64]


def motorcycle() -> StereoPair:
    """Load the pair that comes with scikit-image (Scharstein et al., GCPR 2014).

    Raises
    ------
    D2RosError
        If scikit-image or its picture is not there.
    """
    try:
        import skimage.data

        left, right, disparity = skimage.data.stereo_motorcycle()
    except (ImportError, OSError, ValueError) as error:
        raise D2RosError(
            f"the stereo pair of scikit-image is not there ({error}); install it with "
            "`pip install scikit-image pooch`"
        ) from None
    images: list[Any] = [cv2.cvtColor(image, cv2.COLOR_RGB2BGR) for image in (left, right)]
    return StereoPair(images[0], images[1], disparity.astype(np.float64))


def stereo_errors(points: Points, disparity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of matches from their true places.

    Parameters
    ----------
    points
        Matches of the left with the right image.
    disparity
        Of the left image.

    Returns
    -------
    ``(K,)`` px, of the matches whose left place has a truth: its four pixels have a disparity
    and are of one surface, so that it can be interpolated.
    """
    left, right = points
    corner = np.floor(left).astype(int)
    limit = np.array(disparity.shape[::-1]) - 2
    inside = ((corner >= 0) & (corner <= limit)).all(axis=1)
    left, right, (column, row) = left[inside], right[inside], corner[inside].T
    around = np.stack([disparity[row + dy, column + dx] for dy in (0, 1) for dx in (0, 1)], axis=1)
    known = np.isfinite(around).all(axis=1)
    around = np.where(known[:, None], around, 0)
    known &= np.ptp(around, axis=1) <= EDGE
    x, y = (left - np.floor(left)).T
    weight = np.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], axis=1)
    true = left - np.column_stack([(weight * around).sum(axis=1), np.zeros(len(left))])
    return np.asarray(np.linalg.norm(true - right, axis=1)[known])


def judge_stereo(
    found: MatchSets, disparity: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Errors of a method's matches in every match set, px."""
    return {name: stereo_errors(points, disparity) for name, points in vars(found).items()}


def stereo_figures(errors: Mapping[str, NDArray[np.float64]]) -> Figures:
    """Sum up a method's errors in every match set.

    Returns
    -------
    Of the raw matches: matches (with a truth), share and number (``within_*``) within 0.5, 1 and
    3 px, median error of those within 3; ``verified_*``, ``published_*``, ``guided_*``: the same
    of the other match sets.
    """
    of = {match_set: _figures(errors[match_set]) for match_set in MATCH_SETS}
    figures = of.pop("raw")
    for match_set, named in of.items():
        figures |= prefixed(match_set, named)
    return figures


def _figures(errors: NDArray[np.float64]) -> Figures:
    limits = {"0.5px": 0.5, "1px": 1.0, "3px": 3.0}
    shares = accuracy(errors, tuple(limits.values()))
    near = errors[errors <= 3]
    figures: Figures = {"matches": len(errors)}
    for (name, limit), share in zip(limits.items(), shares, strict=True):
        figures[f"share_{name}"] = float(share)
        figures[f"within_{name}"] = int((errors <= limit).sum())
    if len(near):
        figures["median_within_3px_px"] = float(np.median(near))
    return figures
