"""What a static camera's image moves by in common, and the figures beside it."""

import cv2
import numpy as np
import pytest

from d2_ros.evaluation.peers import Observed
from d2_ros.evaluation.static_camera import CommonMotion, carry_back, figures_without_motion
from d2_ros.evaluation.tracking import static_camera_figures
from d2_ros.sources.synthetic import open_synthetic

IMAGE = cv2.cvtColor(next(iter(open_synthetic("size=320x240,frames=8"))).image, cv2.COLOR_BGR2GRAY)
CORNERS = np.random.default_rng(1).uniform([20, 20], [300, 220], (200, 2))


def sagging(number):
    """A tripod that sags and turns a little: 0.2 px per frame, and more at the rim."""
    angle = np.deg2rad(0.01 * number)
    shift = np.array([0.05, 0.2]) * number
    return np.array(
        [[np.cos(angle), -np.sin(angle), shift[0]], [np.sin(angle), np.cos(angle), shift[1]],
         [0, 0, 1]]
    )  # fmt: skip


def moved(pixels, motion):
    return cv2.perspectiveTransform(pixels[None], motion)[0]


@pytest.fixture(scope="module")
def homographies():
    common = CommonMotion()
    for number in range(9):
        image = cv2.warpPerspective(IMAGE, sagging(number), (320, 240), flags=cv2.INTER_CUBIC)
        # Something walks by: it must not count.
        image[100:160, 30 * number : 30 * number + 40] = IMAGE[60:120, 200:240]
        common.add(image)
    return common.homographies


def test_the_common_motion_is_found_from_the_images_alone(homographies):
    for number, motion in enumerate(homographies):
        off = np.linalg.norm(moved(CORNERS, motion) - moved(CORNERS, sagging(number)), axis=1)
        assert off.max() < 0.1
        assert np.median(off) < 0.06  # warpPerspective itself rounds to 1/32 px


def test_scatter_and_drift_are_those_beside_the_common_motion(homographies):
    random = np.random.default_rng(0)
    ids = np.arange(1, 201)
    frames = [
        Observed(ids, moved(CORNERS, sagging(k)) + random.normal(0, 0.1, (200, 2)))
        for k in range(9)
    ]
    raw = static_camera_figures(frames)
    assert raw["scatter_px"] > 0.35
    assert raw["mean_move_px"] > 1.5
    figures = figures_without_motion(frames, homographies)
    assert figures["scatter_common_motion_removed_px"] == pytest.approx(0.1, abs=0.01)
    assert figures["mean_move_common_motion_removed_px"] < 0.06


def test_drift_of_the_tracks_is_not_taken_for_common_motion(homographies):
    still = [np.eye(3)] * 9
    frames = [Observed(np.arange(1, 201), CORNERS + np.array([0.05 * k, 0])) for k in range(9)]
    figures = figures_without_motion(frames, still)
    assert figures["mean_move_common_motion_removed_px"] == pytest.approx(0.4)


def test_frames_without_texture_have_no_motion_and_do_not_count():
    common = CommonMotion()
    for image in (IMAGE, np.full_like(IMAGE, 90), IMAGE):
        common.add(image)
    assert np.isnan(common.homographies[1]).all()
    np.testing.assert_allclose(common.homographies[2], np.eye(3), atol=1e-3)
    frames = [Observed(np.arange(1, 201), CORNERS) for _ in range(3)]
    figures = figures_without_motion(frames, common.homographies)
    assert figures["mean_move_common_motion_removed_px"] < 0.01
    blank = CommonMotion()
    blank.add(np.full_like(IMAGE, 90))
    blank.add(IMAGE)
    assert figures_without_motion(frames[:2], blank.homographies) == {}


def test_the_sign_and_the_factor_of_a_motion_say_nothing():
    motion = np.array([[1.01, 0.02, 3.0], [-0.01, 0.99, -2.0], [1e-5, -2e-5, 1.0]])
    pixels = np.random.default_rng(0).uniform(0, 200, (20, 2))
    np.testing.assert_allclose(carry_back(pixels, -4 * motion), carry_back(pixels, motion))
