"""All links of a frame with the window: mutual nearest neighbours and those its tracks imply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.matching.neighbours import Matches
from d2_ros.tracks.window import Keyframe


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
        index = self.matches.index
        kept = (self.mutual | (tracks[index] > 0)) & np.isin(index, rows)
        matches = self.matches.select(kept)
        matches = replace(matches, index=np.searchsorted(rows, matches.index))
        return Links(matches, self.tracked[kept], self.mutual[kept]), inlier[kept]


def link_tracks(
    matches: Matches,
    tracks: NDArray[np.int64],
    descriptors: torch.Tensor,
    window: Sequence[Keyframe],
) -> Links:
    """Join tentative matches and track memberships into one list of links.

    A track joins its keypoint to every keyframe that has observed it. A tentative match of
    either end of such a link with something else contradicts the track and is cut.
    """
    parts: list[tuple[NDArray[Any], ...]] = []
    for number, keyframe in enumerate(window):
        row_of = keyframe.rows_of(tracks)
        index = np.flatnonzero(row_of >= 0)
        rows = row_of[index]
        here = np.flatnonzero(matches.keyframe == number)
        nearest = np.full(len(tracks), -1)
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
    similarity = _similarity(descriptors, window, index, keyframe_of, rows)
    return Links(Matches(index, keyframe_of, rows, similarity), tracked, mutual)


def _similarity(
    descriptors: torch.Tensor,
    window: Sequence[Keyframe],
    index: NDArray[np.int64],
    keyframe_of: NDArray[np.int64],
    keyframe_index: NDArray[np.int64],
) -> NDArray[np.float32]:
    base = np.cumsum([0, *(len(keyframe.tracks) for keyframe in window)])
    theirs = torch.cat([keyframe.descriptors for keyframe in window])
    rows = torch.from_numpy(base[keyframe_of] + keyframe_index).to(theirs.device)
    ours = torch.from_numpy(index).to(theirs.device)
    return (descriptors[ours] * theirs[rows]).sum(1).float().cpu().numpy()
