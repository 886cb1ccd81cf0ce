"""(a) Pairs out of single photographs, and the changes of light."""

import cv2
import numpy as np
import pytest

from d2_ros.training.config import AugmentationConfig
from d2_ros.training.photographs import Photographs, random_homography, resize, transfer
from d2_ros.training.photometric import (
    blur,
    change,
    compress,
    expose,
    haze,
    lamp,
    night,
    shade,
    tint,
)


def source(photograph, settings, size=128):
    return Photographs([lambda: photograph], size, 640, settings)


def test_correspondences_show_the_same_points(photograph, geometry_only, likeness):
    pairs = [
        source(photograph, geometry_only).draw(0, np.random.default_rng(seed)) for seed in range(8)
    ]
    for pair in pairs:
        assert pair.first.shape == pair.second.shape == (128, 128, 3)
        assert len(pair.pixels) >= 16
    scores = [likeness(pair) for pair in pairs]
    assert min(scores) > 0.97, scores
    moves = [np.linalg.norm(pair.pixels_second - pair.pixels, axis=1).mean() for pair in pairs]
    assert np.median(moves) > 10


def test_changes_of_light_are_large_but_move_nothing(photograph, likeness):
    settings = AugmentationConfig(rotation=0, zoom=1, shift=0, perspective=0)
    for seed in range(5):
        pair = source(photograph, settings).draw(0, np.random.default_rng(seed))
        np.testing.assert_allclose(pair.pixels, pair.pixels_second, atol=1e-9)
        assert np.abs(pair.first.astype(int) - pair.second).mean() > 3
        first, second = (
            cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float64)
            for image in (pair.first, pair.second)
        )
        window = cv2.createHanningWindow((128, 128), cv2.CV_64F)
        assert np.abs(cv2.phaseCorrelate(first, second, window)[0]).max() < 0.3


def test_a_draw_depends_on_its_seed_alone(photograph):
    pairs = source(photograph, AugmentationConfig())
    a, b, c = (pairs.draw(0, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(a.second, b.second)
    np.testing.assert_array_equal(a.pixels_second, b.pixels_second)
    assert not np.array_equal(a.second, c.second)


def test_no_augmentation_leaves_the_identity(photograph, geometry_only):
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(change(photograph, rng, geometry_only), photograph)
    still = AugmentationConfig(rotation=0, zoom=1, shift=0, perspective=0)
    np.testing.assert_allclose(random_homography(64, rng, still), np.eye(3), atol=1e-12)


def test_homographies_stay_within_their_limits():
    settings = AugmentationConfig(perspective=0.0, shift=0.1, rotation=0.3, zoom=1.5)
    rng = np.random.default_rng(0)
    for _ in range(50):
        H = random_homography(101, rng, settings)
        scale = np.sqrt(np.linalg.det(H[:2, :2]))
        assert 1 / 1.5 <= scale <= 1.5
        assert abs(np.arctan2(H[1, 0], H[0, 0])) <= 0.3
        assert np.abs(transfer(H, np.full((1, 2), 50.0)) - 50).max() <= 10.1


def test_homographies_leave_the_centre_in_front():
    """What tells points beyond the horizon rests on it: a homography has no sign of its own."""
    settings = AugmentationConfig(rotation=3.0, zoom=2.0, perspective=0.9)
    for seed in range(200):
        H = random_homography(200, np.random.default_rng(seed), settings)
        centre = np.array([99.5, 99.5, 1])
        assert (H @ centre)[2] > 0
        assert np.isfinite(transfer(H, centre[None, :2])).all()


def test_points_beyond_the_horizon_are_nowhere():
    H = np.array([[1, 0, 0], [0, 1, 0], [-0.1, 0, 1.0]])
    assert np.isnan(transfer(H, np.array([[20.0, 0.0]]))).all()


def test_photographs_are_reduced_and_enlarged(photograph):
    assert resize(photograph, 128, 200).shape == (200, 200, 3)
    assert resize(photograph[:100], 128, 640).shape[0] == 128
    assert resize(photograph, 128, 640) is photograph


def test_every_change_of_light():
    light = np.full((32, 48, 3), 100.0, np.float32)
    shaded = shade(light, np.random.default_rng(0), 0.5)
    assert 50 <= shaded.min() < 60
    assert shaded.max() == 100
    assert expose(light, 1.2, 1.0)[0, 0, 0] == pytest.approx(120)
    assert expose(light, 5.0, 1.0)[0, 0, 0] == 255
    assert expose(light, 1.0, 2.0)[0, 0, 0] == pytest.approx(100**2 / 255)
    spike = np.zeros((33, 33, 3))
    spike[16, 16] = 100
    soft = blur(spike, 1.0)
    assert soft.sum() == pytest.approx(spike.sum(), rel=1e-6)
    assert soft[16, 16, 0] == pytest.approx(100 / (2 * np.pi), rel=0.1)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert compress(noise, 100) is noise
    assert np.abs(compress(noise, 20).astype(int) - noise).mean() > 5


def test_a_lamp_brightens_a_place_against_the_rest():
    light = np.full((64, 64, 3), 100.0, np.float32)
    for seed in range(5):
        lit = lamp(light, np.random.default_rng(seed), 3.0)
        assert lit.mean() == pytest.approx(100, rel=1e-4)  # the exposure follows
        assert 1.2 < lit.max() / lit.min() <= 4.0
        brightest = np.unravel_index(lit[..., 0].argmax(), (64, 64))
        assert np.abs(lit[..., 2].argmax() - np.ravel_multi_index(brightest, (64, 64))) == 0
    np.testing.assert_array_equal(lamp(light, np.random.default_rng(0), 0.0), light)


def test_a_colour_cast_weighs_the_colours():
    light = np.full((4, 4, 3), 100.0, np.float32)
    cast = tint(light, np.array([0.5, 1.0, 2.0]))
    np.testing.assert_allclose(cast[0, 0], [50, 100, 200])


def test_haze_takes_contrast_most_at_the_top(photograph):
    hazy = haze(photograph.astype(np.float32), np.random.default_rng(1), 0.6)
    loss = hazy.std(axis=(1, 2)) / photograph.std(axis=(1, 2))
    assert loss[0] == pytest.approx(0.4, abs=1e-3)
    assert 0.4 < loss[128] < loss[-1] < 0.9
    assert (np.diff(loss) > -1e-3).all()
    np.testing.assert_allclose(haze(hazy, np.random.default_rng(1), 0.0), hazy)


def test_night_is_dark_and_yellow_and_its_noise_grows_where_light_is_short():
    light = np.full((64, 128, 3), 200.0, np.float32)
    light[:, 64:] = 50
    for seed in range(5):
        seen = night(light, np.random.default_rng(seed))
        assert seen.mean() == pytest.approx(light.mean() / 2, rel=0.05)
        assert seen[..., 0].mean() < seen[..., 1].mean() < seen[..., 2].mean()
        relative = [half.std() / half.mean() for half in (seen[:, :64, 2], seen[:, 64:, 2])]
        assert relative[1] > 1.5 * relative[0] > 0.05
    assert np.isfinite(night(np.zeros((8, 8, 3), np.float32), np.random.default_rng(0))).all()
