"""Errors of tracks whose true errors are known by construction."""

import numpy as np
import pytest

from d2_ros.errors import D2RosError
from d2_ros.evaluation.accuracy import accuracy_figures, track_errors
from d2_ros.records import FEATURES
from d2_ros.sources.synthetic import open_synthetic

SOURCE = open_synthetic("size=320x240,frames=40")


def rows(ids, refined, detected=None, sigma=(0.04, 0.0, 0.04)):
    """Rows of the features topic."""
    result = np.zeros(len(ids), FEATURES)
    result["track_id"] = ids
    result["u"], result["v"] = np.transpose(refined)
    names = ["u_detected", "v_detected"]
    result[names[0]], result[names[1]] = np.transpose(refined if detected is None else detected)
    result["sigma_uu"], result["sigma_uv"], result["sigma_vv"] = sigma
    return result


def random_pixels():
    pixels = np.random.default_rng(0).uniform([0, 0], [319, 239], (1000, 2))
    return pixels.astype(np.float32).astype(float)  # positions are published as float32


def visible_pixels(frame_a, frame_b, count=50):
    """Random pixels of frame a that frame b sees as well."""
    pixels = random_pixels()
    there, visible = SOURCE.locate(frame_a, pixels, frame_b)
    return pixels[visible][:count], there[visible][:count]


def test_perfect_tracks_have_no_error():
    first, there = visible_pixels(0, 7)
    ids = np.arange(1, 51)
    errors = track_errors(
        [(SOURCE.stamps[0], rows(ids, first)), (SOURCE.stamps[7], rows(ids, there))], SOURCE
    )
    assert len(errors.error) == 50  # first observations do not count
    assert errors.error.max() < 1e-4
    assert errors.error_detected.max() < 1e-4
    assert (errors.frame == 7).all()
    assert errors.visible.all()


def test_each_kind_of_position_is_held_against_its_own_first():
    first, there = visible_pixels(0, 7)
    ids = np.arange(1, 51)
    detected_first = np.add(first, [2.0, -1.0])
    detected_there, _ = SOURCE.locate(0, detected_first, 7)
    frames = [
        (SOURCE.stamps[0], rows(ids, first, detected_first)),
        (
            SOURCE.stamps[7],
            rows(ids, np.add(there, [0.3, 0.4]), np.add(detected_there, [0.0, 2.0])),
        ),
    ]
    errors = track_errors(frames, SOURCE)
    np.testing.assert_allclose(errors.error, 0.5, atol=1e-4)
    np.testing.assert_allclose(errors.error_detected, 2.0, atol=1e-4)
    np.testing.assert_allclose(errors.chi2, 0.25 / 0.04, rtol=1e-3)
    figures = accuracy_figures(errors)
    assert figures["median_error_px"] == pytest.approx(0.5, abs=1e-4)
    assert figures["p90_error_detected_px"] == pytest.approx(2.0, abs=1e-4)
    assert figures["share_below_1px"] == 1.0
    assert figures["share_detected_below_1px"] == 0.0
    assert figures["share_inside_95pct_ellipse"] == 0.0
    assert (figures["observations"], figures["frames"], figures["tracks"]) == (50, 2, 50)
    assert figures["mean_track_length"] == 2.0


def test_rows_without_a_track_do_not_count_and_gaps_do_no_harm():
    first, _ = visible_pixels(3, 12, 4)
    at = {frame: SOURCE.locate(3, first, frame)[0] for frame in (3, 5, 9)}
    frames = [
        (SOURCE.stamps[3], rows([7, 8, 0, 9], at[3])),
        (SOURCE.stamps[5], rows([9, 0, 7], at[5][[3, 2, 0]] + [1.0, 0.0])),
        (SOURCE.stamps[6], rows([], np.empty((0, 2)))),
        (SOURCE.stamps[9], rows([7, 0], at[9][[0, 2]] + [0.0, 3.0])),
    ]
    errors = track_errors(frames, SOURCE)
    assert errors.frame.tolist() == [5, 5, 9]
    assert errors.track_id.tolist() == [9, 7, 7]
    assert errors.age.tolist() == [1, 1, 2]
    np.testing.assert_allclose(errors.error, [1, 1, 3], atol=1e-4)
    assert errors.lengths.tolist() == [3, 1, 2]  # tracks 7, 8 and 9
    assert errors.frames == 4


