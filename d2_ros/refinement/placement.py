"""Placing what was seen in a view: measured, refined, verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from d2_ros.config import Config
from d2_ros.matching.neighbours import Matches, no_matches
from d2_ros.refinement.consistency import with_epipolar_consistency
from d2_ros.refinement.frame import refined
from d2_ros.timing import Stopwatch
from d2_ros.tracks.geometry import verify_window
from d2_ros.tracks.graph import Edges, no_edges
from d2_ros.tracks.keyframe import Keyframe
from d2_ros.tracks.links import link_tracks, rows_to_keep, without_outliers
from d2_ros.tracks.measurement import Measured, measure_links, measure_remaining
from d2_ros.tracks.observations import Observations, no_observations
from d2_ros.tracks.seen import Seen
from d2_ros.tracks.view import View

_ROUNDS = 500  # once places are exact, few rounds find what motion there is to find


@dataclass(frozen=True)
class Placed:
    """A view whose keypoints have been measured, refined and verified.

    Attributes
    ----------
    obs
        What is published of it.
    matches, inlier
        Its links with the window's keyframes, and which of them geometry confirms.
    seen, tracked, measured
        All keypoints with the tracks that are left to them, their links of one track each, and
        what has been measured of these (None without refinement): what
        :func:`edges_of` makes a keyframe's edges of.
    """

    obs: Observations
    matches: Matches
    inlier: NDArray[np.bool_]
    seen: Seen
    tracked: Matches
    measured: Measured | None


def place(seen: Seen, window: Sequence[Keyframe], config: Config, watch: Stopwatch) -> Placed:
    """Measure, refine and verify what was seen in a view.

    Parameters
    ----------
    seen
        Keypoints at about their places, with their tracks.
    window
        Keyframes, oldest first.
    watch
        Gets the sections ``alignment``, ``refinement`` and ``verification``.
    """
    links, obs, measured = link_tracks(seen.matches, seen.obs, window), seen.obs, None
    tracked = links.matches.select(links.tracked)
    watch.end_section("graph")
    if config.refinement.enabled:
        measured = measure_links(seen, tracked, window, config.alignment)
        watch.end_section("alignment")
        obs = replace(obs, affine=measured.affine)
        obs = refined(obs, tracked.index[measured.link], measured.edges, config.refinement)
        links = links.select(links.measured(obs.tracks))
        watch.end_section("refinement")
    verdict = verify_window(
        links.matches, obs.pixels, seen.view, window, config.matching.max_error, config, _ROUNDS
    )
    inlier = verdict.inlier
    obs = without_outliers(with_epipolar_consistency(obs, links, verdict), links, inlier)
    rows = rows_to_keep(obs.tracks, seen.detections, config.features.max_keypoints)
    links, inlier = links.restrict(rows, obs.tracks, inlier)
    watch.end_section("verification")
    whole = replace(seen, obs=obs)
    return Placed(obs.select(rows), links.matches, inlier, whole, tracked, measured)


def nothing_placed(view: View) -> Placed:
    """What is to be said of a view in which nothing could be followed, before the network has."""
    obs, none = no_observations(view.pyramid[0].device), no_matches()
    seen = Seen(view, obs, none, [], 0, followed=True, located=True)
    return Placed(obs, none, np.zeros(0, bool), seen, none, None)


def edges_of(placed: Placed, window: Sequence[Keyframe], config: Config) -> Edges:
    """Every edge of a frame that is to be a keyframe: the measured links, and the others now."""
    if placed.measured is None:
        return no_edges()
    edges = measure_remaining(
        placed.seen, placed.tracked, window, placed.measured, config.alignment
    ).edges
    return edges.select(np.isin(edges.track, placed.obs.tracks))
