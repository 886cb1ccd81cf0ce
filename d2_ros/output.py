"""Frames and keyframes -> the rows of the output topics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from d2_ros.matching.neighbours import Matches
from d2_ros.records import FEATURES, MATCHES, TRACKS, split_stamp
from d2_ros.tracks.window import Keyframe


def feature_rows(
    frame: Keyframe,
    scores: NDArray[np.float32],
    lengths: NDArray[np.int64],
    refined: NDArray[np.bool_],
) -> NDArray[np.void]:
    """Rows of the ``features`` topic."""
    rows = np.zeros(len(frame.pixels), FEATURES)
    _place(rows, frame, slice(None))
    rows["u_detected"], rows["v_detected"] = frame.detected.T
    rows["score"] = scores
    rows["track_id"] = frame.tracks
    rows["track_length"] = lengths
    rows["refined"] = refined
    return rows


def match_rows(
    frame: Keyframe, matches: Matches, inlier: NDArray[np.bool_], window: Sequence[Keyframe]
) -> NDArray[np.void]:
    """Rows of the ``matches`` topic; `matches` count keyframes as they stood before the frame."""
    rows = np.zeros(len(matches), MATCHES)
    rows["index"] = matches.index
    rows["u"], rows["v"] = frame.pixels[matches.index].T
    rows["keyframe_index"] = matches.keyframe_index
    for number, keyframe in enumerate(window):
        picked = matches.keyframe == number
        rows["keyframe_sec"][picked], rows["keyframe_nanosec"][picked] = split_stamp(keyframe.stamp)
        place = keyframe.pixels[matches.keyframe_index[picked]]
        rows["keyframe_u"][picked], rows["keyframe_v"][picked] = place.T
    rows["similarity"] = matches.similarity
    rows["inlier"] = inlier
    return rows


def track_rows(window: Sequence[Keyframe]) -> NDArray[np.void]:
    """Rows of the ``tracks`` topic: every observation in the window."""
    parts = []
    for keyframe in window:
        index = np.flatnonzero(keyframe.tracks > 0)
        rows = np.zeros(len(index), TRACKS)
        rows["track_id"] = keyframe.tracks[index]
        rows["sec"], rows["nanosec"] = split_stamp(keyframe.stamp)
        rows["index"] = index
        _place(rows, keyframe, index)
        parts.append(rows)
    return np.concatenate(parts)


def _place(rows: NDArray[np.void], frame: Keyframe, index: slice | NDArray[np.int64]) -> None:
    pixels, covariance = frame.pixels[index], frame.covariance[index]
    rows["u"], rows["v"] = pixels.T
    if frame.camera is None:
        rows["x"] = rows["y"] = rows["z"] = np.nan
    else:
        rows["x"], rows["y"], rows["z"] = frame.camera.bearings(pixels).T
    rows["sigma_uu"] = covariance[:, 0, 0]
    rows["sigma_uv"] = covariance[:, 0, 1]
    rows["sigma_vv"] = covariance[:, 1, 1]
