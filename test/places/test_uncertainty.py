"""Covariances of relative poses against the scatter of poses under known noise."""

import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from d2_ros.places.uncertainty import motion_covariance, turn_covariance

NOISE = np.array([[4.0, 1.0], [1.0, 2.0]]) * 1e-6
TURN = Rotation.from_euler("xyz", [3, -8, 2], degrees=True).as_matrix()
SHIFT = np.array([0.8, 0.1, -0.59])
SHIFT /= np.linalg.norm(SHIFT)


@pytest.fixture(scope="module")
def views():
    rng = np.random.default_rng(0)
    points = rng.uniform([-3, -2, 4], [3, 2, 9], (120, 3))
    moved = points @ TURN.T + SHIFT
    noise = rng.multivariate_normal([0, 0], NOISE, (300, 120))
    return points / points[:, 2:], moved / moved[:, 2:], (points @ TURN.T), noise


def noisy(now, noise):
    return np.column_stack([now[:, :2] + noise, np.ones(len(now))])


def test_a_motion_scatters_as_its_covariance_says(views):
    then, now, _, noise = views
    spread = np.tile(NOISE, (120, 1, 1))
    predicted = motion_covariance(then, now, spread, TURN, SHIFT)
    across = np.linalg.svd(SHIFT[None])[2][1:].T

    def estimate(now):
        def residuals(change):
            turn = Rotation.from_rotvec(change[:3]).as_matrix() @ TURN
            shift = SHIFT + across @ change[3:]
            lines = np.cross(shift, then @ turn.T)
            off = (lines * now).sum(1)
            normal = lines[:, :2]
            return off / np.sqrt(np.einsum("mi,ij,mj->m", normal, NOISE, normal))

        change = least_squares(residuals, np.zeros(5), x_scale=1e-3).x
        return np.concatenate([across @ change[3:], change[:3]])

    found = np.array([estimate(noisy(now, each)) for each in noise])
    scatter = np.cov(found.T)
    ratio = np.sqrt(np.diag(scatter) / np.diag(predicted))
    assert np.all((ratio > 0.8) & (ratio < 1.25)), ratio
    assert predicted[:3, :3] @ SHIFT == pytest.approx(0, abs=1e-12)


def test_a_turn_scatters_as_its_covariance_says(views):
    then, _, turned, noise = views
    turned = turned / turned[:, 2:]
    predicted = turn_covariance(then, turned, np.tile(NOISE, (120, 1, 1)), TURN)
    whitening = np.linalg.inv(np.linalg.cholesky(NOISE))

    def estimate(now):
        def residuals(change):
            rays = then @ (Rotation.from_rotvec(change).as_matrix() @ TURN).T
            return ((now[:, :2] - rays[:, :2] / rays[:, 2:]) @ whitening.T).ravel()

        return least_squares(residuals, np.zeros(3), x_scale=1e-3).x

    scatter = np.cov(np.array([estimate(noisy(turned, each)) for each in noise]).T)
    ratio = np.sqrt(np.diag(scatter) / np.diag(predicted))
    assert np.all((ratio > 0.85) & (ratio < 1.18)), ratio


def test_matches_that_agree_less_than_they_say_make_it_less_sure(views):
    then, now, _, noise = views
    spread = np.tile(NOISE, (120, 1, 1))
    usual = motion_covariance(then, noisy(now, noise[0]), spread, TURN, SHIFT)
    worse = motion_covariance(then, noisy(now, 5 * noise[0]), spread, TURN, SHIFT)
    assert np.trace(worse) > 15 * np.trace(usual)
