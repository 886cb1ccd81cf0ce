"""Measuring the links of a frame: T_ij of every keypoint with every keyframe of its track."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.config import AlignmentConfig
from d2_ros.matching.alignment import Alignment, Warps, accept, align, way_back
from d2_ros.matching.motion import predict
from d2_ros.matching.neighbours import Matches
from d2_ros.matching.patches import Patches, cut, gather
from d2_ros.tracks.graph import Edges, no_edges
from d2_ros.tracks.window import Keyframe

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Verified matches with one keyframe: rows of the frame, rows of the keyframe."""


@dataclass(frozen=True)
class Measured:
    """What the alignments say.

    Attributes
    ----------
    link
        ``(E,)`` the link of each edge.
    edges
        The accepted measurements.
    affine
        ``(N, 2, 2)`` of the frame's keypoints, as in :class:`~d2_ros.tracks.window.Keyframe`.
    """

    link: NDArray[np.int64]
    edges: Edges
    affine: NDArray[np.float64]


def measure_links(
    links: Matches,
    frame: Keyframe,
    window: Sequence[Keyframe],
    pairs: Sequence[Pairs],
    config: AlignmentConfig,
) -> Measured:
    """Align the patches of tracked links.

    Every keypoint is first aligned with the newest keyframe of its track, from the detected
    place and from the one that the verified matches around it predict, whichever looks more
    alike; where that fails, with the oldest. That tells where its other keyframes' patches
    lie, to within a fraction of a pixel, and a few iterations at full resolution measure them.

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
    affine = np.tile(np.eye(2), (count, 1, 1))
    if len(links) == 0:
        return Measured(np.empty(0, np.int64), no_edges(), affine)
    setup = _Setup.of(links, frame, window, config)
    guesses = _guesses(links, setup, frame, window, pairs)
    place = np.full((count, 2), np.nan)  # where a first alignment has put each keypoint
    parts: list[tuple[NDArray[np.int64], Alignment]] = []
    rows = np.arange(len(links))
    for newest in (True, False):
        rows = _one_per_keypoint(links.index, rows, newest)
        if len(rows) == 0:
            break
        starts = [Warps(setup.detected, guesses.affine), guesses]
        found = align(setup.templates(rows), frame.pyramid, _of(starts, rows), config)
        good = accept(found, setup.detected[rows], config)
        parts.append((rows[good], _select(found, good)))
        setup.keep(place, affine, rows[good], found.warps.select(good))
        done = np.concatenate([part for part, _ in parts])
        rows = np.setdiff1d(np.flatnonzero(np.isnan(place[links.index, 0])), rows)
    rows = np.setdiff1d(np.flatnonzero(~np.isnan(place[links.index, 0])), done)
    if len(rows):
        starts = [setup.expected(place, affine, rows)]
        found = align(setup.templates(rows)[:1], frame.pyramid, starts, config)
        good = accept(found, setup.detected[rows], config)
        parts.append((rows[good], _select(found, good)))
    return _conclude(links, setup, frame, window, place, affine, parts, config)


@dataclass(frozen=True)
class _Setup:
    """What the keyframes know of each link's end there."""

    index: NDArray[np.int64]  # (L,) keypoints of the frame
    detected: NDArray[np.float64]  # (L, 2) of the frame
    pixels: NDArray[np.float64]  # (L, 2) track's place in the keyframe
    anchors: NDArray[np.float64]  # (L, 2) where the keyframe's patch was cut
    affine: NDArray[np.float64]  # (L, 2, 2) first patch of the track -> keyframe
    patches: tuple[Patches, ...]

    @classmethod
    def of(
        cls, links: Matches, frame: Keyframe, window: Sequence[Keyframe], config: AlignmentConfig
    ) -> _Setup:
        rows = [links.keyframe_index[links.keyframe == number] for number in range(len(window))]
        pairs = list(zip(window, rows, strict=True))
        device = frame.pyramid[0].device
        levels = []
        for level in range(min(len(keyframe.patches) for keyframe in window)):
            parts = [
                (keyframe.patches[level], torch.from_numpy(chosen).to(device))
                for keyframe, chosen in pairs
            ]
            levels.append(gather(parts))
        return cls(
            links.index,
            frame.detected[links.index],
            np.concatenate([keyframe.pixels[chosen] for keyframe, chosen in pairs]),
            np.concatenate([keyframe.anchors[chosen] for keyframe, chosen in pairs]),
            np.concatenate([keyframe.affine[chosen] for keyframe, chosen in pairs]),
            tuple(levels),
        )

    def templates(self, rows: NDArray[np.int64]) -> list[Patches]:
        """The patches of links `rows`, level by level."""
        device = self.patches[0].values.device
        return [patches.select(torch.from_numpy(rows).to(device)) for patches in self.patches]

    def keep(
        self,
        place: NDArray[np.float64],
        affine: NDArray[np.float64],
        rows: NDArray[np.int64],
        warps: Warps,
    ) -> None:
        """Note where the keypoints of links `rows` are, and how their patches are sheared."""
        owner = self.index[rows]
        place[owner] = _carry(warps, self.pixels[rows] - self.anchors[rows])
        affine[owner] = warps.affine @ self.affine[rows]

    def expected(
        self, place: NDArray[np.float64], affine: NDArray[np.float64], rows: NDArray[np.int64]
    ) -> Warps:
        """Where the patches of links `rows` must lie, given their keypoints' places."""
        owner = self.index[rows]
        shear = affine[owner] @ np.linalg.inv(self.affine[rows])
        offset = self.anchors[rows] - self.pixels[rows]
        return Warps(_carry(Warps(place[owner], shear), offset), shear)


