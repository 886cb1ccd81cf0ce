"""The whole front-end on the synthetic sequence: promises that hold for every frame."""

from __future__ import annotations

import itertools
from itertools import islice

import cv2
import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from d2_ros.camera import Camera
from d2_ros.config import Config, with_values
from d2_ros.errors import D2RosError
from d2_ros.evaluation.accuracy import accuracy_figures, track_errors
from d2_ros.features.batch import features_of
from d2_ros.frontend import FrontEnd
from d2_ros.matching.verification import verify
from d2_ros.sources.synthetic import open_synthetic
from d2_ros.tracks.measurement import measure_links

FRAMES = 14


@pytest.fixture(scope="module")
def source():
    return open_synthetic(f"size=320x240,frames={FRAMES}")


@pytest.fixture(scope="module")
def config():
    return with_values(
        Config(),
        {"window.size": 3, "window.min_tracked_share": 0.95, "features.max_keypoints": 350},
    )


@pytest.fixture(scope="module")
def frontend(config):
    return FrontEnd(config)


@pytest.fixture(scope="module")
def results(source, frontend):
    frontend.reset()
    return [frontend.process(frame.image, frame.stamp, frame.camera) for frame in source]


def stamp_of(rows, prefix=""):
    return rows[f"{prefix}sec"].astype(np.int64) * 10**9 + rows[f"{prefix}nanosec"]


def test_refined_positions_are_true_to_a_quarter_pixel(source, results):
    errors = track_errors([(result.stamp, result.features) for result in results], source)
    figures = accuracy_figures(errors)
    assert figures["observations"] > 1500
    assert figures["median_error_px"] < 0.15
    assert figures["median_error_px"] < figures["median_error_detected_px"] / 4


def test_track_ids_are_unique_per_frame_and_start_at_one(results):
    seen = set()
    for result in results:
        ids = result.features["track_id"]
        ids = ids[ids > 0]
        assert len(np.unique(ids)) == len(ids)
        seen |= set(ids.tolist())
    assert min(seen) == 1


def test_frames_keep_within_the_limit_and_keep_their_tracks(results, config):
    for before, after in itertools.pairwise(results):
        assert len(after.features) <= config.features.max_keypoints
        ours = before.features["track_id"]
        still = np.isin(ours[ours > 0], after.features["track_id"])
        assert still.mean() > 0.5


def test_lengths_count_the_frames_in_which_a_track_was_published(results):
    counted: dict[int, int] = {}
    for result in results:
        for row in result.features[result.features["track_id"] > 0]:
            counted[row["track_id"]] = counted.get(row["track_id"], 0) + 1
            assert row["track_length"] == counted[row["track_id"]]
        assert (result.features["track_length"][result.features["track_id"] == 0] == 0).all()


def test_keyframes_publish_the_window_and_only_they(results, config):
    keyframes: list[int] = []
    for result in results:
        assert (result.tracks is not None) == result.is_keyframe
        if result.is_keyframe:
            keyframes.append(result.stamp)
            expected = keyframes[-config.window.size :]
            assert set(stamp_of(result.tracks).tolist()) == set(expected)
            newest = result.tracks[stamp_of(result.tracks) == result.stamp]
            features = result.features[newest["index"]]
            np.testing.assert_array_equal(newest["track_id"], features["track_id"])
            np.testing.assert_array_equal(newest["u"], features["u"])
    assert len(keyframes) > config.window.size  # the window has moved on


def test_refined_flag_says_whether_the_position_was_moved(results):
    for before, after in itertools.pairwise(results):
        rows = after.features
        still = (rows["u"] == rows["u_detected"]) & (rows["v"] == rows["v_detected"])
        np.testing.assert_array_equal(rows["refined"] == 0, still)
        again = np.isin(rows["track_id"], before.features["track_id"]) & (rows["track_id"] > 0)
        assert (rows["refined"][again] == 1).all()


def test_roots_stay_where_they_were_published(results):
    """A track's first observation is its anchor as long as it is in the window."""
    first = {}
    for result in results:
        for row in result.features[result.features["track_id"] > 0]:
            first.setdefault(row["track_id"], (result.stamp, row["u"], row["v"]))
        if result.tracks is not None:
            for row, stamp in zip(result.tracks, stamp_of(result.tracks), strict=True):
                begun, u, v = first[row["track_id"]]
                if stamp == begun:
                    assert abs(row["u"] - u) < 1e-3
                    assert abs(row["v"] - v) < 1e-3


