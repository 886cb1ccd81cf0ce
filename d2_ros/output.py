"""Frames and keyframes -> the rows of the output topics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from d2_ros.matching.neighbours import Matches
from d2_ros.records import FEATURES, MATCHES, TRACKS, split_stamp
from d2_ros.refinement.problem import EDGE_FLOOR
from d2_ros.tracks.keyframe import Keyframe
from d2_ros.tracks.observations import Observations
from d2_ros.tracks.view import View


def feature_rows(
    view: View, obs: Observations, lengths: NDArray[np.int64], refined: NDArray[np.bool_]
) -> NDArray[np.void]:
    """Rows of the ``features`` topic."""
    rows = np.zeros(len(obs), FEATURES)
    _place(rows, view, obs, slice(None))
    rows["u_detected"], rows["v_detected"] = obs.detected.T
    rows["score"] = obs.scores
    rows["track_id"] = obs.tracks
    rows["track_length"] = lengths
    rows["refined"] = refined
    return rows


def match_rows(
    obs: Observations, matches: Matches, inlier: NDArray[np.bool_], window: Sequence[Keyframe]
) -> NDArray[np.void]:
    """Rows of the ``matches`` topic; `matches` count keyframes as they stood before the frame."""
    rows = np.zeros(len(matches), MATCHES)
    rows["index"] = matches.index
    rows["u"], rows["v"] = obs.pixels[matches.index].T
    rows["keyframe_index"] = matches.keyframe_index
    for number, keyframe in enumerate(window):
        picked = matches.keyframe == number
        rows["keyframe_sec"][picked], rows["keyframe_nanosec"][picked] = split_stamp(keyframe.stamp)
        place = keyframe.obs.pixels[matches.keyframe_index[picked]]
        rows["keyframe_u"][picked], rows["keyframe_v"][picked] = place.T
    rows["similarity"] = matches.similarity
    rows["inlier"] = inlier
    return rows


def track_rows(window: Sequence[Keyframe]) -> NDArray[np.void]:
    """Rows of the ``tracks`` topic: every observation in the window.

    The first observation of a track defines it: the covariances of the others are relative to it,
    and how well the detector has placed it matters to nobody who knows it by its track.
    """
    parts, drifts = [], []
    for keyframe in window:
        index = np.flatnonzero(keyframe.obs.tracks > 0)
        rows = np.zeros(len(index), TRACKS)
        rows["track_id"] = keyframe.obs.tracks[index]
        rows["sec"], rows["nanosec"] = split_stamp(keyframe.stamp)
        rows["index"] = index
        _place(rows, keyframe.view, keyframe.obs, index)
        parts.append(rows)
        drifts.append(keyframe.obs.drift[index])
    result, drift = np.concatenate(parts), np.concatenate(drifts)
    oldest = np.unique(result["track_id"], return_index=True)[1]
    first = oldest[~drift[oldest].any(axis=(1, 2))]
    result["sigma_uu"][first] = result["sigma_vv"][first] = EDGE_FLOOR**2
    result["sigma_uv"][first] = 0
    return result


def _place(
    rows: NDArray[np.void], view: View, obs: Observations, index: slice | NDArray[np.int64]
) -> None:
    pixels, covariance = obs.pixels[index], obs.covariance[index]
    rows["u"], rows["v"] = pixels.T
    if view.camera is None:
        rows["x"] = rows["y"] = rows["z"] = np.nan
    else:
        rows["x"], rows["y"], rows["z"] = view.camera.bearings(pixels).T
    rows["sigma_uu"] = covariance[:, 0, 0]
    rows["sigma_uv"] = covariance[:, 0, 1]
    rows["sigma_vv"] = covariance[:, 1, 1]
