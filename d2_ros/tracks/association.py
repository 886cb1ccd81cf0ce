"""Associating a view's features with the tracks of the window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from d2_ros.config import Config
from d2_ros.features.extractor import Features
from d2_ros.matching.neighbours import match
from d2_ros.matching.verification import ROUNDS
from d2_ros.timing import Stopwatch
from d2_ros.tracks.geometry import verify_window
from d2_ros.tracks.guided import find_lost
from d2_ros.tracks.keyframe import Keyframe
from d2_ros.tracks.links import claim_tracks, inlier_pairs
from d2_ros.tracks.observations import detected
from d2_ros.tracks.seen import Seen
from d2_ros.tracks.view import View


def associate(
    features: Features,
    view: View,
    window: Sequence[Keyframe],
    recent: NDArray[np.int64],
    config: Config,
    watch: Stopwatch,
) -> Seen:
    """Match a view's features with the window, and look for the tracks that are missing.

    Parameters
    ----------
    features
        What the network has found in `view`.
    window
        Keyframes, oldest first.
    recent
        Tracks that are looked for even where nothing is detected.
    watch
        Gets the sections ``matching``, ``verification`` and ``graph``.
    """
    matches = match(features.descriptors, [keyframe.obs.descriptors for keyframe in window])
    watch.end_section("matching")
    places, detections = features.keypoints.astype(np.float64), len(features.keypoints)
    verdict = verify_window(
        matches, places, view, window, config.matching.max_detected_error, config, ROUNDS
    )
    watch.end_section("verification")
    tracks = claim_tracks(matches, verdict.inlier, window, detections)
    pairs = inlier_pairs(matches, verdict.inlier, len(window))
    if config.refinement.enabled:  # without it nothing would measure the predicted places
        features, tracks = find_lost(features, tracks, window, pairs, recent, view.size)
    watch.end_section("graph")
    obs = detected(features, tracks)
    return Seen(view, obs, matches, pairs, detections, followed=False, located=False)
