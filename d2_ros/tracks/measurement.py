"""Measuring the links of a frame: T_ij of every keypoint with the keyframes of its track."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.config import AlignmentConfig
from d2_ros.matching.agreement import with_disagreement
from d2_ros.matching.alignment import accept, align, way_back
from d2_ros.matching.motion import predict
from d2_ros.matching.neighbours import Matches
from d2_ros.matching.patches import cut_plain
from d2_ros.matching.pyramid import Pyramid
from d2_ros.matching.warps import Alignment, Warps, join_alignments, replaced
from d2_ros.tracks.ends import Ends, pyramid_of
from d2_ros.tracks.graph import Edges, join, no_edges
from d2_ros.tracks.links import Pairs
from d2_ros.tracks.window import Keyframe

Rows = NDArray[np.int64]

_GREY_FAILS = 0.4  # share of a pair's alignments; where fewer are accepted, early maps are tried
_CLEARLY_MORE = 1.5  # times as many accepted: grey values are more exact where they do align
_ENOUGH = 10  # links of a pair, to judge it by
_LARGE_PART = 0.25  # of a frame's links: the few of an old keyframe are the hard ones anyway
_MIN_CORRELATION = 0.7  # of early maps, which disagree a little even where the place is right


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
    followed: bool = False,
) -> Measured:
    """Align a frame's keypoints with the newest and the oldest keyframe of their tracks.

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
    followed
        Keypoints lie within a pixel or two of their places, and `frame.affine` is that of the
        frame before: one start and full resolution will do, and grey values agree or the
        network has to look.
    """
    count = len(frame.detected)
    place, affine = np.full((count, 2), np.nan), np.tile(np.eye(2), (count, 1, 1))
    tried = np.zeros(len(links), bool)
    if len(links) == 0:
        return Measured(place, affine, tried, np.empty(0, np.int64), no_edges())
    ends = Ends.of(links, window)
    results = []
    newest, oldest = _newest_and_oldest(links.index)
    # That links which have failed once fail again says nothing of the pair's grey values.
    retry = replace(config, mode="gray") if config.mode == "auto" else config
    for first, settings in ((newest, retry if followed else config), (oldest, retry)):
        rows = first[np.isnan(place[links.index[first], 0]) & ~tried[first]]
        if len(rows) == 0:
            break
        if followed:
            known = Measured(frame.detected, frame.affine, tried, np.empty(0, np.int64), no_edges())
            starts, levels = [_start(known, ends, rows, links.index[rows])], 1
        else:
            guess = _guess(links, ends, rows, frame, window, pairs)
            starts = [Warps(frame.detected[links.index[rows]], guess.affine), guess]
            levels = settings.levels
        found, good, early = _align(links, ends, rows, frame, starts, levels, settings)
        tried[rows] = True
        results.append((rows[good], found.select(good), early[good]))
        owner, warps = links.index[rows[good]], found.warps.select(good)
        place[owner] = _carry(warps, ends.pixels[rows[good]] - ends.anchors[rows[good]])
        affine[owner] = warps.affine @ ends.affine[rows[good]]
    known = Measured(place, affine, tried, np.empty(0, np.int64), no_edges())
    rows = np.concatenate([newest, oldest])
    return _measure(links, frame, window, known, ends, rows, results, config)


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
    rest = _measure(links, frame, window, measured, Ends.of(links, window), rows, [], config)
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
    ends: Ends,
    rows: Rows,
    results: list[tuple[Rows, Alignment, NDArray[np.bool_]]],
    config: AlignmentConfig,
) -> Measured:
    """Measure the links among `rows` that have not been tried, from where they must lie."""
    rows = np.unique(rows)
    rows = rows[~np.isnan(known.place[links.index[rows], 0]) & ~known.tried[rows]]
    tried = known.tried.copy()
    tried[rows] = True
    if len(rows):
        start = _start(known, ends, rows, links.index[rows])
        found, good, early = _align(links, ends, rows, frame, [start], 1, config)
        results = [*results, (rows[good], found.select(good), early[good])]
    if not results:
        return Measured(known.place, known.affine, tried, np.empty(0, np.int64), no_edges())
    found = join_alignments([found for _, found, _ in results])
    rows = np.concatenate([part for part, _, _ in results])
    early = np.concatenate([part for _, _, part in results])
    back = np.full(len(rows), np.inf)
    for part in (np.flatnonzero(~early), np.flatnonzero(early)):
        if len(part):
            back[part] = _way_back(
                links, ends, rows[part], found.warps.select(part), frame, known.place,
                bool(early[part[0]]), config,
            )  # fmt: skip
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


def _start(known: Measured, ends: Ends, rows: Rows, owner: Rows) -> Warps:
    """Where links `rows` must lie, by what is known of their keypoints."""
    shear = known.affine[owner] @ np.linalg.inv(ends.affine[rows])
    start = Warps(known.place[owner], shear)
    return Warps(_carry(start, ends.anchors[rows] - ends.pixels[rows]), shear)


def _align(
    links: Matches,
    ends: Ends,
    rows: Rows,
    frame: Keyframe,
    starts: Sequence[Warps],
    levels: int,
    config: AlignmentConfig,
) -> tuple[Alignment, NDArray[np.bool_], NDArray[np.bool_]]:
    """Align links by grey values or, where those disagree, by early maps.

    A pair of images whose grey values disagree is one where grey values align few links and
    early maps clearly more. Few alone says little: so it is with wrong matches and with
    viewpoints too far apart, and there early maps fail as well or are less exact.

    Returns
    -------
    found
        The alignments.
    good
        ``(M,)`` bool: they pass every gate but the way back.
    early
        ``(M,)`` bool: they are of early maps.
    """
    origin = frame.detected[links.index[rows]]
    if config.mode == "features":
        found, good = _align_early(ends, rows, frame, starts, origin, levels, config)
        return found, good, np.ones(len(rows), bool)
    found = align(ends.patches(rows, levels), frame.pyramid, starts, config)
    good = accept(found, origin, config)
    found = _doubted(found, good, ends, rows, frame.pyramid, config)
    early = np.zeros(len(rows), bool)
    if config.mode == "auto" and frame.early is not None:
        pair = links.keyframe[rows]
        tried, aligned = np.bincount(pair), np.bincount(pair, good)
        enough = max(_ENOUGH, _LARGE_PART * len(rows))
        failed = (tried >= enough) & (aligned < _GREY_FAILS * tried)
        again = np.flatnonzero(failed[pair])
        if len(again):
            chosen = [start.select(again) for start in starts]
            other, better = _align_early(
                ends, rows[again], frame, chosen, origin[again], levels, config
            )
            won = np.bincount(pair[again], better, len(tried)) > _CLEARLY_MORE * aligned
            better &= won[pair[again]]
            again, other = again[better], other.select(better)
            early[again] = True
            found, good = replaced(found, again, other), good | early
    return found, good, early


def _doubted(
    found: Alignment,
    good: NDArray[np.bool_],
    ends: Ends,
    rows: Rows,
    target: Pyramid,
    config: AlignmentConfig,
) -> Alignment:
    """Alignments of grey values, of which the `good` ones have been held against narrow patches."""
    chosen = np.flatnonzero(good)
    if len(chosen) == 0:
        return found
    patches = ends.narrow_patches(rows[chosen])
    return replaced(found, chosen, with_disagreement(found.select(chosen), patches, target, config))


def _align_early(
    ends: Ends,
    rows: Rows,
    frame: Keyframe,
    starts: Sequence[Warps],
    origin: NDArray[np.float64],
    levels: int,
    config: AlignmentConfig,
) -> tuple[Alignment, NDArray[np.bool_]]:
    target = pyramid_of(frame, True)
    found = align(ends.early_patches(rows, levels, config.patch_radius), target, starts, config)
    limit = min(config.min_correlation, _MIN_CORRELATION)
    return found, accept(found, origin, replace(config, min_correlation=limit))


def _carry(warps: Warps, offset: NDArray[np.float64]) -> NDArray[np.float64]:
    return warps.pixels + np.einsum("mij,mj->mi", warps.affine, offset)


def _turned(covariance: NDArray[np.float64], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    return affine @ covariance @ affine.transpose(0, 2, 1)


def _newest_and_oldest(index: Rows) -> tuple[Rows, Rows]:
    """Links of every keypoint, ascending; links are ordered by keyframe."""
    order = np.argsort(index, kind="stable")
    begin = np.flatnonzero(np.diff(index[order], prepend=-1))
    end = np.append(begin[1:], len(index)) - 1
    return np.sort(order[end]), np.sort(order[begin])


def _guess(
    links: Matches,
    ends: Ends,
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
    ends: Ends,
    rows: Rows,
    found: Warps,
    frame: Keyframe,
    place: NDArray[np.float64],
    early: bool,
    config: AlignmentConfig,
) -> NDArray[np.float64]:
    """How far from its patch's centre each link `rows` ends on the way back, px."""
    owner, patch = np.unique(links.index[rows], return_inverse=True)
    patches = cut_plain(pyramid_of(frame, early)[0], place[owner], config.patch_radius)
    back = np.full(len(rows), np.inf)
    for number, keyframe in enumerate(ends.window):
        here = np.flatnonzero(links.keyframe[rows] == number)
        if len(here):
            back[here] = way_back(
                patches.select(torch.from_numpy(patch[here]).to(patches.values.device)),
                place[owner[patch[here]]],
                found.select(here),
                pyramid_of(keyframe, early),
                ends.anchors[rows[here]],
                config,
            )
    return back
