"""Measuring the links of a frame: T_ij of every keypoint with the keyframes of its track."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from d2_ros.config import AlignmentConfig
from d2_ros.matching.alignment import accept, align, forward_backward
from d2_ros.matching.cutting import cut_plain
from d2_ros.matching.early import as_accepted
from d2_ros.matching.motion import predict
from d2_ros.matching.multiscale import with_disagreement
from d2_ros.matching.neighbours import Matches
from d2_ros.matching.pyramid import Pyramid
from d2_ros.matching.warps import Alignment, Warps, join_alignments, replaced
from d2_ros.tracks.graph import Edges, join, no_edges
from d2_ros.tracks.keyframe import Keyframe
from d2_ros.tracks.seen import Seen
from d2_ros.tracks.templates import LinkTemplates
from d2_ros.tracks.view import View

Rows = NDArray[np.int64]

_GREY_FAILS = 0.4  # share of a pair's alignments; where fewer are accepted, early maps are tried
_CLEARLY_MORE = 1.5  # times as many accepted: gray values are more exact where they do align
_ENOUGH = 10  # links of a pair, to judge it by
_LARGE_PART = 0.25  # of a frame's links: the few of an old keyframe are the hard ones anyway


@dataclass(frozen=True)
class Measured:
    """What the alignments of a frame say.

    Attributes
    ----------
    place
        ``(N, 2)`` where a first alignment has put each keypoint, px; NaN where none has.
    affine
        ``(N, 2, 2)`` of the keypoints, as in :class:`~d2_ros.tracks.observations.Observations`.
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
    seen: Seen, links: Matches, window: Sequence[Keyframe], config: AlignmentConfig
) -> Measured:
    """Align a frame's keypoints with the newest and the oldest keyframe of their tracks.

    Every keypoint is first aligned with the newest, from the detected place and from the one
    that the verified matches around it predict, whichever looks more alike; where that fails,
    with the oldest. That tells where its other keyframes' patches lie, to within a fraction of
    a pixel, and a few iterations at full resolution measure them.

    Where keypoints were followed to the view, they lie within a pixel or two of their places, and
    their affine parts are those of a view shortly before: one start, full resolution and the newest
    keyframe will do, there but not back, and gray values agree or the network has to look.

    Parameters
    ----------
    seen
        The keypoints where they were seen.
    links
        Their links of one track each, ordered by keyframe.
    window
        Keyframes, oldest first.
    """
    obs, count = seen.obs, len(seen.obs)
    place, affine = np.full((count, 2), np.nan), np.tile(np.eye(2), (count, 1, 1))
    tried = np.zeros(len(links), bool)
    if len(links) == 0:
        return Measured(place, affine, tried, np.empty(0, np.int64), no_edges())
    templates = LinkTemplates.of(links, window)
    results = []
    newest, oldest = _newest_and_oldest(links.index)
    # That links which have failed once fail again says nothing of the pair's gray values.
    retry = replace(config, mode="gray") if config.mode == "auto" else config
    for first, settings in ((newest, retry if seen.located else config), (oldest, retry)):
        rows = first[np.isnan(place[links.index[first], 0]) & ~tried[first]]
        if len(rows) == 0:
            break
        owner = links.index[rows]
        if seen.located:
            starts, levels = [_start(obs.detected[owner], obs.affine[owner], templates, rows)], 1
        else:
            guess = _guess(seen, links, templates, rows, window)
            starts = [Warps(obs.detected[owner], guess.affine), guess]
            levels = settings.levels
        found, good, early = _align(seen, links, templates, rows, starts, levels, settings)
        tried[rows] = True
        results.append((rows[good], found.select(good), early[good]))
        owner, warps = owner[good], found.warps.select(good)
        place[owner] = _carry(warps, templates.pixels[rows[good]] - templates.anchors[rows[good]])
        affine[owner] = warps.affine @ templates.affine[rows[good]]
    known = Measured(place, affine, tried, np.empty(0, np.int64), no_edges())
    # The newest link places a keypoint nearly as well as both: the oldest ones matter to the
    # window's solution, and cost as much again.
    rows = newest if seen.located else np.concatenate([newest, oldest])
    back = not seen.located
    return _measure(seen, links, window, known, templates, rows, results, config, back=back)


