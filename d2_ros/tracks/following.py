"""Following tracks from one view to the next, without the network.

Pyramidal Lucas-Kanade (Bouguet, 2001; OpenCV's) carries the last view's places over. They are
starting points only: patches are aligned with the window from there, as on every other frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.matching.motion import predict
from d2_ros.matching.neighbours import no_matches
from d2_ros.tracks.keyframe import Keyframe
from d2_ros.tracks.observations import Observations
from d2_ros.tracks.seen import Pairs, Seen
from d2_ros.tracks.view import View

_LEVELS = 3  # above the image
_SIDE = 15  # px of Lucas-Kanade's windows
_STOP = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03)  # steps, px: only a start
_MAX_FORWARD_BACKWARD = 1.5  # px
_CORNERS = 300  # of a bridge
_MARGIN = 4.0  # px from the image border
FEWEST = 30  # tracks, to be worth following
_FEWEST_CARRIED = 0.4  # share of what the network has seen, to be worth carrying over


@dataclass(frozen=True)
class Last:
    """The view before, and its tracks, each with a row."""

    view: View
    obs: Observations


def flow(
    before: NDArray[np.uint8],
    now: NDArray[np.uint8],
    places: NDArray[np.float64],
    expected: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Carry ``(N, 2)`` places, px, from one image to the next, by way of where they are `expected`.

    Returns
    -------
    places
        ``(N, 2)`` px.
    found
        ``(N,)`` bool: followed back, it ends where it started.
    """
    if len(places) == 0:
        return places, np.zeros(0, bool)
    start = np.ascontiguousarray(places, np.float32)
    guess = start if expected is None else np.asarray(expected, np.float32)
    there, arrived = _lucas_kanade(before, now, start, guess)
    back, returned = _lucas_kanade(now, before, there, there + (start - guess))
    found = arrived & returned
    found &= np.linalg.norm(back - start, axis=1) <= _MAX_FORWARD_BACKWARD
    return there.astype(np.float64), found


def _lucas_kanade(
    before: NDArray[np.uint8], now: NDArray[np.uint8], places: NDArray[Any], expected: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    follow_points: Any = cv2.calcOpticalFlowPyrLK  # its stubs want the result given as well
    there, found, _ = follow_points(
        before,
        now,
        places,
        np.array(expected, np.float32),  # a copy, for it is overwritten
        winSize=(_SIDE, _SIDE),
        maxLevel=_LEVELS,
        criteria=_STOP,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return there, found.ravel() > 0


def follow(last: Last, view: View, window: Sequence[Keyframe]) -> Seen | None:
    """Look for the last view's tracks, and for those of the newest keyframe that it has lost.

    Parameters
    ----------
    last
        The view before.
    view
        The view.
    window
        Keyframes, oldest first.

    Returns
    -------
    What was seen; None where too little is left to go on from.
    """
    if last.view.size != view.size or len(last.obs) < FEWEST or not window:
        return None
    # Not followed back: the alignment with the window is, and tells wrong places as well.
    start = np.ascontiguousarray(last.obs.pixels, np.float32)
    places, found = _lucas_kanade(last.view.rounded, view.rounded, start, start)
    places = places.astype(np.float64)
    found &= _within(places, view)
    if found.sum() < FEWEST:
        return None
    rows = np.flatnonzero(found)
    obs = last.obs.select(rows)
    obs = _with_lost(obs.at(places[rows], obs.affine), window[-1], view)
    obs = replace(obs, scores=np.zeros_like(obs.scores))
    count = len(rows)  # only those tell the motion: the others are predicted from it
    pairs = [_common(obs.tracks[:count], keyframe.obs) for keyframe in window]
    return Seen(view, obs, no_matches(), pairs, 0, followed=True)


def _within(places: NDArray[np.float64], view: View) -> NDArray[np.bool_]:
    limit = np.array(view.size) - 1 - _MARGIN
    return np.all((places > _MARGIN) & (places < limit), axis=1)


def _common(tracks: NDArray[np.int64], known: Observations) -> Pairs:
    """Which of `tracks` are known, and the rows where."""
    rows = known.rows_of(tracks)
    return np.flatnonzero(rows >= 0), rows[rows >= 0]


def _with_lost(obs: Observations, keyframe: Keyframe, view: View) -> Observations:
    """The observations and, where they predict them, the keyframe's tracks that they lack."""
    known = keyframe.obs
    ours, theirs = _common(obs.tracks, known)
    missing = np.flatnonzero((known.tracks > 0) & ~np.isin(known.tracks, obs.tracks))
    warps = predict(known.pixels[missing], known.pixels[theirs], obs.pixels[ours])
    if warps is None or not len(missing):
        return obs
    within = _within(warps.pixels, view)
    missing, warps = missing[within], warps.select(within)
    lost = known.select(missing).at(warps.pixels, warps.affine @ known.affine[missing])
    return obs.join(lost)


@dataclass(frozen=True)
class Bridge:
    """Corners of a view that the network is looking at, followed where no track can be.

    Attributes
    ----------
    start, now
        ``(M, 2)`` px, in that view and in the latest one.
    view
        The latest one.
    """

    start: NDArray[np.float64]
    now: NDArray[np.float64]
    view: View

    def onto(self, view: View) -> Bridge:
        """The corners that can be followed into the next view."""
        places, found = flow(self.view.rounded, view.rounded, self.now)
        return Bridge(self.start[found], places[found], view)


def bridge_from(view: View) -> Bridge:
    """Corners of a view (Shi and Tomasi, 1994), to begin with."""
    found: Any = cv2.goodFeaturesToTrack(view.rounded, _CORNERS, 0.01, 10)
    corners = np.empty((0, 2)) if found is None else found[:, 0].astype(np.float64)
    return Bridge(corners, corners, view)


def carry(
    seen: Seen, view: View, now: Observations | None, bridge: Bridge | None = None
) -> Seen | None:
    """What the network has seen in an earlier view, at its places in a later one.

    Parameters
    ----------
    seen
        Keypoints of the earlier view, with their tracks.
    view
        The later one.
    now
        Tracks that were followed there meanwhile: those stay where they have been found.
    bridge
        What tells the motion where no tracks were followed.

    Returns
    -------
    None where too few can be carried over.
    """
    before = seen.obs
    now = before.select(np.empty(0, np.int64)) if now is None else now
    known, rows = _common(before.tracks, now)
    pairs = (before.pixels[known], now.pixels[rows])
    warps = predict(before.pixels, *(pairs if bridge is None else (bridge.start, bridge.now)))
    expected = None if warps is None else warps.pixels
    places, found = flow(seen.view.rounded, view.rounded, before.pixels, expected)
    places[known], found[known] = now.pixels[rows], True
    found &= _within(places, view)
    kept = np.flatnonzero(found)
    if len(kept) < max(FEWEST, _FEWEST_CARRIED * len(found)):
        return None
    others = now.select(np.flatnonzero(~np.isin(now.tracks, before.tracks[kept])))
    obs = before.select(kept).at(places[kept], before.affine[kept])
    renumbered = np.cumsum(found) - 1
    matches = seen.matches.select(found[seen.matches.index])
    return Seen(
        view,
        obs.join(others.at(others.pixels, others.affine)),
        replace(matches, index=renumbered[matches.index]),
        [(renumbered[ours[found[ours]]], theirs[found[ours]]) for ours, theirs in seen.pairs],
        int(found[: seen.detections].sum()),
        followed=False,
    )
