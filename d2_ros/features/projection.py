"""A shorter descriptor: a linear map that a weights file may carry beside the network's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

PREFIX = "projection."
"""What the names of its entries in a weights file start with."""


class DescriptorProjection(NamedTuple):
    """Descriptors of K instead of C values.

    Attributes
    ----------
    weight
        ``(K, C)`` float32.
    bias
        ``(K,)`` float32.
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, descriptors: Tensor) -> Tensor:
        """``(N, C)`` float32 of unit length -> ``(N, K)`` of unit length, of either sign."""
        return F.normalize(F.linear(descriptors, self.weight, self.bias), dim=1)

    def state(self) -> dict[str, Tensor]:
        """Its entries in a weights file."""
        return {PREFIX + name: value for name, value in self._asdict().items()}


def projection_of(weights: Mapping[str, Tensor]) -> DescriptorProjection | None:
    """The projection among `weights` of :func:`d2_ros.features.weights.load_weights`, if any."""
    names = [PREFIX + name for name in DescriptorProjection._fields]
    return DescriptorProjection(*(weights[name] for name in names)) if names[0] in weights else None


def without_projection(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's entries only."""
    return {name: value for name, value in weights.items() if not name.startswith(PREFIX)}
