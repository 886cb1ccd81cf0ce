"""The keyframes of the window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2_ros.features.device import to_device
from d2_ros.matching.cutting import cut
from d2_ros.matching.multiscale import cut_small
from d2_ros.matching.patches import Templates
from d2_ros.tracks.graph import Edges
from d2_ros.tracks.observations import Observations
from d2_ros.tracks.view import View


@dataclass(frozen=True)
class KeyframePatches:
    """The patches around a keyframe's keypoints, which later frames are aligned with.

    Attributes
    ----------
    anchors
        ``(N, 2)`` float64 where they were cut, px: where the keypoints were when the frame entered
        the window.
    levels
        Of every pyramid level, a row per keypoint.
    small
        Small ones of full resolution, a row per keypoint.
    """

    anchors: NDArray[np.float64]
    levels: tuple[Templates, ...]
    small: Templates

    def select(self, rows: NDArray[np.int64]) -> KeyframePatches:
        """Those of `rows`."""
        chosen = to_device(rows, self.small.values.device)
        levels = tuple(patches.select(chosen) for patches in self.levels)
        return KeyframePatches(self.anchors[rows], levels, self.small.select(chosen))


def cut_patches(view: View, anchors: NDArray[np.float64], radius: int) -> KeyframePatches:
    """Cut the patches around ``(N, 2)`` places of a view, px."""
    return KeyframePatches(
        anchors, cut(view.pyramid, anchors, radius), cut_small(view.pyramid, anchors)
    )


@dataclass(frozen=True)
class Keyframe:
    """A member of the window.

    Attributes
    ----------
    view
        Its image.
    obs
        What is seen in it.
    patches
        A row per row of `obs`.
    edges
        Its aligned matches with earlier keyframes; none until they are measured.
    """

    view: View
    obs: Observations
    patches: KeyframePatches
    edges: Edges

    @property
    def stamp(self) -> int:
        """Integer nanoseconds; names the keyframe."""
        return self.view.stamp
