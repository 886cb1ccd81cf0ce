"""Carrying what the network has seen in an earlier view to the present one.

Cameras move on while the network looks. Lucas-Kanade takes its keypoints along through the views
that have gone by meanwhile, a few views at a time. Some of them go through every view, and these
and the tracks that were followed there say where to look for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from d2_ros.matching.motion import predict
from d2_ros.tracks.following import flow, within
from d2_ros.tracks.observations import Observations, no_observations
from d2_ros.tracks.seen import Seen
from d2_ros.tracks.view import View

_HOP = 4  # views that most keypoints pass at once
_GUIDES = 200  # keypoints that pass view by view, and tell the motion of the others
_FEWEST_CARRIED = 0.2  # share of what the network has seen, to be worth carrying over
_LONGEST = 32  # views of a trail


@dataclass(frozen=True)
class Passed:
    """A view that has gone by, and where tracks were in it.

    Attributes
    ----------
    stamp
        Integer nanoseconds.
    image
        ``(H, W)`` uint8.
    obs
        What was followed there.
    """

    stamp: int
    image: NDArray[np.uint8]
    obs: Observations


def passed_by(view: View, obs: Observations | None) -> Passed:
    """What is kept of a view, and of what was followed there, if anything."""
    seen = no_observations(view.pyramid[0].device) if obs is None else obs
    return Passed(view.stamp, view.rounded, seen)


class Trail:
    """The views that have gone by since the network was asked, oldest first.

    One thread adds to it while another reads; every second view is forgotten where it gets long.
    """

    def __init__(self) -> None:
        self._passed: tuple[Passed, ...] = ()

    def add(self, passed: Passed) -> None:
        """Put a view at the end."""
        kept = self._passed[1::2] if len(self._passed) == _LONGEST else self._passed
        self._passed = (*kept, passed)

    def after(self, stamp: int) -> Sequence[Passed]:
        """The views later than `stamp`."""
        return [passed for passed in self._passed if passed.stamp > stamp]


@dataclass(frozen=True)
class Carried:
    """Where keypoints of an earlier view lie in a later one.

    Attributes
    ----------
    rows
        ``(M,)`` those that have not been lost on the way.
    places
        ``(M, 2)`` px.
    affine
        ``(M, 2, 2)`` as in :class:`~d2_ros.tracks.observations.Observations`.
    stamp, image
        The later view.
    """

    rows: NDArray[np.int64]
    places: NDArray[np.float64]
    affine: NDArray[np.float64]
    stamp: int
    image: NDArray[np.uint8]


def not_yet_carried(seen: Seen) -> Carried:
    """All keypoints, where they were seen."""
    obs, view = seen.obs, seen.view
    return Carried(np.arange(len(obs)), obs.pixels, obs.affine, view.stamp, view.rounded)


def carry_along(seen: Seen, carried: Carried, trail: Trail) -> Carried:
    """Carry keypoints to the last view of a trail, however long that has become meanwhile."""
    while ahead := trail.after(carried.stamp):
        carried = _carry(seen.obs, carried, ahead[:_HOP])
    return carried


def arrive(seen: Seen, carried: Carried, view: View, followed: Observations | None) -> Seen | None:
    """What the network has seen in an earlier view, at its places in the present one.

    Parameters
    ----------
    seen
        Keypoints of the earlier view, with their tracks.
    carried
        Where they were last.
    view
        The present view.
    followed
        Tracks that were followed into it, if any: those stay where they have been found.

    Returns
    -------
    None where too few keypoints are left.
    """
    nothing = seen.obs.select(np.empty(0, np.int64))  # with descriptors as long as the others
    here = passed_by(view, nothing if followed is None else followed)
    carried, now = _carry(seen.obs, carried, [here]), here.obs
    inside = within(carried.places, view)
    kept = carried.rows[inside]
    if len(kept) < max(1, _FEWEST_CARRIED * len(seen.obs)):
        return None
    before = seen.obs.select(kept)
    others = now.select(np.flatnonzero(~np.isin(now.tracks, before.tracks)))
    found = np.zeros(len(seen.obs), bool)
    found[kept] = True
    renumbered = np.cumsum(found) - 1
    matches = seen.matches.select(found[seen.matches.index])
    return Seen(
        view,
        before.at(carried.places[inside], carried.affine[inside]).join(others),
        replace(matches, index=renumbered[matches.index]),
        [(renumbered[ours[found[ours]]], theirs[found[ours]]) for ours, theirs in seen.pairs],
        int(found[: seen.detections].sum()),
        followed=False,
        located=True,
    )


def _carry(obs: Observations, carried: Carried, ahead: Sequence[Passed]) -> Carried:
    """Carry keypoints, rows of `obs`, past one or a few views."""
    last = ahead[-1]
    rows = last.obs.rows_of(obs.tracks[carried.rows])
    known = np.flatnonzero(rows >= 0)
    there = last.obs.pixels[rows[known]]
    guides, led = _lead(carried, ahead)
    warps = predict(
        carried.places,
        np.concatenate([carried.places[known], carried.places[guides]]),
        np.concatenate([there, led]),
    )
    expected, affine = None, carried.affine.copy()
    if warps is not None:
        expected, affine = warps.pixels, warps.affine @ affine
    places, found = flow(carried.image, last.image, carried.places, expected)
    places[known], affine[known], found[known] = there, last.obs.affine[rows[known]], True
    kept, places, affine = carried.rows[found], places[found], affine[found]
    return Carried(kept, places, affine, last.stamp, last.image)


def _lead(
    carried: Carried, ahead: Sequence[Passed]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Take some keypoints through every view: which are left, and where they are in the last."""
    step = max(1, len(carried.rows) // _GUIDES)
    guides: NDArray[np.int64] = np.arange(0, len(carried.rows) if len(ahead) > 1 else 0, step)
    image, places = carried.image, carried.places[guides]
    for passed in ahead if len(guides) else ():
        places, found = flow(image, passed.image, places)
        image, places, guides = passed.image, places[found], guides[found]
    return guides, places
