"""Covariances against epipolar distances."""

from __future__ import annotations

import numpy as np
import pytest

from d2_ros.refinement.consistency import epipolar_factors

SIGMA = 0.1
COVARIANCE = np.tile(SIGMA**2 * np.eye(2), (3, 1, 1))
RIGHT = np.array([1.0, 0.0])


def test_the_distance_counts_in_units_of_its_own_standard_deviation():
    owner = np.array([0, 1])
    factor = epipolar_factors(
        owner, np.array([SIGMA, 5 * SIGMA]), np.tile(RIGHT, (2, 1)), COVARIANCE
    )
    np.testing.assert_allclose(factor, [1.0, (1 + 25) / 2, 1.0])  # nothing is known of the third


def test_several_keyframes_are_averaged_and_nan_is_no_evidence():
    owner = np.array([0, 0, 0, 2])
    residual = np.array([3 * SIGMA, SIGMA, np.nan, np.nan])
    factor = epipolar_factors(owner, residual, np.tile(RIGHT, (4, 1)), COVARIANCE)
    np.testing.assert_allclose(factor, [(1 + (9 + 1) / 2) / 2, 1.0, 1.0])


def test_a_long_ellipse_along_the_normal_excuses_a_long_distance():
    long = np.array([np.diag([1.0, 1e-4])])
    along, across = (
        epipolar_factors(np.zeros(1, int), np.array([1.0]), normal[None], long)[0]
        for normal in (RIGHT, RIGHT[::-1])
    )
    assert along == pytest.approx(1.0)
    assert across > 1000


def test_honest_covariances_stay_as_they_are_on_average():
    rng = np.random.default_rng(0)
    count = 4000
    owner = np.repeat(np.arange(count), 3)
    residual = rng.normal(0, SIGMA, len(owner))
    covariance = np.tile(SIGMA**2 * np.eye(2), (count, 1, 1))
    factor = epipolar_factors(owner, residual, np.tile(RIGHT, (len(owner), 1)), covariance)
    assert factor.mean() == pytest.approx(1.0, abs=0.03)


def test_the_side_of_its_line_that_a_match_is_on_says_nothing():
    rng = np.random.default_rng(0)
    owner, residual, angle = rng.integers(0, 3, 50), rng.normal(size=50), rng.uniform(0, 7, 50)
    normal = np.column_stack([np.cos(angle), np.sin(angle)])
    np.testing.assert_allclose(
        epipolar_factors(owner, -residual, -normal, COVARIANCE),
        epipolar_factors(owner, residual, normal, COVARIANCE),
    )
