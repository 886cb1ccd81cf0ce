"""The keyframes' sides of a view's links: places, drift and the patches to align with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.features.device import to_device
from d2_ros.matching.cutting import cut
from d2_ros.matching.neighbours import Matches
from d2_ros.matching.patches import Templates, gather
from d2_ros.tracks.keyframe import Keyframe

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class LinkTemplates:
    """The keyframes' sides of L links."""

    pixels: NDArray[np.float64]  # (L, 2) the track's place in the keyframe
    anchors: NDArray[np.float64]  # (L, 2) where the keyframe's patch was cut
    affine: NDArray[np.float64]  # (L, 2, 2) first patch of the track -> keyframe
    drift: NDArray[np.float64]  # (L, 2, 2) covariance of `pixels`
    keyframe: Rows  # (L,) ascending
    keyframe_index: Rows  # (L,)
    window: Sequence[Keyframe]

    @classmethod
    def of(cls, links: Matches, window: Sequence[Keyframe]) -> LinkTemplates:
        """Those of `links`, which are ordered by keyframe, in the keyframes of `window`."""
        pairs = [
            (keyframe, links.keyframe_index[links.keyframe == number])
            for number, keyframe in enumerate(window)
        ]
        return cls(
            np.concatenate([keyframe.obs.pixels[rows] for keyframe, rows in pairs]),
            np.concatenate([keyframe.patches.anchors[rows] for keyframe, rows in pairs]),
            np.concatenate([keyframe.obs.affine[rows] for keyframe, rows in pairs]),
            np.concatenate([keyframe.obs.drift[rows] for keyframe, rows in pairs]),
            links.keyframe,
            links.keyframe_index,
            window,
        )

    def patches(self, rows: Rows, levels: int) -> list[Templates]:
        """The patches of links `rows` (ascending), level by level, of so many levels at most."""
        all_levels = zip(
            *(keyframe.patches.levels[:levels] for keyframe in self.window), strict=False
        )
        chosen = self._rows(rows)
        return [gather(list(zip(level, chosen, strict=True))) for level in all_levels]

    def small(self, rows: Rows) -> Templates:
        """The small patches of links `rows` (ascending)."""
        patches = [keyframe.patches.small for keyframe in self.window]
        return gather(list(zip(patches, self._rows(rows), strict=True)))

    def _rows(self, rows: Rows) -> tuple[torch.Tensor, ...]:
        """For every keyframe, its rows of links `rows` (ascending), on the device."""
        device = self.window[0].patches.small.values.device
        sizes = np.bincount(self.keyframe[rows], minlength=len(self.window)).tolist()
        return to_device(self.keyframe_index[rows], device).split(sizes)

    def early_patches(self, rows: Rows, levels: int, radius: int) -> list[Templates]:
        """The same of early maps, cut now: few frames need them."""
        parts = []
        for number, keyframe in enumerate(self.window):
            here = rows[self.keyframe[rows] == number]
            if len(here):
                pyramid = keyframe.view.pyramid_of(True)[:levels]
                parts.append(cut(pyramid, self.anchors[here], radius))
        return [
            gather([(part, torch.arange(len(part), device=part.values.device)) for part in level])
            for level in zip(*parts, strict=False)
        ]
