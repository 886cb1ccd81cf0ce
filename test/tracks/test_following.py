"""Frames that are followed without the network."""

from __future__ import annotations

import numpy as np
import pytest

from d2_ros.config import Config, with_values
from d2_ros.evaluation.accuracy import accuracy_figures, track_errors
from d2_ros.features.extractor import Extractor
from d2_ros.frontend import FrontEnd
from d2_ros.sources.synthetic import open_synthetic
from d2_ros.tracks.following import flow
from d2_ros.tracks.policy import may_follow

KEYFRAMES = with_values(
    Config(), {"features.extract": "keyframes", "features.max_keypoints": 350, "window.size": 3}
)


@pytest.fixture(scope="module")
def source():
    return list(open_synthetic("size=320x240,frames=12"))


@pytest.fixture(scope="module")
def extractor():
    return Extractor(KEYFRAMES)


@pytest.fixture
def run(extractor, monkeypatch):
    """Process frames; which of them the network has seen is told as well."""

    def process(frames, config=KEYFRAMES):
        frontend, results, asked = FrontEnd(config, extractor), [], []
        for number, frame in enumerate(frames):

            def respond(images, watch=None, number=number):
                asked.append(number)
                return Extractor.respond(extractor, images, watch)

            monkeypatch.setattr(extractor, "respond", respond)
            results.append(frontend.process(frame.image, frame.stamp, frame.camera))
        return results, asked

    return process


def test_places_are_carried_over_and_lost_ones_told():
    rng = np.random.default_rng(0)
    noise = rng.normal(128, 60, (60, 80)).clip(0, 255).astype(np.float32)
    image = np.kron(noise, np.ones((4, 4), np.float32))[:200, :280].astype(np.uint8)
    moved = np.roll(image, (3, -5), (0, 1))
    places = rng.uniform(40, 160, (50, 2))
    there, found = flow(image, moved, places)
    assert found.mean() > 0.9
    assert np.median(np.linalg.norm(there[found] - places[found] - [-5, 3], axis=1)) < 0.05
    _, found = flow(image, np.full_like(image, 128), places)
    assert not found.any()
    assert len(flow(image, moved, np.empty((0, 2)))[0]) == 0


def test_followed_frames_are_as_exact_as_extracted_ones(source, run):
    truth = open_synthetic("size=320x240,frames=12")
    errors, lengths = {}, {}
    for extract in ("every_frame", "keyframes"):
        results, asked = run(source, with_values(KEYFRAMES, {"features.extract": extract}))
        assert asked == [n for n, result in enumerate(results) if not result.followed]
        published = [(result.stamp, result.features) for result in results]
        errors[extract] = accuracy_figures(track_errors(published, truth))
        lengths[extract] = [(result.features["track_id"] > 0).sum() for result in results]
    assert len(asked) <= 5  # of twelve, three of which are blurred
    for figure in ("median_error_px", "p90_error_px"):
        assert errors["keyframes"][figure] < 1.1 * errors["every_frame"][figure]
    assert np.mean(lengths["keyframes"]) > 0.85 * np.mean(lengths["every_frame"])


def test_rows_of_a_followed_frame_are_its_tracks_alone(source, run):
    results, _ = run(source[:4])
    followed = [result for result in results if result.followed]
    assert followed
    for result in followed:
        rows = result.features
        assert (rows["track_id"] > 0).all()
        assert (rows["score"] == 0).all()
        assert len(np.unique(rows["track_id"])) == len(rows)
        assert len(result.descriptors) == 0
        assert not result.is_keyframe
        assert result.tracks is None
        assert (result.matches["inlier"] > 0).mean() > 0.9
        assert np.isfinite(result.matches["similarity"]).all()
        assert (np.linalg.det(
            np.array([[rows["sigma_uu"], rows["sigma_uv"]], [rows["sigma_uv"], rows["sigma_vv"]]]).T
        ) > 0).all()  # fmt: skip


def test_the_network_looks_where_following_fails(source, run):
    """A flash, and a jump to the far end of the sequence and back."""
    far = list(open_synthetic("size=320x240,frames=4,rate=1"))[3]
    jump = type(far)(source[4].stamp, far.image, far.camera)
    flash = type(far)(source[3].stamp, np.full_like(far.image, 255), far.camera)
    results, asked = run([*source[:3], flash, jump, *source[5:7]])
    assert {3, 4, 5} <= set(asked)
    assert not results[3].followed


def test_after_the_longest_interval_the_network_looks(source, run):
    between = (source[1].stamp - source[0].stamp) * 1e-9
    _, asked = run(source[:5], with_values(KEYFRAMES, {"window.max_interval": 1.5 * between}))
    assert asked == [0, 2, 4]


@pytest.mark.parametrize(
    "values",
    [
        {"features.extract": "every_frame"},
        {"output.descriptors": "uint8"},
        {"refinement.enabled": False},
        {"alignment.mode": "features"},
    ],
)
def test_what_only_the_network_gives_is_not_followed(values):
    assert may_follow(KEYFRAMES)
    assert not may_follow(with_values(KEYFRAMES, values))


def test_same_frames_same_bytes(source, run):
    twice = [run(source[:6])[0] for _ in range(2)]
    for one, other in zip(*twice, strict=True):
        assert one.features.tobytes() == other.features.tobytes()
        assert one.matches.tobytes() == other.matches.tobytes()
