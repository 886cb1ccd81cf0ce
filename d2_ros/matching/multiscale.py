"""What a small patch says of an alignment that a large one has found.

A large patch is exact where it shows one surface. Across a depth edge it follows whichever surface
has more contrast, and no residual of its own tells that this is not the keypoint's. A patch of
half the width around the same keypoint holds less of the other surface and ends elsewhere.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from d2_ros.config import AlignmentConfig
from d2_ros.matching.alignment import align
from d2_ros.matching.cutting import cut
from d2_ros.matching.patches import Templates
from d2_ros.matching.pyramid import Pyramid
from d2_ros.matching.warps import Alignment

SMALL = 6
"""Radius of the small patch, px."""

_ITERATIONS = 4
_SAME_SHAPE = 0.6
"""Warps further from the identity than this (Frobenius norm) are not tested: with scale and
perspective the small patch, of few pixels, is resampled too coarsely to be believed."""

_FLOOR = 0.05  # px that the two may differ by without saying anything
_SURPRISE = 4.0  # squared normalised difference that counts half
_INFLATION = 3.0  # variance per squared difference


def cut_small(pyramid: Pyramid, centres: NDArray[np.float64]) -> Templates:
    """Cut the small patches around ``(N, 2)`` places, px; at full resolution only."""
    return cut(pyramid[:1], centres, SMALL)[0]


def with_disagreement(
    found: Alignment, templates: Templates, target: Pyramid, config: AlignmentConfig
) -> Alignment:
    """Add what large and small patches disagree by to the covariances of alignments.

    Parameters
    ----------
    found
        M alignments of large patches.
    templates
        The small patches around the same M places.
    target
        Pyramid of the image in which they were found.
    config
        Of the large alignments.
    """
    small = replace(config, patch_radius=SMALL, max_iterations=_ITERATIONS)
    other = align([templates], target, [found.warps], small)
    return replace(found, covariance=found.covariance + disagreement(found, other))


def disagreement(large: Alignment, small: Alignment) -> NDArray[np.float64]:
    """Covariance ``(M, 2, 2)``, px^2, that stands for the distance between two alignments.

    The squared distance, less where the small patch's own noise explains it; zero where the warp
    is far from a shift.
    """
    offset = small.warps.pixels - large.warps.pixels
    known = np.isfinite(offset).all(1) & np.isfinite(small.covariance).all((1, 2))
    known &= np.linalg.norm(large.warps.affine - np.eye(2), axis=(1, 2)) < _SAME_SHAPE
    extra: NDArray[np.float64] = np.zeros((len(offset), 2, 2))
    offset = offset[known]
    noise = np.linalg.inv(small.covariance[known] + _FLOOR**2 * np.eye(2))
    surprise = np.einsum("mi,mij,mj->m", offset, noise, offset).clip(min=0)
    share = _INFLATION * surprise / (surprise + _SURPRISE)
    extra[known] = share[:, None, None] * offset[:, :, None] * offset[:, None]
    return extra