def test_the_first_observation_is_as_certain_as_the_track_that_it_defines(results):
    first, seen = {}, 0
    for result in results:
        for row in result.features[result.features["track_id"] > 0]:
            first.setdefault(row["track_id"], result.stamp)
        if result.tracks is None:
            continue
        begun = [first[track] for track in result.tracks["track_id"].tolist()]
        roots = result.tracks[stamp_of(result.tracks) == begun]
        assert np.all(roots["sigma_uu"] == np.float32(0.05**2))
        assert np.all(roots["sigma_vv"] == np.float32(0.05**2))
        assert np.all(roots["sigma_uv"] == 0)
        seen += len(roots)
    assert seen > 300


def test_matches_point_to_rows_that_exist_and_repeat_their_places(results):
    by_stamp = {result.stamp: result for result in results}
    for result in results:
        rows = result.matches
        features = result.features[rows["index"]]
        np.testing.assert_array_equal(rows["u"], features["u"])
        for stamp in np.unique(stamp_of(rows, "keyframe_")):
            keyframe = by_stamp[stamp]
            assert keyframe.is_keyframe
            linked = rows[stamp_of(rows, "keyframe_") == stamp]
            there = keyframe.features[linked["keyframe_index"]]
            moved = np.hypot(linked["keyframe_u"] - there["u"], linked["keyframe_v"] - there["v"])
            assert np.median(moved) < 0.1
            shared = (there["track_id"] > 0) & (
                there["track_id"] == result.features[linked["index"]]["track_id"]
            )
            assert linked["inlier"][shared].mean() > 0.9


def test_covariances_are_positive_definite(results):
    for result in results:
        rows = result.features
        determinant = rows["sigma_uu"] * rows["sigma_vv"] - rows["sigma_uv"] ** 2
        assert (determinant > 0).all()
        assert (rows["sigma_uu"] > 0).all()


def test_same_frames_same_bytes(source, config, frontend, results):
    again = FrontEnd(config, frontend.extractor)
    for frame, expected in zip(list(source)[:5], results, strict=False):
        result = again.process(frame.image, frame.stamp, frame.camera)
        assert result.features.tobytes() == expected.features.tobytes()
        assert result.matches.tobytes() == expected.matches.tobytes()


def test_predicted_places_that_were_not_measured_do_not_vote(source, config, monkeypatch):
    """They agree with the motion that predicted them, whatever the images show."""
    asked, seen = [], {}

    def verified(pixels, *arguments):
        asked.append((pixels, arguments[3]))
        return verify(pixels, *arguments)

    def measured(found, links, *arguments):
        result = measure_links(found, links, *arguments)
        seen["places"], seen["measured"] = found.obs.detected, links.index[result.link]
        return result

    def extracted(*arguments):
        features = features_of(*arguments)
        seen["detections"] = len(features.keypoints)
        return features

    monkeypatch.setattr("d2_ros.tracks.geometry.verify", verified)
    monkeypatch.setattr("d2_ros.refinement.placement.measure_links", measured)
    monkeypatch.setattr("d2_ros.extraction.features_of", extracted)
    frontend, predictions, votes = FrontEnd(config), 0, 0
    for frame in islice(source, 8):
        asked.clear()
        seen.clear()
        noisy = np.random.default_rng(0).normal(frame.image, 25).clip(0, 255).astype(np.uint8)
        frontend.process(noisy, frame.stamp, frame.camera)
        if not seen.get("places", np.empty(0)).size:
            continue
        rows = np.arange(len(seen["places"]))
        guesses = rows[(rows >= seen["detections"]) & ~np.isin(rows, seen["measured"])]
        predictions += len(guesses)
        finally_asked = [p for p, limit in asked if limit == config.matching.max_error]
        voters = {tuple(place) for part in finally_asked for place in part}
        votes += len(voters)
        assert not voters & {tuple(place) for place in seen["places"][guesses]}
    assert predictions > 100
    assert votes > 100


