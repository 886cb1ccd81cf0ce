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
_MARGIN = 4.0  # px from the image border
FEWEST = 10  # tracks, to be worth following: a few more than a geometry needs


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
    found &= within(places, view)
    if found.sum() < FEWEST:
        return None
    rows = np.flatnonzero(found)
    obs = last.obs.select(rows)
    obs = _with_lost(obs.at(places[rows], obs.affine), window[-1], view)
    obs = replace(obs, scores=np.zeros_like(obs.scores))
    count = len(rows)  # only those tell the motion: the others are predicted from it
    pairs = [_common(obs.tracks[:count], keyframe.obs) for keyframe in window]
    return Seen(view, obs, no_matches(), pairs, 0, followed=True, located=True)


def within(places: NDArray[np.float64], view: View) -> NDArray[np.bool_]:
    """Whether ``(N, 2)`` places, px, are far enough from the image border to be aligned."""
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
    inside = within(warps.pixels, view)
    missing, warps = missing[inside], warps.select(inside)
    lost = known.select(missing).at(warps.pixels, warps.affine @ known.affine[missing])
    return obs.join(lost)