def measure_remaining(
    seen: Seen,
    links: Matches,
    window: Sequence[Keyframe],
    measured: Measured,
    config: AlignmentConfig,
) -> Measured:
    """Measure the links that :func:`measure_links` has left out; all edges, old and new.

    `seen` may have lost tracks meanwhile: their links are not measured.
    """
    rows = np.flatnonzero(~measured.tried & (seen.obs.tracks[links.index] > 0))
    if len(rows) == 0:
        return measured
    templates = LinkTemplates.of(links, window)
    rest = _measure(seen, links, window, measured, templates, rows, [], config, back=True)
    return Measured(
        measured.place,
        measured.affine,
        rest.tried,
        np.concatenate([measured.link, rest.link]),
        join([measured.edges, rest.edges]),
    )


def _measure(
    seen: Seen,
    links: Matches,
    window: Sequence[Keyframe],
    known: Measured,
    templates: LinkTemplates,
    rows: Rows,
    results: list[tuple[Rows, Alignment, NDArray[np.bool_]]],
    config: AlignmentConfig,
    *,
    back: bool,
) -> Measured:
    """Measure the links among `rows` that have not been tried, from where they must lie.

    Of what is found, that is kept which leads `back` to where it came from, if that is asked. It
    tells wrong matches; a keypoint that was followed has passed it before, and a quarter of the
    time of placing it would go to passing it again.
    """
    rows = np.unique(rows)
    rows = rows[~np.isnan(known.place[links.index[rows], 0]) & ~known.tried[rows]]
    tried = known.tried.copy()
    tried[rows] = True
    if len(rows):
        owner = links.index[rows]
        start = _start(known.place[owner], known.affine[owner], templates, rows)
        found, good, early = _align(seen, links, templates, rows, [start], 1, config)
        results = [*results, (rows[good], found.select(good), early[good])]
    if not results:
        return Measured(known.place, known.affine, tried, np.empty(0, np.int64), no_edges())
    found = join_alignments([found for _, found, _ in results])
    rows = np.concatenate([part for part, _, _ in results])
    early = np.concatenate([part for _, _, part in results])
    error = np.full(len(rows), np.inf if back else 0.0)
    for part in (np.flatnonzero(~early), np.flatnonzero(early)):
        if back and len(part):
            warps, maps = found.warps.select(part), bool(early[part[0]])
            error[part] = _back_errors(
                seen, links, templates, rows[part], warps, known.place, maps, config
            )
    kept = np.flatnonzero(error <= config.max_forward_backward)
    kept = kept[np.argsort(rows[kept])]
    rows, warps = rows[kept], found.warps.select(kept)
    stamps = np.array([keyframe.stamp for keyframe in window])
    edges = Edges(
        track=seen.obs.tracks[links.index[rows]],
        stamp_from=stamps[links.keyframe[rows]],
        stamp_to=np.full(len(rows), seen.view.stamp, np.int64),
        centre=templates.pixels[rows],
        pixels=_carry(warps, templates.pixels[rows] - templates.anchors[rows]),
        affine=warps.affine,
        covariance=found.covariance[kept] + _turned(templates.drift[rows], warps.affine),
    )
    return Measured(known.place, known.affine, tried, rows, edges)


def _start(
    places: NDArray[np.float64], affine: NDArray[np.float64], templates: LinkTemplates, rows: Rows
) -> Warps:
    """Where links `rows` must lie, by the places and affine parts of their keypoints."""
    shear = affine @ np.linalg.inv(templates.affine[rows])
    start = Warps(places, shear)
    return Warps(_carry(start, templates.anchors[rows] - templates.pixels[rows]), shear)