def test_reset_never_reuses_a_track_id(source, config, frontend):
    fresh = FrontEnd(config, frontend.extractor)
    frame = next(iter(source))
    first = fresh.process(frame.image, frame.stamp, frame.camera)
    fresh.reset()
    second = fresh.process(frame.image, frame.stamp, frame.camera)  # time may start again
    assert second.features["track_id"].max() > 0
    old, new = (set(r.features["track_id"].tolist()) - {0} for r in (first, second))
    assert not old & new


def test_bad_frames_are_refused_and_leave_the_window_unharmed(source, config, frontend):
    fresh = FrontEnd(config, frontend.extractor)
    frames = list(source)
    fresh.process(frames[0].image, frames[0].stamp, frames[0].camera)
    other = Camera(640, 480, frames[0].camera.matrix, frames[0].camera.distortion)
    with pytest.raises(D2RosError, match="640x480 but the image is 320x240"):
        fresh.process(frames[1].image, frames[1].stamp, other)
    with pytest.raises(D2RosError, match="not later"):
        fresh.process(frames[1].image, frames[0].stamp, frames[1].camera)
    result = fresh.process(frames[1].image, frames[1].stamp, frames[1].camera)
    assert result.features["refined"].sum() > 100


def test_without_calibration_bearings_are_unknown(source, config, frontend):
    fresh = FrontEnd(config, frontend.extractor)
    frames = list(source)[:2]
    for frame in frames:
        result = fresh.process(frame.image, frame.stamp)
    assert np.isnan(result.features["x"]).all()
    assert result.matches["inlier"].sum() > 100


@pytest.mark.parametrize("value", [0, 255])
def test_blank_frames_give_no_tracks_and_do_not_end_the_run(source, config, frontend, value):
    fresh = FrontEnd(config, frontend.extractor)
    frames = list(source)[:3]
    fresh.process(frames[0].image, frames[0].stamp, frames[0].camera)
    blank = np.full_like(frames[1].image, value)
    result = fresh.process(blank, frames[1].stamp, frames[1].camera)
    assert result.features["refined"].sum() == 0
    fresh.process(frames[2].image, frames[2].stamp, frames[2].camera)


def test_refinement_off_publishes_detected_positions(source, config, frontend):
    plain = FrontEnd(with_values(config, {"refinement.enabled": False}), frontend.extractor)
    for frame in list(source)[:3]:
        rows = plain.process(frame.image, frame.stamp, frame.camera).features
        np.testing.assert_array_equal(rows["u"], rows["u_detected"])
        assert not rows["refined"].any()
    assert (rows["track_length"] > 1).sum() > 50


SIMULATED = np.random.default_rng(0).uniform(0, 256, (16, 20)).repeat(6, 0).repeat(6, 1)


@pytest.mark.filterwarnings("error")
@settings(max_examples=4, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    blur=st.sampled_from([0.0, 1.5]),
    flat=st.sampled_from([0.0, 0.5, 1.0]),
    path=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=3, max_size=3),
)
@example(blur=1.5, flat=0.0, path=[(5, 5)] * 3)  # identical frames
@example(blur=1.5, flat=0.0, path=[(0, 0), (4, 3), (8, 6)])  # exact shifts
@example(blur=0.0, flat=0.5, path=[(0, 0), (3, 0), (6, 0)])
def test_every_covariance_without_noise_is_finite_and_positive_definite(
    frontend, results, blur, flat, path
):  # `results` first: they are of the same front-end
    # A simulator's images: 28 of 112 rows were singular, and shifts of whole pixels gave NaN.
    picture = cv2.GaussianBlur(SIMULATED, (0, 0), blur) if blur else SIMULATED.copy()
    picture[: int(flat * len(picture))] = 128
    frontend.reset()
    for stamp, (u, v) in enumerate(path, 1):
        result = frontend.process(picture[v : v + 72, u : u + 96].round().astype(np.uint8), stamp)
        for rows in (result.features, result.tracks):
            if rows is not None and len(rows):
                uu, uv, vv = (rows[f"sigma_{axes}"].astype(float) for axes in ("uu", "uv", "vv"))
                assert np.isfinite(uu + uv + vv).all()
                assert (np.minimum(uu, vv) > 0).all()
                assert (uu * vv - uv**2 > 1e-3 * uu * vv).all()
