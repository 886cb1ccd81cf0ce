"""When a frame becomes a keyframe, and looking up tracks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from d2_ros.camera import Camera
from d2_ros.config import WindowConfig
from d2_ros.tracks.policy import is_keyframe, parallax, will_be_keyframe
from d2_ros.tracks.view import View

CAMERA = Camera(640, 480, np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), np.zeros(5))
CONFIG = WindowConfig()
SECOND = 1_000_000_000


@pytest.fixture
def decide(observations):
    """Whether a frame some time after a keyframe is to be one as well."""

    def decide(last, pixels, tracks, seconds=0.1):
        stamp = last.stamp + int(seconds * SECOND)
        view = View(stamp, CAMERA, (), None, np.empty((0, 0), np.float32))
        return is_keyframe([last], view, observations(tracks, pixels), CONFIG)

    return decide


def test_the_first_frame_is_a_keyframe(keyframe, observations):
    assert is_keyframe([], keyframe([]).view, observations([]), CONFIG)


def test_a_standing_camera_keeps_its_window_for_ever(keyframe, decide):
    last = keyframe(range(1, 101))
    noise = np.random.default_rng(1).normal(0, 0.3, last.obs.pixels.shape)
    assert not decide(last, last.obs.pixels + noise, last.obs.tracks, seconds=1000)


def test_few_tracks_left_make_a_keyframe(keyframe, decide):
    last = keyframe(range(1, 101))
    assert not decide(last, last.obs.pixels[:75], last.obs.tracks[:75])
    assert decide(last, last.obs.pixels[:65], last.obs.tracks[:65])


def test_time_counts_only_when_the_camera_has_moved(keyframe, decide):
    last = keyframe(range(1, 101))
    assert not decide(last, last.obs.pixels + 3.0, last.obs.tracks, seconds=4)
    assert decide(last, last.obs.pixels + 3.0, last.obs.tracks, seconds=6)


def test_rotation_alone_is_no_parallax_but_depth_is(keyframe, decide):
    last = keyframe(range(1, 201))
    turn = Rotation.from_rotvec([0.02, 0.1, 0.03]).as_matrix()
    rays = CAMERA.bearings(last.obs.pixels)
    turned = CAMERA.project(rays @ turn.T)
    assert np.median(np.linalg.norm(turned - last.obs.pixels, axis=1)) > 40
    assert parallax(last.obs.pixels, turned, CAMERA) < 0.01
    assert not decide(last, turned, last.obs.tracks)
    depth = np.random.default_rng(2).uniform(2, 8, (200, 1))
    moved = CAMERA.project(rays * depth + [1.0, 0.0, 0.0])
    assert parallax(last.obs.pixels, moved, CAMERA) > 20
    assert decide(last, moved, last.obs.tracks)


def test_without_calibration_the_common_shift_is_removed():
    places = np.random.default_rng(3).uniform(0, 300, (50, 2))
    assert parallax(places, places + np.array([80.0, -20.0]), None) < 1e-9


def test_rows_of_finds_tracks_and_says_minus_one_otherwise(keyframe):
    view = keyframe([0, 7, 0, 3, 9])
    rows = view.obs.rows_of(np.array([3, 0, 9, 8, 7, 10]))
    assert rows.tolist() == [3, -1, 4, -1, 1, -1]
    assert keyframe([]).obs.rows_of(np.array([1, 0])).tolist() == [-1, -1]


def test_a_track_twice_in_one_keyframe_is_refused(keyframe):
    with pytest.raises(ValueError, match="same track"):
        keyframe([4, 0, 4])


def test_select_keeps_rows_together(observations):
    view = observations([5, 0, 6, 7])
    part = view.select(np.array([0, 3]))
    assert part.tracks.tolist() == [5, 7]
    assert part.channels.tolist() == [0, 3]
    np.testing.assert_array_equal(part.pixels, view.pixels[[0, 3]])


def test_columns_of_different_lengths_are_refused(observations):
    with pytest.raises(ValueError, match="one length"):
        replace(observations([1, 2]), scores=np.zeros(3, np.float32))


def test_keypoints_without_a_bearing_do_not_count_for_parallax():
    fisheye = Camera(640, 480, [[150, 0, 320], [0, 150, 240], [0, 0, 1]], [0] * 4, "equidistant")
    rng = np.random.default_rng(0)
    rays = np.column_stack([rng.uniform(-1, 1, (40, 2)), np.ones(40)])
    before = fisheye.project(rays)
    after = fisheye.project(rays * rng.uniform(2, 8, (40, 1)) + [0.5, 0.0, 0.0])
    expected = parallax(before, after, fisheye)
    assert expected > 3
    blind = rng.uniform([0, 0], [60, 60], (30, 2))
    both = [np.concatenate([places, blind]) for places in (before, after)]
    assert parallax(*both, fisheye) == expected
    assert parallax(blind, blind + np.array([5.0, 0.0]), fisheye) < 1e-9  # as without a calibration


def test_the_network_is_asked_as_early_as_its_answer_takes(keyframe, observations):
    """A tenth of the tracks lost in 0.1 s: half of them are, after half a second."""
    last = keyframe(range(1, 101))
    view = View(last.stamp + SECOND // 10, CAMERA, (), None, np.empty((0, 0), np.float32))
    shift = np.array([3.0, 0.0])
    obs = observations(last.obs.tracks[:90], last.obs.pixels[:90] + shift)
    config = replace(CONFIG, min_tracked_share=0.5, max_interval=10.0, min_parallax=1e6)
    assert not is_keyframe([last], view, obs, config)
    assert not will_be_keyframe([last], view, obs, config, 0.0)
    assert not will_be_keyframe([last], view, obs, config, 0.38)
    assert will_be_keyframe([last], view, obs, config, 0.42)
    soon = replace(config, min_tracked_share=0.1, max_interval=0.5)
    assert not will_be_keyframe([last], view, obs, soon, 0.38)
    assert will_be_keyframe([last], view, obs, soon, 0.42)
