"""Cutting patches from image pyramids."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.features.device import to_device
from d2_ros.matching.patches import Patches, Templates, disc, noise
from d2_ros.matching.pyramid import Level, Pyramid
from d2_ros.matching.steps import steps_for


def cut(pyramid: Pyramid, centres: NDArray[np.float64], radius: int) -> tuple[Templates, ...]:
    """Cut patches around places of an image, at every level of its pyramid.

    Parameters
    ----------
    pyramid
        Of the image.
    centres
        ``(N, 2)`` px; patches that reach over the border weigh nothing there.
    radius
        Of the patch, px of each level.
    """
    places = _places(centres, pyramid[0].device)
    shape = disc(radius, pyramid[0].device)
    levels = [
        steps_for(image).cut(image, places / 2**level, shape) for level, image in enumerate(pyramid)
    ]
    return tuple(Templates(**vars(patches), noise=noise(patches, shape)) for patches in levels)


def cut_plain(image: Level, centres: NDArray[np.float64], radius: int) -> Patches:
    """The same at one level, of whose pixels `centres` are."""
    places = _places(centres, image.device)
    return steps_for(image).cut(image, places, disc(radius, image.device))


def _places(centres: NDArray[np.float64], device: torch.device) -> torch.Tensor:
    return to_device(np.ascontiguousarray(centres, np.float32), device)