def _align(
    seen: Seen,
    links: Matches,
    templates: LinkTemplates,
    rows: Rows,
    starts: Sequence[Warps],
    levels: int,
    config: AlignmentConfig,
) -> tuple[Alignment, NDArray[np.bool_], NDArray[np.bool_]]:
    """Align links by gray values or, where those disagree, by early maps.

    A pair of images whose gray values disagree is one where gray values align few links and
    early maps clearly more. Few alone says little: so it is with wrong matches and with
    viewpoints too far apart, and there early maps fail as well or are less exact.

    Returns
    -------
    found
        The alignments.
    good
        ``(M,)`` bool: they pass every gate but the forward-backward one.
    early
        ``(M,)`` bool: they are of early maps.
    """
    view = seen.view
    origin = seen.obs.detected[links.index[rows]]
    if config.mode == "features":
        found, good = _align_early(view, templates, rows, starts, origin, levels, config)
        return found, good, np.ones(len(rows), bool)
    found = align(templates.patches(rows, levels), view.pyramid, starts, config)
    good = accept(found, origin, config)
    found = _held_against_small(found, good, templates, rows, view.pyramid, config)
    early = np.zeros(len(rows), bool)
    if config.mode == "auto" and view.early is not None:
        pair = links.keyframe[rows]
        tried, aligned = np.bincount(pair), np.bincount(pair, good)
        enough = max(_ENOUGH, _LARGE_PART * len(rows))
        failed = (tried >= enough) & (aligned < _GREY_FAILS * tried)
        again = np.flatnonzero(failed[pair])
        if len(again):
            chosen = [start.select(again) for start in starts]
            other, better = _align_early(
                view, templates, rows[again], chosen, origin[again], levels, config
            )
            won = np.bincount(pair[again], better, len(tried)) > _CLEARLY_MORE * aligned
            better &= won[pair[again]]
            again, other = again[better], other.select(better)
            early[again] = True
            found, good = replaced(found, again, other), good | early
    return found, good, early


def _held_against_small(
    found: Alignment,
    good: NDArray[np.bool_],
    templates: LinkTemplates,
    rows: Rows,
    target: Pyramid,
    config: AlignmentConfig,
) -> Alignment:
    """Alignments of gray values, of which the `good` ones have been held against small patches."""
    chosen = np.flatnonzero(good)
    if len(chosen) == 0:
        return found
    patches = templates.small(rows[chosen])
    return replaced(found, chosen, with_disagreement(found.select(chosen), patches, target, config))


def _align_early(
    view: View,
    templates: LinkTemplates,
    rows: Rows,
    starts: Sequence[Warps],
    origin: NDArray[np.float64],
    levels: int,
    config: AlignmentConfig,
) -> tuple[Alignment, NDArray[np.bool_]]:
    target = view.pyramid_of(True)
    found = align(
        templates.early_patches(rows, levels, config.patch_radius), target, starts, config
    )
    return found, accept(found, origin, as_accepted(config))


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
    seen: Seen, links: Matches, templates: LinkTemplates, rows: Rows, window: Sequence[Keyframe]
) -> Warps:
    """Where the matches around each link predict its patch, and the local affine motion."""
    detected = seen.obs.detected
    affine = np.tile(np.eye(2), (len(rows), 1, 1))
    pixels = detected[links.index[rows]].copy()
    for number, (keyframe, (ours, theirs)) in enumerate(zip(window, seen.pairs, strict=True)):
        here = links.keyframe[rows] == number
        warps = predict(templates.anchors[rows[here]], keyframe.obs.pixels[theirs], detected[ours])
        if warps is not None:
            pixels[here], affine[here] = warps.pixels, warps.affine
    return Warps(pixels, affine)


def _back_errors(
    seen: Seen,
    links: Matches,
    templates: LinkTemplates,
    rows: Rows,
    found: Warps,
    place: NDArray[np.float64],
    early: bool,
    config: AlignmentConfig,
) -> NDArray[np.float64]:
    """Forward-backward error of each link `rows`, px."""
    owner, patch = np.unique(links.index[rows], return_inverse=True)
    patches = cut_plain(seen.view.pyramid_of(early)[0], place[owner], config.patch_radius)
    numbers, target = np.unique(links.keyframe[rows], return_inverse=True)
    targets = [templates.window[number].view.pyramid_of(early) for number in numbers]
    origin, centres = templates.anchors[rows], place[owner[patch]]
    return forward_backward(patches, patch, centres, found, targets, target, origin, config)
