"""Published topics -> a view graph: images with keypoints, and the matches between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.published import PublishedFrame
from d2_ros.records import columns

Pairs = Mapping[tuple[int, int], NDArray[np.uint32]]
"""(view, later view) -> ``(M, 2)`` rows of keypoints in the two."""

NEAR = 16
"""Observations of a track that are all matched with each other; beyond, gaps double."""


@dataclass(frozen=True)
class View:
    """One image.

    Attributes
    ----------
    stamp
        Integer nanoseconds.
    size
        (width, height), px.
    camera
        Its calibration; None where there is none.
    keypoints
        ``(N, 2)`` float64 raw pixels, the centre of the top-left one at (0, 0).
    """

    stamp: int
    size: tuple[int, int]
    camera: Camera | None
    keypoints: NDArray[np.float64]

    @property
    def name(self) -> str:
        """File name of the image: its stamp, so that names sort by time."""
        return f"{self.stamp:019d}.png"


@dataclass(frozen=True)
class ViewGraph:
    """Images in time order, and the matches between them.

    Attributes
    ----------
    views
        The images, no two with one stamp.
    pairs
        Matches, in each pair every keypoint at most once.
    """

    views: tuple[View, ...]
    pairs: Pairs

    def __post_init__(self) -> None:
        stamps = [view.stamp for view in self.views]
        if any(later <= earlier for earlier, later in pairwise(stamps)):
            raise ValueError("the views of a ViewGraph are in time order, each stamp once")


@dataclass(frozen=True)
class Observed:
    """Where the keypoints of one frame lie, and which track each belongs to.

    Attributes
    ----------
    pixels, detected
        ``(N, 2)`` float64 latest refined, and detected place, px.
    tracks
        ``(N,)`` int64; 0 = none.
    """

    pixels: NDArray[np.float64]
    detected: NDArray[np.float64]
    tracks: NDArray[np.int64]


def latest(frames: Sequence[PublishedFrame], tracks: Iterable[NDArray[np.void]]) -> list[Observed]:
    """Take the newest that was said of every keypoint: `tracks` messages supersede `features`.

    Of a keyframe the newest message that names it says everything: a keypoint that it does not
    list has left its track.

    Parameters
    ----------
    frames
        All of the recording.
    tracks
        Rows of :data:`d2_ros.records.TRACKS` of every message, in time order.

    Raises
    ------
    D2RosError
        If a message names a keypoint that its frame does not have.
    """
    observed = [
        Observed(
            columns(frame.features, "u", "v"),
            columns(frame.features, "u_detected", "v_detected"),
            frame.features["track_id"].astype(np.int64),
        )
        for frame in frames
    ]
    number = {frame.stamp: index for index, frame in enumerate(frames)}
    for rows in tracks:
        stamps = _stamps(rows["sec"], rows["nanosec"])
        for stamp in np.unique(stamps).tolist():
            if stamp not in number:
                continue  # its features were lost on the way to the recorder
            told, seen = rows[stamps == stamp], observed[number[stamp]]
            index = _rows_of(told["index"], len(seen.tracks), stamp)
            seen.pixels[index] = columns(told, "u", "v")
            seen.tracks[:] = 0
            seen.tracks[index] = told["track_id"]
    return observed


def track_pairs(tracks: Sequence[NDArray[np.int64]]) -> Pairs:
    """Match every observation with the 16 later ones of its track, then the 32nd, 64th, ...

    Matches then grow with the recording, not with the square of its longest tracks; what COLMAP
    makes of them is what it makes of all pairs (docs/mappers/colmap.md), since it joins matches.

    Parameters
    ----------
    tracks
        Per view ``(N,)`` ids, each at most once; those below 1 are none.
    """
    counts = [len(ids) for ids in tracks]
    view = np.repeat(np.arange(len(tracks), dtype=np.int32), counts)  # small: there are millions
    row = np.arange(len(view), dtype=np.int32) - np.repeat(
        np.cumsum([0, *counts[:-1]], dtype=np.int32)[: len(counts)], counts
    )
    track = np.concatenate([np.empty(0, np.int64), *tracks])
    order = np.lexsort((view, track))
    order = order[track[order] > 0]
    view, row, track = view[order], row[order], track[order]
    found = [np.empty((0, 4), np.int32)]
    far = (1 << power for power in range(NEAR.bit_length(), len(tracks).bit_length()))
    for apart in (*range(1, NEAR + 1), *far):
        first = np.flatnonzero(track[:-apart] == track[apart:])
        if not len(first):
            break  # no track is as long
        then = first + apart
        found.append(np.column_stack([view[first], view[then], row[first], row[then]]))
    return _grouped(np.concatenate(found))


def match_pairs(frames: Sequence[PublishedFrame]) -> Pairs:
    """Take the published matches that passed geometric verification.

    Raises
    ------
    D2RosError
        If one names a keypoint that its frame does not have.
    """
    number = {frame.stamp: index for index, frame in enumerate(frames)}
    found = [np.empty((0, 4), np.int64)]
    for there, frame in enumerate(frames):
        rows = frame.matches[frame.matches["inlier"] > 0]
        stamps = _stamps(rows["keyframe_sec"], rows["keyframe_nanosec"])
        for stamp in np.unique(stamps).tolist():
            if stamp not in number:
                continue
            told, here = rows[stamps == stamp], number[stamp]
            first = _rows_of(told["keyframe_index"], len(frames[here].features), stamp)
            then = _rows_of(told["index"], len(frame.features), frame.stamp)
            ends = np.full((len(told), 2), (here, there))
            found.append(np.column_stack([ends, first, then]))
    return _grouped(np.concatenate(found))


def view_graph(
    frames: Sequence[PublishedFrame], pixels: Sequence[NDArray[np.float64]], pairs: Pairs
) -> ViewGraph:
    """Put keypoints and matches together; what has no bearing is matched with nothing.

    Parameters
    ----------
    frames
        In time order.
    pixels
        Of each frame ``(N, 2)`` keypoints, px.
    pairs
        Numbers of frames and rows of `pixels`.

    Raises
    ------
    D2RosError
        If two frames have one stamp.
    """
    stamps = np.array([frame.stamp for frame in frames], np.int64)
    if len(again := np.flatnonzero(np.diff(stamps) <= 0)):
        raise D2RosError(
            f"the frame at {stamps[again[0] + 1]} ns is not later than the one before it: the "
            "recording starts over; replay one run of it, with --start and --frames"
        )
    seen = [_has_bearing(frame.camera, here) for frame, here in zip(frames, pixels, strict=True)]
    usable = {
        (a, b): rows[seen[a][rows[:, 0]] & seen[b][rows[:, 1]]] for (a, b), rows in pairs.items()
    }
    views = (
        View(frame.stamp, frame.size, frame.camera, here)
        for frame, here in zip(frames, pixels, strict=True)
    )
    return ViewGraph(tuple(views), {pair: rows for pair, rows in usable.items() if len(rows)})


def _has_bearing(camera: Camera | None, pixels: NDArray[np.float64]) -> NDArray[np.bool_]:
    if camera is None:
        return np.ones(len(pixels), bool)
    return np.asarray(np.isfinite(camera.bearings(pixels)).all(axis=1))


def _stamps(sec: NDArray[np.int32], nanosec: NDArray[np.uint32]) -> NDArray[np.int64]:
    return sec.astype(np.int64) * 1_000_000_000 + nanosec


def _rows_of(index: NDArray[np.uint32], count: int, stamp: int) -> NDArray[np.int64]:
    if len(index) and index.max() >= count:
        raise D2RosError(
            f"row {index.max()} of the features at {stamp} ns is named, which has {count}: the "
            "bag mixes recordings; record or replay it anew"
        )
    return index.astype(np.int64)


def _grouped(found: NDArray[Any]) -> Pairs:
    """``(M, 4)`` view, view, row, row -> pairs, the earlier view first."""
    swapped = found[:, 0] > found[:, 1]
    found[swapped] = found[swapped][:, [1, 0, 3, 2]]
    found = found[np.lexsort(found.T[::-1])]
    starts = np.flatnonzero(np.r_[True, np.any(np.diff(found[:, :2], axis=0), axis=1)])
    groups = np.split(found, starts[1:]) if len(found) else []
    return {(int(g[0, 0]), int(g[0, 1])): g[:, 2:].astype(np.uint32) for g in groups}
