"""Rows of the topics -> images, keypoints and matches, by hand."""

from dataclasses import dataclass

import numpy as np
import pytest

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.export.view_graph import latest, match_pairs, track_pairs, view_graph
from d2_ros.records import FEATURES, MATCHES, TRACKS, split_stamp

CAMERA = Camera(64, 48, [[40, 0, 31.5], [0, 40, 23.5], [0, 0, 1]], [])


@dataclass
class Frame:
    stamp: int
    features: np.ndarray
    matches: np.ndarray
    camera: Camera | None = CAMERA
    size: tuple[int, int] = (64, 48)


def frame(stamp, ids, matches=()):
    """Features with these tracks at u = row, v = stamp; matches (index, stamp, index, inlier)."""
    features = np.zeros(len(ids), FEATURES)
    features["track_id"], features["u"], features["v"] = ids, np.arange(len(ids)), stamp
    features["u_detected"] = features["u"] + 0.5
    rows = np.zeros(len(matches), MATCHES)
    for row, (index, keyframe, keyframe_index, inlier) in zip(rows, matches, strict=True):
        row["index"], row["keyframe_index"], row["inlier"] = index, keyframe_index, inlier
        row["keyframe_sec"], row["keyframe_nanosec"] = split_stamp(keyframe)
    return Frame(stamp, features, rows)


def told(*observations):
    """Rows of `tracks`: (track, stamp, index, u)."""
    rows = np.zeros(len(observations), TRACKS)
    for row, (track, stamp, index, u) in zip(rows, observations, strict=True):
        row["track_id"], row["index"], row["u"] = track, index, u
        row["sec"], row["nanosec"] = split_stamp(stamp)
    return rows


def listed(pairs):
    return {pair: rows.tolist() for pair, rows in pairs.items()}


def test_observations_of_a_track_are_matches():
    ids = [[7, 0, 3], [3, 7], [0, 0], [9, 3]]
    pairs = track_pairs([np.array(i, np.int64) for i in ids])
    assert listed(pairs) == {(0, 1): [[0, 1], [2, 0]], (0, 3): [[2, 1]], (1, 3): [[0, 1]]}
    assert {rows.dtype for rows in pairs.values()} == {np.dtype(np.uint32)}


def test_the_gaps_of_a_long_track_double_beyond_sixteen():
    # They count by observation, not by view: the track skips view 3.
    ids = [np.array([5] if view != 3 else [0], np.int64) for view in range(71)]
    seen = [view for view in range(71) if view != 3]
    gaps = [*range(1, 17), 32, 64]
    expected = {(seen[first], seen[first + gap]) for gap in gaps for first in range(70 - gap)}
    assert set(track_pairs(ids)) == expected


def test_no_tracks_are_no_pairs():
    assert track_pairs([]) == track_pairs([np.zeros(4, np.int64)] * 3) == {}


def test_the_published_inliers_are_matches_with_keyframes():
    frames = [
        frame(10**9, [0, 0]),
        frame(2 * 10**9, [0, 0, 0], [(2, 10**9, 1, 1), (0, 10**9, 0, 0)]),
        frame(3 * 10**9, [0], [(0, 10**9, 1, 1), (0, 2 * 10**9, 2, 1), (0, 5, 9, 1)]),
    ]
    assert listed(match_pairs(frames)) == {(0, 1): [[1, 2]], (0, 2): [[1, 0]], (1, 2): [[2, 0]]}


def test_tracks_supersede_features_and_each_other():
    frames = [frame(10, [4, 5, 6]), frame(20, [4, 0, 6])]
    seen = latest(frames, [told((4, 10, 0, 1.5), (5, 10, 1, 2.5)), told((5, 10, 1, 3.5))])
    # Of the first frame the second message says everything: tracks 4 and 6 have ended there.
    assert seen[0].tracks.tolist() == [0, 5, 0]
    assert seen[0].pixels[:, 0].tolist() == [1.5, 3.5, 2]
    assert seen[0].detected[:, 0].tolist() == [0.5, 1.5, 2.5]
    assert seen[1].tracks.tolist() == [4, 0, 6]
    assert listed(track_pairs([s.tracks for s in seen])) == {}
    # A keyframe whose features were not recorded is passed over.
    assert latest(frames, [told((4, 30, 0, 1.5))])[0].tracks.tolist() == [4, 5, 6]


@pytest.mark.parametrize(
    "read",
    [
        lambda: latest([frame(10, [4, 5])], [told((4, 10, 2, 0.0))]),
        lambda: match_pairs([frame(10, [0]), frame(20, [0], [(0, 10, 1, 1)])]),
        lambda: match_pairs([frame(10, [0]), frame(20, [0], [(3, 10, 0, 1)])]),
    ],
)
def test_rows_that_are_not_there_are_named(read):
    with pytest.raises(D2RosError, match=r"row \d of the features at \d+ ns is named, which has"):
        read()


def test_pixels_without_a_bearing_are_matched_with_nothing():
    strong = Camera(64, 48, CAMERA.matrix, [-0.5, 0, 0, 0, 0])  # turns back inside the image
    frames = [frame(10, [1, 2]), frame(20, [1, 2])]
    for one in frames:
        one.camera = strong
    pixels = [np.array([[31.5, 23.5], [0.0, 0.0]])] * 2
    assert np.isnan(strong.bearings(pixels[0])[1]).all()
    pairs = track_pairs([np.array([1, 2], np.int64)] * 2)
    assert listed(view_graph(frames, pixels, pairs).pairs) == {(0, 1): [[0, 0]]}
    for one in frames:
        one.camera = None
    assert listed(view_graph(frames, pixels, pairs).pairs) == {(0, 1): [[0, 0], [1, 1]]}


def test_a_recording_that_starts_over_is_refused():
    frames = [frame(10, []), frame(20, []), frame(10, [])]
    with pytest.raises(D2RosError, match="at 10 ns is not later than the one before it"):
        view_graph(frames, [np.empty((0, 2))] * 3, {})
