"""Covariances of relative poses against the scatter of poses under known noise."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from d2_ros.places.uncertainty import refined_motion, refined_turn

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
    predicted = refined_motion(then, now, spread, TURN, SHIFT)[2]
    guess = Rotation.from_rotvec([0.01, -0.02, 0.01]).as_matrix() @ TURN, np.array([0.9, 0, -0.44])

    def error(each):
        turn, shift, _ = refined_motion(then, noisy(now, each), spread, *guess)
        return np.concatenate([shift - SHIFT, Rotation.from_matrix(turn @ TURN.T).as_rotvec()])

    errors = np.array([error(each) for each in noise])
    assert np.abs(errors.mean(0)).max() < 3e-3
    ratio = errors.std(0) / np.sqrt(np.diag(predicted))
    assert np.all((ratio > 0.85) & (ratio < 1.3)), ratio
    assert predicted[:3, :3] @ SHIFT == pytest.approx(0, abs=1e-12)


def test_a_fifth_of_wrong_matches_is_borne(views):
    then, now, _, noise = views
    wrong = now.copy()
    wrong[::5] = np.roll(now[::5], 1, axis=0)
    spread = np.tile(NOISE, (120, 1, 1))
    turn, shift, covariance = refined_motion(then, noisy(wrong, noise[0]), spread, TURN, SHIFT)
    error = np.concatenate([shift - SHIFT, Rotation.from_matrix(turn @ TURN.T).as_rotvec()])
    assert np.abs(error[3:]).max() < 0.003
    assert error[3:] @ np.linalg.inv(covariance[3:, 3:]) @ error[3:] < 11.3  # 1 % of chi2(3)


def test_a_turn_scatters_as_its_covariance_says(views):
    then, _, turned, noise = views
    turned = turned / turned[:, 2:]
    spread = np.tile(NOISE, (120, 1, 1))
    predicted = refined_turn(then, turned, spread, TURN)[1]

    def error(each):
        turn, _ = refined_turn(then, noisy(turned, each), spread, TURN)
        return Rotation.from_matrix(turn @ TURN.T).as_rotvec()

    ratio = np.array([error(each) for each in noise]).std(0) / np.sqrt(np.diag(predicted))
    assert np.all((ratio > 0.85) & (ratio < 1.25)), ratio


def test_matches_that_agree_less_than_they_say_make_it_less_sure(views):
    then, now, _, noise = views
    spread = np.tile(NOISE, (120, 1, 1))
    usual = refined_motion(then, noisy(now, noise[0]), spread, TURN, SHIFT)[2]
    worse = refined_motion(then, noisy(now, 5 * noise[0]), spread, TURN, SHIFT)[2]
    assert np.trace(worse) > 8 * np.trace(usual)
