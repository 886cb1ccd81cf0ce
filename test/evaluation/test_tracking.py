"""Figures of tracks that were made up."""

import numpy as np
import pytest

from d2_ros.evaluation.peers import Observed
from d2_ros.evaluation.tracking import (
    is_static_camera,
    lengths,
    static_camera_figures,
    survival_figures,
    track_figures,
)


def seen(ids, pixels=None):
    places = np.zeros((len(ids), 2)) if pixels is None else np.asarray(pixels, float)
    return Observed(np.array(ids, np.int64), places)


def test_lengths_leave_out_what_was_seen_once():
    frames = [seen([1, 2, 0]), seen([0, 1, 3]), seen([]), seen([1, 3, 4]), seen([1])]
    assert sorted(lengths(frames)) == [2, 4]
    figures = track_figures(frames, (640, 480))
    assert figures["mean_track_length"] == 3
    assert figures["share_of_4_frames"] == 0.5
    assert figures["active_tracks"] == pytest.approx(6 / 5)


def test_no_tracks_at_all():
    figures = track_figures([seen([1]), seen([2, 0])], (640, 480))
    assert (figures["mean_track_length"], figures["active_tracks"], figures["coverage"]) == (0,) * 3
    assert len(lengths([])) == 0


def test_coverage_counts_cells_with_a_track():
    # 40 px cells, 16 x 12; two tracks share a cell, one point is no track.
    places = [[5, 5], [20, 20], [639.4, 479.4], [300, 300]]
    frames = [seen([1, 2, 3, 4], places), seen([1, 2, 3], [[-0.4, 0], [50, 5], [639.4, 479.4]])]
    assert track_figures(frames, (640, 480))["coverage"] == pytest.approx((2 + 3) / (2 * 192))


class Sideways:
    """Every point moves 2 px to the right per frame."""

    @staticmethod
    def locate(before, pixels, after):
        return np.add(pixels, [2.0 * (after - before), 0]), np.ones(len(pixels), bool)


def test_survival_compares_the_frames_around_the_stretch():
    before = seen([1, 2, 3, 4, 0], [[0, 0], [10, 0], [20, 0], [30, 0], [40, 0]])
    after = seen([3, 1, 9], [[28, 0], [6, 3.5], [0, 0]])  # true: (26, 0), (6, 0)
    frames = [seen([1]), before, seen([1]), seen([]), after]
    figures = survival_figures(frames, range(2, 4), Sideways(), "blur")
    assert figures == {"survival_blur": 0.5, "survival_blur_correct": 0.25}

    class Numbered(Sideways):
        @staticmethod
        def locate(before, pixels, after):
            assert (before, after) == (11, 14)
            return Sideways.locate(before, pixels, after)

    later = survival_figures(frames, range(12, 14), Numbered(), "blur", start=10)
    assert later == figures
    assert survival_figures(frames, range(2, 4), Sideways(), "blur", start=2) == {}
    assert survival_figures(frames, range(2, 5), Sideways(), "blur") == {}
    assert survival_figures(frames, range(2), Sideways(), "blur") == {}
    assert survival_figures(frames, range(3, 3), Sideways(), "blur") == {}


def test_a_camera_stands_if_its_known_poses_do():
    poses = np.tile(np.eye(4), (6, 1, 1))
    poses[:, 0, 3] = [0, 0.004, -0.003, 0, 0.002, np.nan]
    assert is_static_camera(poses)
    poses[2, 1, 3] = 0.02
    assert not is_static_camera(poses)
    assert not is_static_camera(None)


def test_scatter_and_drift_of_a_static_camera():
    random = np.random.default_rng(0)
    start = random.uniform(0, 400, (300, 2))
    ids = np.arange(1, 301)
    drift = np.array([0.03, 0.04])
    frames = [
        seen(ids[k:], (start + k / 9 * drift + random.normal(0, 0.2, start.shape))[k:])
        for k in range(10)
    ]
    figures = static_camera_figures(frames)
    assert figures["scatter_px"] == pytest.approx(0.2, abs=0.015)
    assert figures["mean_move_px"] == pytest.approx(0.05, abs=0.03)
    assert figures["median_move_px"] == pytest.approx(0.2 * np.sqrt(2) * 1.177, abs=0.05)
    assert figures["survival_first_frame"] == pytest.approx(291 / 300)


def test_tracks_that_began_later_do_not_count_as_static():
    frames = [seen([1], [[5, 5]]), seen([2], [[50, 5]]), seen([2], [[90, 5]])]
    assert static_camera_figures(frames) == {"survival_first_frame": 0.0}
