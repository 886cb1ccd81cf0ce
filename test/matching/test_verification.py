"""Geometric verification on scenes whose inliers are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from d2_ros.camera import Camera
from d2_ros.matching.verification import verify

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