def test_hidden_observations_count_with_their_true_place():
    pixels = random_pixels()
    there, visible = SOURCE.locate(0, pixels, 30)
    hidden = np.isfinite(there).all(axis=1) & ~visible
    assert hidden.sum() > 50
    ids = np.arange(1, hidden.sum() + 1)
    frames = [
        (SOURCE.stamps[0], rows(ids, pixels[hidden])),
        (SOURCE.stamps[30], rows(ids, np.add(there[hidden], [4.0, 3.0]))),
    ]
    errors = track_errors(frames, SOURCE)
    np.testing.assert_allclose(errors.error, 5.0, atol=0.02)
    assert accuracy_figures(errors)["share_hidden"] == 1.0


class HalfBlind:
    """Sees nothing in the left half of frame 0."""

    stamps = SOURCE.stamps
    project = staticmethod(SOURCE.project)

    @staticmethod
    def surface(frame, pixels):
        points, planes = SOURCE.surface(frame, pixels)
        points[pixels[:, 0] < 160] = np.nan
        return points, planes


def test_observations_without_a_true_place_are_left_out():
    first, there = visible_pixels(0, 7)
    ids = np.arange(1, 51)
    frames = [(SOURCE.stamps[0], rows(ids, first)), (SOURCE.stamps[7], rows(ids, there))]
    errors = track_errors(frames, HalfBlind())
    assert set(errors.track_id) == set(ids[first[:, 0] >= 160])
    assert len(errors.lengths) == 50


def test_covariances_that_are_none_give_no_figure():
    first, there = visible_pixels(0, 7, 3)
    frames = [(SOURCE.stamps[0], rows([1, 2, 3], first))]
    bad = rows([1, 2, 3], np.add(there, [0.1, 0.0]))
    bad["sigma_uu"], bad["sigma_uv"] = [0.04, -1.0, 0.01], [0.0, 0.0, 0.02]
    bad["sigma_vv"] = [0.01, -1.0, 0.04]
    errors = track_errors([*frames, (SOURCE.stamps[7], bad)], SOURCE)
    assert np.isnan(errors.chi2).tolist() == [False, True, True]
    assert errors.chi2[0] == pytest.approx(0.25, rel=1e-2)
    assert accuracy_figures(errors)["median_chi2"] == pytest.approx(0.25, rel=1e-2)
    bad["sigma_uu"] = 0
    errors = track_errors([*frames, (SOURCE.stamps[7], bad)], SOURCE)
    assert "median_chi2" not in accuracy_figures(errors)


def test_honest_covariances_are_recognised():
    first, there = visible_pixels(0, 2, 400)
    sigma = np.array([[0.09, 0.03], [0.03, 0.04]])
    noise = np.random.default_rng(1).multivariate_normal([0, 0], sigma, 400)
    ids = np.arange(1, 401)
    told = rows(ids, there + noise, sigma=(0.09, 0.03, 0.04))
    frames = [(SOURCE.stamps[0], rows(ids, first)), (SOURCE.stamps[2], told)]
    figures = accuracy_figures(track_errors(frames, SOURCE))
    assert figures["share_inside_95pct_ellipse"] == pytest.approx(0.95, abs=0.03)
    assert figures["median_chi2"] == pytest.approx(1.386, abs=0.2)


def test_frames_of_another_sequence_are_refused():
    with pytest.raises(D2RosError, match="stamp 17 is no frame"):
        track_errors([(17, rows([], np.empty((0, 2))))], SOURCE)


def test_nothing_to_judge_is_said():
    first, _ = visible_pixels(0, 7, 3)
    for frames in ([], [(SOURCE.stamps[0], rows([1, 2, 3], first))]):
        with pytest.raises(D2RosError, match=f"in {len(frames)} frames"):
            accuracy_figures(track_errors(frames, SOURCE))
