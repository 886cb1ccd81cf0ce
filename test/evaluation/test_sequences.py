"""The run over a sequence, with a front-end that knows the truth."""

from dataclasses import replace

import numpy as np
import pytest

from d2_ros.config import Config
from d2_ros.evaluation.sequences import METHODS, run_sequence, sequence_figures
from d2_ros.evaluation.stages import as_published, stage_points
from d2_ros.records import FEATURES, MATCHES, FrameResult, split_stamp
from d2_ros.sources.synthetic import open_synthetic

SOURCE = open_synthetic("size=160x120,frames=8")
DETECTED = np.array([0.5, -1.0])


def result(stamp, ids, pixels, offset=DETECTED, matches=None):
    rows = np.zeros(len(ids), FEATURES)
    rows["track_id"] = ids
    rows["u"], rows["v"] = pixels.T
    rows["u_detected"], rows["v_detected"] = (pixels + offset).T
    rows["sigma_uu"] = rows["sigma_vv"] = 0.01
    matches = np.zeros(0, MATCHES) if matches is None else matches
    return FrameResult(stamp, False, rows, matches, None, np.zeros((len(ids), 512), np.float32))


def match_rows(stamp, index, keyframe_index, places, keyframe_places, inlier):
    rows = np.zeros(len(index), MATCHES)
    rows["index"], rows["keyframe_index"], rows["inlier"] = index, keyframe_index, inlier
    rows["keyframe_sec"], rows["keyframe_nanosec"] = split_stamp(stamp)
    rows["u"], rows["v"] = np.transpose(places)
    rows["keyframe_u"], rows["keyframe_v"] = np.transpose(keyframe_places)
    return rows


class Oracle:
    """Tracks random surface points of the first frame to their exact places."""

    def __init__(self):
        self.config = Config()
        self.pixels = np.random.default_rng(0).uniform([5, 5], [154, 114], (150, 2))

    def reset(self):
        pass

    def process(self, image, stamp, camera=None):
        there, visible = SOURCE.locate(0, self.pixels, SOURCE.stamps.index(stamp))
        ids = 1 + np.flatnonzero(visible)
        offset = np.random.default_rng(stamp % 1000 + 1).normal(0, 2, (len(ids), 2))
        return result(stamp, ids, there[visible], offset)


def test_exact_tracks_are_judged_exact():
    outcome = run_sequence(SOURCE, SOURCE.poses(), Oracle(), gap=4, every=2)
    assert set(outcome.pairs) == set(outcome.tracks) == set(METHODS)
    assert {len(found) for found in outcome.pairs.values()} == {2}  # 0-4 and 2-6
    figures, whole = sequence_figures(outcome, SOURCE, SOURCE.poses())
    exact = figures["d2"]
    assert exact["median_epipolar_px"] < 1e-4  # positions are published as float32
    assert exact["share_below_1px"] == 1
    assert exact["rotation_error_deg"] < 0.05
    assert exact["mean_track_length"] > 6
    assert exact["coverage"] > 0.3
    assert figures["d2_detected"]["median_epipolar_px"] > 0.1
    assert figures["d2_detected"]["inlier_matches"] < exact["inlier_matches"]
    assert figures["sift"]["inlier_matches"] > 20
    assert 0 < figures["sift"]["median_epipolar_px"] < 1
    assert 0 < figures["klt"]["median_epipolar_px"] < 1
    assert figures["klt150"]["active_tracks"] < figures["klt"]["active_tracks"]
    assert whole["frames"] == 8
    assert whole["median_error_px"] < 1e-3
    assert whole["share_inside_50pct_ellipse"] == 1
    assert whole["median_error_from_4th_px"] < 1e-3
    assert figures["d2"]["survival_exposure"] > figures["sift"]["survival_exposure"]
    assert figures["d2"]["survival_exposure"] == figures["d2"]["survival_exposure_correct"]


class Uncalibrated:
    """The frames of the sequence, without their calibration; no poses."""

    name = "uncalibrated"

    def __iter__(self):
        return (replace(frame, camera=None) for frame in SOURCE)

    def __len__(self):
        return len(SOURCE)

    def poses(self):
        return None