def _carry(warps: Warps, offset: NDArray[np.float64]) -> NDArray[np.float64]:
    return warps.pixels + np.einsum("mij,mj->mi", warps.affine, offset)


def _select(found: Alignment, rows: NDArray[np.bool_]) -> Alignment:
    return Alignment(
        found.warps.select(rows), found.covariance[rows], found.correlation[rows], found.valid[rows]
    )


def _of(starts: Sequence[Warps], rows: NDArray[np.int64]) -> list[Warps]:
    return [start.select(rows) for start in starts]


def _one_per_keypoint(
    index: NDArray[np.int64], rows: NDArray[np.int64], newest: bool
) -> NDArray[np.int64]:
    """Of the links `rows`, each keypoint's newest or oldest; links are ordered by keyframe."""
    ordered = rows[::-1] if newest else rows
    return np.sort(ordered[np.unique(index[ordered], return_index=True)[1]])


def _guesses(
    links: Matches,
    setup: _Setup,
    frame: Keyframe,
    window: Sequence[Keyframe],
    pairs: Sequence[Pairs],
) -> Warps:
    """Where the matches around each link predict its patch, and the local affine motion."""
    affine = np.tile(np.eye(2), (len(links), 1, 1))
    pixels = setup.detected.copy()
    for number, (keyframe, (rows, keyframe_rows)) in enumerate(zip(window, pairs, strict=True)):
        here = links.keyframe == number
        warps = predict(
            setup.anchors[here], keyframe.pixels[keyframe_rows], frame.detected[rows]
        )
        if warps is not None:
            pixels[here], affine[here] = warps.pixels, warps.affine
    return Warps(pixels, affine)


def _conclude(
    links: Matches,
    setup: _Setup,
    frame: Keyframe,
    window: Sequence[Keyframe],
    place: NDArray[np.float64],
    affine: NDArray[np.float64],
    parts: Sequence[tuple[NDArray[np.int64], Alignment]],
    config: AlignmentConfig,
) -> Measured:
    """Test the way back, and write what passes as edges from the keyframes' present places."""
    rows = np.concatenate([part for part, _ in parts])
    pixels = np.concatenate([found.warps.pixels for _, found in parts])
    warps = Warps(pixels, np.concatenate([found.warps.affine for _, found in parts]))
    covariance = np.concatenate([found.covariance for _, found in parts])
    owner, patch = np.unique(links.index[rows], return_inverse=True)
    patches = cut(frame.pyramid[:1], place[owner], config.patch_radius)[0]
    back = np.full(len(rows), np.inf)
    for number, keyframe in enumerate(window):
        here = np.flatnonzero(links.keyframe[rows] == number)
        if len(here):
            back[here] = way_back(
                patches.select(torch.from_numpy(patch[here]).to(patches.values.device)),
                place[owner[patch[here]]],
                warps.select(here),
                keyframe.pyramid,
                setup.anchors[rows[here]],
                config,
            )
    kept = np.flatnonzero(back <= config.max_forward_backward)
    kept = kept[np.argsort(rows[kept])]
    rows, warps = rows[kept], warps.select(kept)
    stamps = np.array([keyframe.stamp for keyframe in window])
    edges = Edges(
        track=frame.tracks[links.index[rows]],
        stamp_from=stamps[links.keyframe[rows]],
        stamp_to=np.full(len(rows), frame.stamp, np.int64),
        centre=setup.pixels[rows],
        pixels=_carry(warps, setup.pixels[rows] - setup.anchors[rows]),
        affine=warps.affine,
        covariance=covariance[kept],
    )
    return Measured(rows, edges, affine)
