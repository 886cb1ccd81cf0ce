"""Measuring the links of a frame: T_ij of every keypoint with the keyframes of its track."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.config import AlignmentConfig
from d2_ros.matching.alignment import Alignment, Warps, accept, align, join_alignments, way_back
from d2_ros.matching.motion import predict
from d2_ros.matching.neighbours import Matches
from d2_ros.matching.patches import Patches, cut, gather
from d2_ros.tracks.graph import Edges, join, no_edges
from d2_ros.tracks.links import Pairs
from d2_ros.tracks.window import Keyframe

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Measured:
    """What the alignments of a frame say.

    Attributes
    ----------
    place
        ``(N, 2)`` where a first alignment has put each keypoint, px; NaN where none has.
    affine
        ``(N, 2, 2)`` of the keypoints, as in :class:`~d2_ros.tracks.window.Keyframe`.
    tried
        ``(L,)`` bool: links that have been measured, with whatever result.
    link
        ``(E,)`` the link of each edge.
    edges
        The accepted measurements.
    """

    place: NDArray[np.float64]
    affine: NDArray[np.float64]
    tried: NDArray[np.bool_]
    link: Rows
    edges: Edges


def measure_links(
    links: Matches,
    frame: Keyframe,
    window: Sequence[Keyframe],
    pairs: Sequence[Pairs],
    config: AlignmentConfig,
) -> Measured:
    """Align a frame's keypoints with the newest, the oldest and a middle keyframe of their tracks.

    Every keypoint is first aligned with the newest, from the detected place and from the one
    that the verified matches around it predict, whichever looks more alike; where that fails,
    with the oldest. That tells where its other keyframes' patches lie, to within a fraction of
    a pixel, and a few iterations at full resolution measure them.

    Parameters
    ----------
    links
        Links of one track each, ordered by keyframe.
    frame
        With its keypoints where they were detected.
    window, pairs
        Keyframes, and the frame's verified matches with each.
    """
    count = len(frame.detected)
    place, affine = np.full((count, 2), np.nan), np.tile(np.eye(2), (count, 1, 1))
    tried = np.zeros(len(links), bool)
    if len(links) == 0:
        return Measured(place, affine, tried, np.empty(0, np.int64), no_edges())
    ends = _Ends.of(links, window)
    results = []
    chosen = _newest_middle_oldest(links.index)
    for first in (chosen[0], chosen[2]):
        rows = first[np.isnan(place[links.index[first], 0]) & ~tried[first]]
        if len(rows) == 0:
            break
        guess = _guess(links, ends, rows, frame, window, pairs)
        detected = Warps(frame.detected[links.index[rows]], guess.affine)
        found = align(ends.patches(rows), frame.pyramid, [detected, guess], config)
        good = accept(found, detected.pixels, config)
        tried[rows] = True
        results.append((rows[good], found.select(good)))
        owner, warps = links.index[rows[good]], found.warps.select(good)
        place[owner] = _carry(warps, ends.pixels[rows[good]] - ends.anchors[rows[good]])
        affine[owner] = warps.affine @ ends.affine[rows[good]]
    known = Measured(place, affine, tried, np.empty(0, np.int64), no_edges())
    return _measure(links, frame, window, known, ends, np.concatenate(chosen), results, config)


def measure_remaining(
    links: Matches,
    frame: Keyframe,
    window: Sequence[Keyframe],
    measured: Measured,
    config: AlignmentConfig,
) -> Measured:
    """Measure the links that :func:`measure_links` has left out; all edges, old and new.

    `frame` may have lost tracks meanwhile: their links are not measured.
    """
    rows = np.flatnonzero(~measured.tried & (frame.tracks[links.index] > 0))
    if len(rows) == 0:
        return measured
    rest = _measure(links, frame, window, measured, _Ends.of(links, window), rows, [], config)
    return Measured(
        measured.place,
        measured.affine,
        rest.tried,
        np.concatenate([measured.link, rest.link]),
        join([measured.edges, rest.edges]),
    )


def _measure(
    links: Matches,
    frame: Keyframe,
    window: Sequence[Keyframe],
    known: Measured,
    ends: _Ends,
    rows: Rows,
    results: list[tuple[Rows, Alignment]],
    config: AlignmentConfig,
) -> Measured:
    """Measure the links among `rows` that have not been tried, from where they must lie."""
    rows = np.unique(rows)
    rows = rows[~np.isnan(known.place[links.index[rows], 0]) & ~known.tried[rows]]
    tried = known.tried.copy()
    tried[rows] = True
    if len(rows):
        owner = links.index[rows]
        shear = known.affine[owner] @ np.linalg.inv(ends.affine[rows])
        start = Warps(known.place[owner], shear)
        start = Warps(_carry(start, ends.anchors[rows] - ends.pixels[rows]), shear)
        found = align(ends.patches(rows)[:1], frame.pyramid, [start], config)
        good = accept(found, frame.detected[owner], config)
        results = [*results, (rows[good], found.select(good))]
    if not results:
        return Measured(known.place, known.affine, tried, np.empty(0, np.int64), no_edges())
    found = join_alignments([found for _, found in results])
    rows = np.concatenate([part for part, _ in results])
    back = _way_back(links, ends, rows, found.warps, frame, window, known.place, config)
    kept = np.flatnonzero(back <= config.max_forward_backward)
    kept = kept[np.argsort(rows[kept])]
    rows, warps = rows[kept], found.warps.select(kept)
    stamps = np.array([keyframe.stamp for keyframe in window])
    edges = Edges(
        track=frame.tracks[links.index[rows]],
        stamp_from=stamps[links.keyframe[rows]],
        stamp_to=np.full(len(rows), frame.stamp, np.int64),
        centre=ends.pixels[rows],
        pixels=_carry(warps, ends.pixels[rows] - ends.anchors[rows]),
        affine=warps.affine,
        covariance=found.covariance[kept] + _turned(ends.drift[rows], warps.affine),
    )
    return Measured(known.place, known.affine, tried, rows, edges)


@dataclass(frozen=True)
class _Ends:
    """The keyframes' ends of L links."""

    pixels: NDArray[np.float64]  # (L, 2) the track's place in the keyframe
    anchors: NDArray[np.float64]  # (L, 2) where the keyframe's patch was cut
    affine: NDArray[np.float64]  # (L, 2, 2) first patch of the track -> keyframe
    drift: NDArray[np.float64]  # (L, 2, 2) covariance of `pixels`
    keyframe: Rows  # (L,) ascending
    keyframe_index: Rows  # (L,)
    window: Sequence[Keyframe]

    @classmethod
    def of(cls, links: Matches, window: Sequence[Keyframe]) -> _Ends:
        pairs = [
            (keyframe, links.keyframe_index[links.keyframe == number])
            for number, keyframe in enumerate(window)
        ]
        return cls(
            np.concatenate([keyframe.pixels[rows] for keyframe, rows in pairs]),
            np.concatenate([keyframe.anchors[rows] for keyframe, rows in pairs]),
            np.concatenate([keyframe.affine[rows] for keyframe, rows in pairs]),
            np.concatenate([keyframe.drift[rows] for keyframe, rows in pairs]),
            links.keyframe,
            links.keyframe_index,
            window,
        )

    def patches(self, rows: Rows) -> list[Patches]:
        """The patches of links `rows` (ascending), level by level."""
        chosen = [
            (keyframe, self.keyframe_index[rows[self.keyframe[rows] == number]])
            for number, keyframe in enumerate(self.window)
        ]
        levels = min(len(keyframe.patches) for keyframe in self.window)
        return [
            gather([(keyframe.patches[level], torch.from_numpy(part)) for keyframe, part in chosen])
            for level in range(levels)
        ]