def test_without_ground_truth_the_tracks_are_left():
    source = Uncalibrated()
    outcome = run_sequence(source, source.poses(), Oracle(), gap=2, every=1)
    assert not outcome.pairs
    figures, whole = sequence_figures(outcome, source, None)
    assert figures["d2"]["mean_track_length"] > 6
    assert "median_epipolar_px" not in figures["d2"]
    assert whole == {"frames": 8}


def test_a_pose_that_is_unknown_leaves_its_pairs_out():
    poses = SOURCE.poses()
    poses[4] = np.nan
    outcome = run_sequence(SOURCE, poses, Oracle(), gap=4, every=2)
    assert {len(found) for found in outcome.pairs.values()} == {1}


SHAPES = ((120, 160), (120, 160))


def test_tracks_and_match_rows_are_joined_once():
    first = result(10**9, [4, 0, 7, 8], np.array([[10.0, 1], [20, 2], [30, 3], [40, 4]]))
    # Track 7 is also in a match row, row 1 of the first frame only there.
    rows = match_rows(
        10**9, [0, 2, 3], [2, 1, 3], [[31, 3], [21, 2], [41, 4]], [[30.25, 3], [20, 2], [40, 4]],
        [1, 1, 0],
    )  # fmt: skip
    places = np.array([[31.0, 3], [11, 1], [21, 2], [41, 4]])
    second = result(2 * 10**9, [7, 4, 0, 0], places, matches=rows)
    found = stage_points(first.features, second, 10**9, SHAPES, 1600)
    np.testing.assert_array_equal(found["d2"][0], [[30.25, 3], [20, 2], [10, 1]])
    np.testing.assert_array_equal(found["d2"][1], [[31, 3], [21, 2], [11, 1]])
    np.testing.assert_array_equal(found["d2_detected"][0], [[30.5, 2], [20.5, 1], [10.5, 0]])
    np.testing.assert_array_equal(found["d2_published"][1], [[29.5, 0], [19.5, -1], [9.5, -2]])
    other = stage_points(first.features, second, 5, SHAPES, 1600)
    assert len(other["d2"][0]) == 2  # not that frame's match rows: tracks 4 and 7 are left


def test_published_positions_move_with_the_resize():
    places = np.array([[10.0, 20.0]])
    np.testing.assert_array_equal(as_published(places, (480, 640, 3), 1600), [[8, 18]])
    np.testing.assert_array_equal(as_published(places, (2400, 3200), 1600), [[6, 16]])


class Still:
    """Eight times the same image, from a static camera."""

    name = "still"

    def __iter__(self):
        image = next(iter(SOURCE)).image
        return (replace(frame, image=image) for frame in SOURCE)

    def __len__(self):
        return len(SOURCE)

    def poses(self):
        return np.tile(np.eye(4), (len(SOURCE), 1, 1))


def test_a_static_camera_is_judged_by_the_first_places():
    class Noisy(Oracle):
        """Observations scattered as their covariances (0.01 px^2) say."""

        def process(self, image, stamp, camera=None):
            noise = 0.1 * (stamp != SOURCE.stamps[0])
            random = np.random.default_rng(SOURCE.stamps.index(stamp))
            off = random.normal(0, 1, self.pixels.shape) * noise
            return result(stamp, np.arange(1, 151), self.pixels + off)

    outcome = run_sequence(Still(), Still().poses(), Noisy(), gap=2, every=1)
    assert not outcome.pairs  # nothing moves: no epipolar geometry
    figures, whole = sequence_figures(outcome, Still(), Still().poses())
    assert whole["share_inside_50pct_ellipse"] == pytest.approx(0.5, abs=0.05)
    assert whole["share_inside_95pct_ellipse"] == pytest.approx(0.95, abs=0.03)
    assert figures["d2"]["scatter_px"] == pytest.approx(0.1, abs=0.015)
    assert figures["d2"]["survival_first_frame"] == 1
    assert figures["klt"]["scatter_px"] < 0.02
    # The same image eight times: there is no common motion to remove.
    beside = whole["share_inside_50pct_ellipse_common_motion_removed"]
    assert beside == pytest.approx(whole["share_inside_50pct_ellipse"], abs=0.02)
    still = figures["d2"]["scatter_common_motion_removed_px"]
    assert still == pytest.approx(figures["d2"]["scatter_px"], abs=0.005)
    assert "mean_move_common_motion_removed_px" in figures["klt150"]
