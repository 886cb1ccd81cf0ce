"""A frame's matches, tracks and links: mutual nearest neighbours and what its tracks imply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.features.device import to_device
from d2_ros.matching.neighbours import Matches
from d2_ros.tracks.graph import assign_tracks
from d2_ros.tracks.keyframe import Keyframe
from d2_ros.tracks.observations import Observations
from d2_ros.tracks.seen import Pairs


@dataclass(frozen=True)
class Links:
    """Links of a frame's keypoints with keyframes, at most one per keypoint and keyframe.

    Attributes
    ----------
    matches
        The links, ordered by keyframe.
    tracked
        ``(L,)`` bool: both ends belong to one track.
    mutual
        ``(L,)`` bool: the ends are mutual nearest neighbours.
    """

    matches: Matches
    tracked: NDArray[np.bool_]
    mutual: NDArray[np.bool_]

    def select(self, rows: NDArray[np.bool_]) -> Links:
        """The links of `rows`."""
        return Links(self.matches.select(rows), self.tracked[rows], self.mutual[rows])

    def measured(self, tracks: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which links something else than a prediction supports, ``(L,)`` bool.

        Those of mutual nearest neighbours, and those of a track that its keypoint has kept. A
        predicted place agrees with the motion that predicted it: where no alignment has
        confirmed it, it is no evidence for that motion.

        Parameters
        ----------
        tracks
            ``(N,)`` tracks of the frame's keypoints after they have been measured, 0 for none.
        """
        return np.asarray(self.mutual | (tracks[self.matches.index] > 0))

    def restrict(
        self, rows: NDArray[np.int64], tracks: NDArray[np.int64], inlier: NDArray[np.bool_]
    ) -> tuple[Links, NDArray[np.bool_]]:
        """Links of the keypoints `rows`, renumbered, without those that only a lost track made.

        Parameters
        ----------
        rows
            Sorted rows of the frame that stay.
        tracks
            ``(N,)`` tracks of the frame before the restriction, 0 for none.
        inlier
            ``(L,)`` carried along.
        """
        kept = self.measured(tracks) & np.isin(self.matches.index, rows)
        links = self.select(kept)
        matches = replace(links.matches, index=np.searchsorted(rows, links.matches.index))
        return replace(links, matches=matches), inlier[kept]


def claim_tracks(
    matches: Matches, inlier: NDArray[np.bool_], window: Sequence[Keyframe], count: int
) -> NDArray[np.int64]:
    """Tracks ``(count,)`` of a frame's keypoints, 0 for none, as its verified matches say."""
    track = np.zeros(len(matches), np.int64)
    for number, keyframe in enumerate(window):
        rows = matches.keyframe == number
        track[rows] = keyframe.obs.tracks[matches.keyframe_index[rows]]
    return assign_tracks(
        matches.index[inlier],
        track[inlier],
        matches.similarity[inlier].astype(np.float64),
        count,
    )


def inlier_pairs(matches: Matches, inlier: NDArray[np.bool_], keyframes: int) -> list[Pairs]:
    """The verified matches, keyframe by keyframe."""
    picked = [inlier & (matches.keyframe == number) for number in range(keyframes)]
    return [(matches.index[rows], matches.keyframe_index[rows]) for rows in picked]


def without_outliers(obs: Observations, links: Links, inlier: NDArray[np.bool_]) -> Observations:
    """Cut the keypoints that most keyframes of their track contradict geometrically."""
    owner = links.matches.index[links.tracked]
    votes = np.bincount(owner, np.where(inlier[links.tracked], 1.0, -1.0), len(obs))
    return replace(obs, tracks=np.where(votes < 0, 0, obs.tracks))


def rows_to_keep(tracks: NDArray[np.int64], detections: int, limit: int) -> NDArray[np.int64]:
    """Rows of all tracks and, best first, of the detections that fit in beside them."""
    tracked = np.flatnonzero(tracks > 0)[:limit]
    others = np.flatnonzero(tracks[:detections] == 0)[: limit - len(tracked)]
    return np.sort(np.concatenate([tracked, others]))


def link_tracks(matches: Matches, obs: Observations, window: Sequence[Keyframe]) -> Links:
    """Join tentative matches and track memberships into one list of links.

    A track joins its keypoint to every keyframe that has observed it. A tentative match of
    either end of such a link with something else contradicts the track and is cut.
    """
    parts: list[tuple[NDArray[Any], ...]] = []
    for number, keyframe in enumerate(window):
        row_of = keyframe.obs.rows_of(obs.tracks)
        index = np.flatnonzero(row_of >= 0)
        rows = row_of[index]
        here = np.flatnonzero(matches.keyframe == number)
        nearest = np.full(len(obs), -1)
        nearest[matches.index[here]] = matches.keyframe_index[here]
        free = ~np.isin(matches.index[here], index)
        free &= ~np.isin(matches.keyframe_index[here], rows)
        others = here[free]
        index = np.concatenate([index, matches.index[others]])
        rows = np.concatenate([rows, matches.keyframe_index[others]])
        tracked = np.arange(len(index)) < len(index) - len(others)
        parts.append((index, np.full(len(index), number), rows, tracked, nearest[index] == rows))
    if not parts:
        return Links(matches, np.zeros(len(matches), bool), np.ones(len(matches), bool))
    index, keyframe_of, rows, tracked, mutual = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    similarity = _similarity(obs.descriptors, window, index, keyframe_of, rows)
    return Links(Matches(index, keyframe_of, rows, similarity), tracked, mutual)


def _similarity(
    descriptors: torch.Tensor,
    window: Sequence[Keyframe],
    index: NDArray[np.int64],
    keyframe_of: NDArray[np.int64],
    keyframe_index: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Of links that are ordered by keyframe."""
    ends = np.stack([index, keyframe_index], 1)
    sizes = np.bincount(keyframe_of, minlength=len(window)).tolist()
    parts = []
    for keyframe, rows in zip(
        window, to_device(ends, descriptors.device).split(sizes), strict=True
    ):
        ours, theirs = rows.unbind(1)
        parts.append((descriptors[ours] * keyframe.obs.descriptors[theirs]).sum(1))
    similarity: NDArray[np.float32] = torch.cat(parts).float().cpu().numpy()
    return similarity
