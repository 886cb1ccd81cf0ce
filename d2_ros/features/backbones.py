"""The networks that can stand behind the extractor, told apart by their weights' names.

Each takes images of :func:`~d2_ros.features.network.normalise` and hands out a tuple with a
``response`` of 512 channels on the grid of :data:`~d2_ros.features.network.STRIDE` and
:data:`~d2_ros.features.network.OFFSET`; its ``stride`` can be twice as large for training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
from torch import Tensor

from d2_ros.features.mobile import MobileNetwork
from d2_ros.features.network import STRIDE, Network
from d2_ros.features.projection import without_projection

Backbone = Network | MobileNetwork
"""What they are; ``before`` and ``after`` split one in front of any of its layers."""

BACKBONES: dict[str, Callable[[int], Backbone]] = {"vgg16": Network, "mobile": MobileNetwork}
"""Name -> network of a given stride."""


@lru_cache
def weight_shapes(backbone: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a backbone."""
    with torch.device("meta"):
        state = BACKBONES[backbone](STRIDE).state_dict()
    return {name: tuple(value.shape) for name, value in state.items()}


def recognise(weights: Mapping[str, object]) -> str:
    """Name of the backbone that shares most names with `weights`; vgg16 if none does."""
    return max(BACKBONES, key=lambda name: len(weight_shapes(name).keys() & weights.keys()))


def build_network(weights: Mapping[str, Tensor], stride: int = STRIDE) -> Backbone:
    """The network that `weights` (of :func:`d2_ros.features.weights.load_weights`) belong to."""
    network = BACKBONES[recognise(weights)](stride)
    network.load_state_dict(without_projection(weights))
    return network
