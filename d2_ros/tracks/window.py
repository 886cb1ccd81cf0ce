"""The window of keyframes: all that the front-end remembers between frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from d2_ros.config import AlignmentConfig
from d2_ros.matching.alignment import predicted_sigma
from d2_ros.tracks.following import Last
from d2_ros.tracks.graph import Edges, no_edges
from d2_ros.tracks.keyframe import Keyframe, cut_patches
from d2_ros.tracks.observations import Observations
from d2_ros.tracks.view import View

_NONE: NDArray[np.int64] = np.empty(0, np.int64)


class Window:
    """Keyframes, tracks and the last frame.

    Attributes
    ----------
    keyframes
        Oldest first.
    last
        The frame before, None where there is none.
    """

    def __init__(self) -> None:
        self._next_track = 1
        self.reset()

    def reset(self) -> None:
        """Forget everything; track ids go on, for none is ever used twice."""
        self.keyframes: tuple[Keyframe, ...] = ()
        self.last: Last | None = None
        # Live tracks, ascending, and in how many frames each was observed.
        self._live, self._lengths = _NONE, _NONE
        # Tracks of the last two frames: one too uncertain in a frame may be sure in the next.
        self._observed: deque[NDArray[np.int64]] = deque(maxlen=2)

    @property
    def recent(self) -> NDArray[np.int64]:
        """Tracks that the last two frames or the newest keyframe have seen."""
        newest = [keyframe.obs.tracks for keyframe in self.keyframes[-1:]]
        return np.concatenate([_NONE, *self._observed, *newest])

    def enter(self, view: View, obs: Observations, settings: AlignmentConfig, size: int) -> None:
        """Take a frame in as the newest keyframe, of `size` that stay, without edges yet.

        A track is opened at every keypoint that has none and can be aligned at all.
        """
        patches = cut_patches(view, obs.pixels, settings.patch_radius)
        textured = predicted_sigma(patches.levels[0]) <= settings.max_sigma
        fresh = np.flatnonzero((obs.tracks == 0) & textured)
        tracks, affine, drift = obs.tracks.copy(), obs.affine.copy(), obs.drift.copy()
        tracks[fresh] = self._next_track + np.arange(len(fresh))
        affine[fresh], drift[fresh] = np.eye(2), 0.0
        self._next_track += len(fresh)
        obs = replace(obs, tracks=tracks, affine=affine, drift=drift)
        keyframe = Keyframe(view, obs, patches, no_edges())
        self.keyframes = (*self.keyframes, keyframe)[-size:]

    def connect(self, stamp: int, edges: Edges) -> None:
        """Give a keyframe all its edges, if it is still there."""
        self.keyframes = tuple(
            replace(keyframe, edges=edges) if keyframe.stamp == stamp else keyframe
            for keyframe in self.keyframes
        )

    def move(self, keyframes: Sequence[Keyframe]) -> None:
        """Put the keyframes' observations where a solution has moved them."""
        self.keyframes = tuple(keyframes)

    def observe(self, view: View, obs: Observations) -> NDArray[np.int64]:
        """Remember a frame; the frames in which the track of each row was observed, ``(N,)``."""
        self.last = Last(view, obs.select(np.flatnonzero(obs.tracks > 0)))
        self._observed.append(self.last.obs.tracks)
        tracks = (keyframe.obs.tracks for keyframe in self.keyframes)
        live = np.unique(np.concatenate([_NONE, *tracks]))
        lengths = _at(live, self._live, self._lengths) + np.isin(live, self.last.obs.tracks)
        self._live, self._lengths = live[live > 0], lengths[live > 0]
        return _at(obs.tracks, self._live, self._lengths)


def _at(
    tracks: NDArray[np.int64], known: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The lengths of tracks, 0 of those that are not `known` (ascending)."""
    if len(known) == 0:
        return np.zeros(len(tracks), np.int64)
    place = np.searchsorted(known, tracks).clip(max=len(known) - 1)
    return np.where(known[place] == tracks, lengths[place], 0)
