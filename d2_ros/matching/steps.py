"""Which code does the steps of an alignment."""

from __future__ import annotations

from typing import Protocol

import torch

from d2_ros.matching import batched, compiled
from d2_ros.matching.patches import Disc, Patches
from d2_ros.matching.pyramid import Level


class Steps(Protocol):
    """What :mod:`~d2_ros.matching.batched` and :mod:`~d2_ros.matching.compiled` both offer."""

    def cut(self, image: Level, centres: torch.Tensor, shape: Disc) -> Patches:
        """Cut patches around ``(N, 2)`` places of a level, px of that level."""
        ...

    def track(
        self,
        patches: Patches,
        image: Level,
        pixels: torch.Tensor,
        affine: torch.Tensor,
        shape: Disc,
        iterations: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """From the best of several starts, Gauss-Newton on one level."""
        ...

    def finish(
        self,
        patches: Patches,
        image: Level,
        pixels: torch.Tensor,
        affine: torch.Tensor,
        shape: Disc,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A last, robust step, and how well the patches then agree."""
        ...


def steps_for(image: Level) -> Steps:
    """Machine code for gray images on a CPU; torch for early maps, and on a GPU."""
    return compiled if image.device.type == "cpu" and image.channels == 1 else batched
