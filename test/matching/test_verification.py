"""Geometric verification on scenes whose inliers are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from d2_ros.camera import Camera
from d2_ros.matching.verification import is_meaningful, verify

MATRIX = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
CAMERA = Camera(640, 480, MATRIX, np.array([-0.2, 0.05, 0.001, -0.001, 0.0]))
SCENES = {
    "depth": ((0.3, 0.0, 0.1), (2, 8)),
    "plane": ((0.3, 0.0, 0.1), (4, 4)),
    "rotation": ((0.0, 0.0, 0.0), (2, 8)),
}


def scene(kind, wrong, seed=0, count=500):
    rng = np.random.default_rng(seed)
    translation, depth = SCENES[kind]
    first = rng.uniform([20, 20], [620, 460], (count, 2))
    points = CAMERA.bearings(first) * rng.uniform(*depth, count)[:, None]
    turn = Rotation.from_rotvec([0.02, 0.05, 0.01]).as_matrix()
    second = CAMERA.project(points @ turn.T + translation) + rng.normal(0, 0.7, (count, 2))
    outlier = np.arange(count) < wrong * count
    second[outlier] = rng.uniform([0, 0], [640, 480], (outlier.sum(), 2))
    return first, second, outlier


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("kind", SCENES)
def test_keeps_inliers_and_drops_wrong_matches(kind, calibrated):
    first, second, outlier = scene(kind, wrong=0.4)
    camera = CAMERA if calibrated else None
    inlier = verify(second, first, camera, camera, 3.0, seed=0).inlier
    assert inlier[~outlier].mean() > 0.9
    assert inlier[outlier].mean() < 0.06


def test_planes_and_rotations_leave_no_room_along_the_epipolar_line():
    """A homography fixes both coordinates; an epipolar line only one."""
    for kind in ("plane", "rotation"):
        first, second, outlier = scene(kind, wrong=0.3)
        assert verify(second, first, CAMERA, CAMERA, 3.0, seed=0).inlier[outlier].mean() < 0.01


def test_residuals_are_distances_from_the_true_epipolar_lines():
    """0.7 px of noise on one of the two images; planes have no line to be held against."""
    first, second, outlier = scene("depth", wrong=0.2, count=1500)
    verdict = verify(second, first, CAMERA, CAMERA, 3.0, seed=0)
    inlier = verdict.inlier & ~outlier
    np.testing.assert_allclose(np.linalg.norm(verdict.normal[inlier], axis=1), 1)
    assert 0.6 < np.sqrt(np.mean(verdict.residual[inlier] ** 2)) < 0.9
    assert np.median(np.abs(verdict.residual[outlier])) > 10
    first, second, _ = scene("plane", wrong=0.0)
    assert np.isnan(verify(second, first, CAMERA, CAMERA, 3.0, seed=0).residual).all()


@pytest.mark.parametrize(
    ("name", "camera"), [("findEssentialMat", CAMERA), ("findFundamentalMat", None)]
)
def test_the_sign_and_the_factor_of_an_epipolar_geometry_say_nothing(monkeypatch, name, camera):
    """Residual and normal turn together: where the line lies relative to the match is the same."""
    first, second, _ = scene("depth", wrong=0.2)
    before = verify(second, first, camera, camera, 3.0, seed=0)
    estimate = getattr(cv2, name)

    def negative(*arguments):
        model, mask = estimate(*arguments)
        return -7 * model, mask

    monkeypatch.setattr(cv2, name, negative)
    after = verify(second, first, camera, camera, 3.0, seed=0)
    np.testing.assert_array_equal(after.inlier, before.inlier)
    assert np.isfinite(after.residual).all()
    offset, expected = (v.normal * v.residual[:, None] for v in (after, before))
    np.testing.assert_allclose(offset, expected, atol=1e-6)


def test_same_seed_same_answer():
    first, second, _ = scene("depth", wrong=0.5)
    masks = [verify(second, first, CAMERA, CAMERA, 2.0, seed=3).inlier for _ in range(3)]
    assert all((mask == masks[0]).all() for mask in masks)


def test_too_few_or_degenerate_matches_verify_nothing():
    first, second, _ = scene("depth", wrong=0.0, count=7)
    assert not verify(second, first, CAMERA, CAMERA, 2.0, seed=0).inlier.any()
    empty = np.empty((0, 2))
    assert verify(empty, empty, None, None, 2.0, seed=0).inlier.shape == (0,)
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 480, (2, 40, 2))
    assert verify(noise[0], noise[1], CAMERA, CAMERA, 0.5, seed=0).inlier.mean() < 0.4
    same = np.full((30, 2), 100.0)
    verify(same, same, CAMERA, CAMERA, 2.0, seed=0)  # must not throw


@pytest.mark.parametrize("max_error", [1.0, 4.0])
@pytest.mark.parametrize("calibrated", [True, False])
def test_chance_is_no_evidence(calibrated, max_error):
    """Fundamental matrices find up to 37 inliers among 200 matches that mean nothing."""
    camera = CAMERA if calibrated else None
    for count in (10, 20, 40, 80, 200):
        for seed in range(8):
            rng = np.random.default_rng(seed)
            first = rng.uniform([0, 0], [640, 480], (count, 2))
            anywhere = rng.uniform([0, 0], [640, 480], (count, 2))
            for second in (anywhere, first + rng.normal(0, 60, (count, 2))):
                inlier = verify(second, first, camera, camera, max_error, seed=seed).inlier
                assert not inlier.any(), (count, seed)


def test_twenty_right_matches_among_as_many_wrong_ones_are_evidence():
    for kind in SCENES:
        first, second, outlier = scene(kind, wrong=0.5, count=40)
        inlier = verify(second, first, CAMERA, CAMERA, 3.0, seed=0).inlier
        assert inlier[~outlier].sum() >= 15


@given(
    matches=st.integers(8, 2000),
    sample=st.sampled_from([4, 5, 7]),
    chance=st.floats(1e-6, 0.5),
    data=st.data(),
)
def test_more_matches_and_a_larger_reach_ask_for_more_inliers(matches, sample, chance, data):
    inliers = data.draw(st.integers(0, matches))
    if not is_meaningful(inliers, matches, sample, 3, chance):
        assert not is_meaningful(inliers, matches + 1, sample, 3, chance)
        assert not is_meaningful(inliers, matches, sample, 3, min(1.0, 2 * chance))
    assert not is_meaningful(matches, matches, sample, 1, 1.0)


def test_false_alarms_as_computed_by_hand():
    """2 (10 - 4) C(10, 6) C(6, 4) p^2 <= 0.001 for p <= sqrt(0.001 / 37800) = 1.626e-4."""
    assert is_meaningful(6, 10, 4, 2, 1.62e-4)
    assert not is_meaningful(6, 10, 4, 2, 1.63e-4)


FISHEYE = Camera(640, 480, [[150, 0, 320], [0, 150, 240], [0, 0, 1]], [0] * 4, "equidistant")


def test_matches_at_pixels_without_a_bearing_are_no_inliers_and_reach_no_estimator(monkeypatch):
    rng = np.random.default_rng(0)
    rays = np.column_stack([rng.uniform(-1, 1, (300, 2)), np.ones(300)])
    points = rays * rng.uniform(2, 8, (300, 1))
    first, second = FISHEYE.project(points), FISHEYE.project(points + np.array([0.3, 0.0, 0.1]))
    alone = verify(second, first, FISHEYE, FISHEYE, 1.0, seed=0)
    assert alone.inlier.mean() > 0.99
    # 60 more in the corners, 94 degrees and more from the axis, in one or both of the images.
    blind = rng.uniform([0, 0], [60, 60], (60, 2))
    assert np.isnan(FISHEYE.bearings(blind)).all()
    order = rng.permutation(360)
    first = np.concatenate([first, blind])[order]
    second = np.concatenate([second, blind[:30], second[:30]])[order]
    seen = []
    for name in ("findHomography", "findEssentialMat"):
        real = getattr(cv2, name)
        monkeypatch.setattr(
            cv2, name, lambda *given, real=real: (seen.append(given[:2]), real(*given))[1]
        )
    verdict = verify(second, first, FISHEYE, FISHEYE, 1.0, seed=0)
    assert seen
    assert all(np.isfinite(places).all() for given in seen for places in given)
    ours, known = verdict.inlier[np.argsort(order)], order < 300
    assert not ours[300:].any()
    assert ours[:300].mean() > 0.99
    assert np.isnan(verdict.residual[~known]).all()
    assert np.isfinite(verdict.residual[known]).all()


@pytest.mark.parametrize("known", [0, 7])
def test_too_few_matches_with_bearings_have_no_geometry(known):
    places = np.concatenate(
        [np.full((20, 2), 5.0), 300 + 9.0 * np.arange(2 * known).reshape(-1, 2)]
    )
    verdict = verify(places, places, FISHEYE, FISHEYE, 1.0, seed=0)
    assert not verdict.inlier.any()
    assert verdict.inlier.shape == (20 + known,)
