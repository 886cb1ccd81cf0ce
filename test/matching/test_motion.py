"""Local affine motion predicted from verified matches."""

from __future__ import annotations

import numpy as np

from d2_ros.matching.motion import predict

AFFINE = np.array([[1.1, 0.05], [-0.08, 0.95]])
SHIFT = np.array([12.0, -7.0])


def matches(noise, wrong, count=400):
    rng = np.random.default_rng(0)
    source = rng.uniform(0, 300, (count, 2))
    target = source @ AFFINE.T + SHIFT + rng.normal(0, noise, (count, 2))
    bad = rng.random(count) < wrong
    target[bad] += rng.normal(0, 40, (bad.sum(), 2))
    return source, target


def test_exact_matches_give_the_exact_affine():
    places = np.array([[150.0, 120.0], [10.0, 290.0]])
    warps = predict(places, *matches(0.0, 0.0))
    np.testing.assert_allclose(warps.pixels, places @ AFFINE.T + SHIFT, atol=1e-4)
    np.testing.assert_allclose(warps.affine, np.tile(AFFINE, (2, 1, 1)), atol=1e-4)


def test_noise_and_wrong_matches_are_averaged_out():
    places = np.random.default_rng(1).uniform(30, 270, (200, 2))
    warps = predict(places, *matches(1.5, 0.1))
    error = np.linalg.norm(warps.pixels - (places @ AFFINE.T + SHIFT), axis=1)
    assert np.median(error) < 1.0  # a single match is off by 1.9 in the median
    assert np.median(np.abs(warps.affine - AFFINE)) < 0.06


def test_too_few_matches_predict_nothing():
    source, target = matches(0.0, 0.0, count=5)
    assert predict(source, source, target) is None
