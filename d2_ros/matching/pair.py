"""Matches of two images, aligned: without a window, without tracks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from d2_ros.config import Config
from d2_ros.matching.alignment import accept, align, forward_backward
from d2_ros.matching.cutting import cut
from d2_ros.matching.pyramid import Pyramid
from d2_ros.matching.warps import Alignment, Warps

Pixels = NDArray[np.float64]


def align_pair(
    pyramids: Sequence[Pyramid], centres: Pixels, detected: Pixels, around: Warps, config: Config
) -> tuple[NDArray[np.int64], Alignment]:
    """Align patches of the first image, at ``(M, 2)`` `centres`, in the second one.

    Starts are the `detected` places ``(M, 2)``, px, and where the matches `around` them say.

    Returns
    -------
    good
        ``(G,)`` rows whose alignments pass every gate.
    aligned
        These G alignments.
    """
    settings, (first, second) = config.alignment, pyramids
    templates = cut(first, centres, settings.patch_radius)
    starts = [Warps(detected, around.affine), around]
    aligned = align(templates, second, starts, settings)
    good = np.flatnonzero(accept(aligned, detected, settings))
    if not len(good):
        return good, aligned.select(good)
    warps = aligned.warps.select(good)
    patches = cut(second[:1], warps.pixels, settings.patch_radius)[0]
    each, one = np.arange(len(good)), np.zeros(len(good), np.int64)
    error = forward_backward(
        patches, each, warps.pixels, warps, [first], one, centres[good], settings
    )
    returned = error <= settings.max_forward_backward
    return good[returned], aligned.select(good[returned])
