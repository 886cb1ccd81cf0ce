"""Points and cameras by hand, and by the verb on the synthetic sequence."""

import cv2
import numpy as np
import pytest

from d2_ros.camera import Camera
from d2_ros.config import Config, with_values
from d2_ros.errors import D2RosError
from d2_ros.evaluation.reconstruction import (
    METHODS,
    camera_error,
    graphs,
    reconstruct,
    record,
    true_poses,
)
from d2_ros.export.view_graph import View, ViewGraph, track_pairs
from d2_ros.sources import open_source

pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed (extra mapping)")

CAMERA = Camera(640, 480, [[500, 0, 319.5], [0, 500, 239.5], [0, 0, 1]], [])


def seen(noise, count=200, views=8, seed=0):
    """Graph and poses of cameras around points, observed with a normal error (px)."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-1, -0.7, 3], [1, 0.7, 5], (count, 3))
    poses = np.tile(np.eye(4), (views, 1, 1))
    poses[:, :3, 3] = rng.uniform([-0.8, -0.4, -0.4], [0.8, 0.4, 0.4], (views, 3))
    pixels = [CAMERA.project(points - pose[:3, 3]) for pose in poses]
    pixels = [here + rng.normal(0, noise, here.shape) for here in pixels]
    frames = (View(n, (640, 480), CAMERA, here) for n, here in enumerate(pixels))
    return ViewGraph(tuple(frames), track_pairs([1 + np.arange(count)] * views)), poses


def test_the_error_is_the_noise_of_the_observations():
    graph, poses = seen(noise=0.5)
    result = reconstruct(graph, poses)
    # 16 numbers of a point less its 3: a Rayleigh distribution of mean 0.5 sqrt(pi / 2 * 13 / 16).
    assert result.figures["reprojection_error_px"] == pytest.approx(0.565, rel=0.03)
    assert result.figures["points"] == len(result.errors) == 200
    assert result.figures["observations"] == result.figures["adjusted_observations"] == 1600
    assert result.figures["mean_track_length"] == 8
    assert result.figures["points_below_1px"] == pytest.approx(np.mean(result.errors < 1))
    adjusted = result.figures["adjusted_reprojection_error_px"]
    assert 0.9 < adjusted / result.figures["reprojection_error_px"] < 1
    assert 0.2 < result.figures["camera_error_mm"] < 5


def test_half_the_noise_is_half_the_error():
    far, near = (reconstruct(*seen(noise)).figures for noise in (0.5, 0.25))
    for name in ("reprojection_error_px", "adjusted_reprojection_error_px", "camera_error_mm"):
        assert near[name] == pytest.approx(far[name] / 2, rel=0.05), name


def test_the_same_observations_give_the_same_figures():
    assert reconstruct(*seen(0.5)).figures == reconstruct(*seen(0.5)).figures


def test_a_method_without_matches_has_no_points():
    graph, poses = seen(0.5)
    result = reconstruct(ViewGraph(graph.views, {}), poses)
    assert result.figures == {"points": 0, "observations": 0}


def test_cameras_are_held_against_the_truth_after_alignment():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(20, 3))
    turn = cv2.Rodrigues(np.array([0.3, -0.4, 0.5]))[0]
    assert camera_error(3 * true @ turn.T + 7, true) == pytest.approx(0, abs=1e-12)
    off = rng.normal(0, 0.01, true.shape)
    assert camera_error((true + off) @ turn.T, true) == pytest.approx(0.0167, abs=0.002)
    line = np.outer(np.arange(4.0), [1, 0, 0])
    assert camera_error(line[:1], true[:1]) is None


def test_what_cannot_be_judged_is_told():
    with pytest.raises(D2RosError, match="photos has no ground-truth poses"):
        true_poses(None, "photos")
    with pytest.raises(D2RosError, match="the camera of photos stands still"):
        true_poses(np.tile(np.eye(4), (5, 1, 1)), "photos")


def test_every_method_sees_the_same_frames_with_as_many_keypoints():
    from d2_ros.frontend import FrontEnd

    config = with_values(Config(), {"window.min_tracked_share": 1.0, "threads": 1})
    recording = record(open_source("synthetic:size=160x120,frames=4"), FrontEnd(config))
    found = graphs(recording)
    assert list(found) == list(METHODS)
    counts = {name: [len(v.keypoints) for v in graph.views] for name, graph in found.items()}
    assert counts["d2"] == counts["d2_matches"] == counts["d2_detected"]
    for ours, sift, klt in zip(counts["d2"], counts["sift"], counts["klt"], strict=True):
        assert 0.3 * ours < sift <= ours + 5  # it finds fewer, and keeps all of equal strength
        assert 0.5 * ours < klt <= ours
    assert set(found["sift"].pairs) == set(found["d2_matches"].pairs)
    for graph in found.values():
        assert [view.stamp for view in graph.views] == [f.stamp for f in recording.frames]
