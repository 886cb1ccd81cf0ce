"""Pyramids of the network's early maps, for pairs of images whose gray values disagree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from d2_ros.config import AlignmentConfig
from d2_ros.features.device import to_device
from d2_ros.features.early import EarlyMap
from d2_ros.matching.pyramid import Level, Pyramid, halve, smooth

_MIN_CORRELATION = 0.7  # maps disagree a little even where the place is right


def as_accepted(config: AlignmentConfig) -> AlignmentConfig:
    """Return the gates as they are for alignments of early maps."""
    return replace(config, min_correlation=min(config.min_correlation, _MIN_CORRELATION))


class LazyPyramid:
    """A pyramid that is built when it is first asked for, and kept.

    Parameters
    ----------
    build
        Returns the pyramid.
    """

    def __init__(self, build: Callable[[], Pyramid]) -> None:
        self._build = build

    @cached_property
    def pyramid(self) -> Pyramid:
        """The pyramid."""
        return self._build()


def early_pyramid(early: EarlyMap, levels: int) -> Pyramid:
    """Levels of early maps, in the pixels of the image as it arrived.

    Pixel p of level 0 is p / 2**l in level l, as in a gray pyramid. The maps are smooth enough
    to be interpolated between their own cells.
    """
    scale = to_device(early.scale.astype(np.float32), early.values.device)
    maps = smooth(early.values[None].contiguous())
    pyramid = [_level(maps, scale, 0)]
    while len(pyramid) < levels and min(maps.shape[2:]) >= 32:
        maps = halve(maps)
        pyramid.append(_level(maps, scale, len(pyramid)))
    return tuple(pyramid)


def _level(maps: torch.Tensor, scale: torch.Tensor, level: int) -> Level:
    height, width = maps.shape[2:]
    last = torch.tensor([width - 1, height - 1], device=maps.device)
    size = (round(width / float(scale[0])), round(height / float(scale[1])))
    # Pixel p has its centre at cell scale * p + (scale - 1) / 2 of level 0.
    return Level(maps, size, 2 * scale / last, (scale - 1) / 2**level / last - 1)