def _carry(warps: Warps, offset: NDArray[np.float64]) -> NDArray[np.float64]:
    return warps.pixels + np.einsum("mij,mj->mi", warps.affine, offset)


def _turned(covariance: NDArray[np.float64], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    return affine @ covariance @ affine.transpose(0, 2, 1)


def _newest_middle_oldest(index: Rows) -> tuple[Rows, Rows, Rows]:
    """Links of every keypoint, ascending; links are ordered by keyframe."""
    order = np.argsort(index, kind="stable")
    begin = np.flatnonzero(np.diff(index[order], prepend=-1))
    end = np.append(begin[1:], len(index)) - 1
    newest, middle, oldest = (order[place] for place in (end, (begin + end) // 2, begin))
    return np.sort(newest), np.sort(middle), np.sort(oldest)


def _guess(
    links: Matches,
    ends: _Ends,
    rows: Rows,
    frame: Keyframe,
    window: Sequence[Keyframe],
    pairs: Sequence[Pairs],
) -> Warps:
    """Where the matches around each link predict its patch, and the local affine motion."""
    affine = np.tile(np.eye(2), (len(rows), 1, 1))
    pixels = frame.detected[links.index[rows]].copy()
    for number, (keyframe, (ours, theirs)) in enumerate(zip(window, pairs, strict=True)):
        here = links.keyframe[rows] == number
        warps = predict(ends.anchors[rows[here]], keyframe.pixels[theirs], frame.detected[ours])
        if warps is not None:
            pixels[here], affine[here] = warps.pixels, warps.affine
    return Warps(pixels, affine)


def _way_back(
    links: Matches,
    ends: _Ends,
    rows: Rows,
    found: Warps,
    frame: Keyframe,
    window: Sequence[Keyframe],
    place: NDArray[np.float64],
    config: AlignmentConfig,
) -> NDArray[np.float64]:
    """How far from its patch's centre each link `rows` ends on the way back, px."""
    owner, patch = np.unique(links.index[rows], return_inverse=True)
    patches = cut(frame.pyramid[:1], place[owner], config.patch_radius)[0]
    back = np.full(len(rows), np.inf)
    for number, keyframe in enumerate(window):
        here = np.flatnonzero(links.keyframe[rows] == number)
        if len(here):
            back[here] = way_back(
                patches.select(torch.from_numpy(patch[here]).to(patches.values.device)),
                place[owner[patch[here]]],
                found.select(here),
                keyframe.pyramid,
                ends.anchors[rows[here]],
                config,
            )
    return back
