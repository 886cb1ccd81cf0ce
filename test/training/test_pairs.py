"""Windows around shared points, true places between correspondences, overlap."""

import numpy as np
import pytest

from d2_ros.training.pairs import (
    GRID_STEP,
    Pair,
    as_bgr,
    crop_pair,
    grid,
    inside,
    overlapping,
    true_places,
)


def coded(width, height):
    """An image whose pixel (u, v) is (u, v, 0)."""
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    return np.dstack([u, v, 0 * u]).astype(np.uint8)


def some_pair():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, (200, 150), (40, 2)).astype(np.float64)
    there = np.clip(pixels + np.array([30, -20]), 0, (219, 129))
    return Pair(coded(200, 150), coded(220, 130), pixels, there)


def test_windows_keep_every_correspondence_at_its_pixel():
    pair = some_pair()
    known = {(*a, *b) for a, b in zip(pair.pixels, pair.pixels_second, strict=True)}
    for seed in range(20):
        cut = crop_pair(pair, 64, np.random.default_rng(seed))
        assert cut.first.shape == cut.second.shape == (64, 64, 3)
        assert len(cut.pixels) >= 1
        assert inside(cut.pixels, 64, 64).all()
        assert inside(cut.pixels_second, 64, 64).all()
        u, v = cut.pixels.astype(int).T
        s, t = cut.pixels_second.astype(int).T
        ends = np.column_stack([cut.first[v, u, :2], cut.second[t, s, :2]])
        assert {tuple(row) for row in ends.astype(float)} <= known


def test_small_images_are_continued_and_nothing_moves():
    pair = Pair(coded(50, 40), coded(50, 40), np.array([[10.0, 12]]), np.array([[49.0, 39]]))
    cut = crop_pair(pair, 64, np.random.default_rng(0))
    assert cut.first.shape == (64, 64, 3)
    assert (cut.first[:40, :50] == pair.first).all()
    assert (cut.first[40:, 50:] == pair.first[-1, -1]).all()
    np.testing.assert_array_equal(cut.pixels_second, pair.pixels_second)


def test_windows_as_large_as_the_images_change_nothing():
    pair = Pair(coded(64, 64), coded(64, 64), np.array([[3.5, 60.0]]), np.array([[5.0, 1.25]]))
    cut = crop_pair(pair, 64, np.random.default_rng(0))
    np.testing.assert_array_equal(cut.first, pair.first)
    np.testing.assert_array_equal(cut.pixels, pair.pixels)


def test_true_places_are_exact_for_a_homography_and_unknown_far_away():
    H = np.array([[1.1, 0.2, -4], [-0.15, 0.95, 9], [6e-4, -4e-4, 1]])

    def there(pixels):
        mapped = np.column_stack([pixels, np.ones(len(pixels))]) @ H.T
        return mapped[:, :2] / mapped[:, 2:]

    rng = np.random.default_rng(1)
    pixels = grid(128, 128, rng)
    pixels = pixels[pixels[:, 0] < 80]
    image = np.zeros((128, 128, 3), np.uint8)
    pair = Pair(image, image, pixels, there(pixels))
    asked = rng.uniform(6, 74, (200, 2))
    np.testing.assert_allclose(true_places(pair, asked), there(asked), atol=0.02)
    assert np.isnan(true_places(pair, np.array([[100.0, 50.0]]))).all()
    assert true_places(pair, np.empty((0, 2))).shape == (0, 2)


def test_too_few_correspondences_say_nothing():
    image = np.zeros((9, 9, 3), np.uint8)
    line = np.column_stack([np.arange(8.0), np.arange(8.0)])
    for pixels in (line, line[:2]):
        assert np.isnan(true_places(Pair(image, image, pixels, pixels), line)).all()


def test_grid_covers_the_image_and_moves():
    first, second = (grid(64, 48, np.random.default_rng(seed)) for seed in (0, 1))
    assert inside(first, 64, 48).all()
    assert len(first) == pytest.approx(64 * 48 / GRID_STEP**2, rel=0.15)
    assert not np.array_equal(first[0], second[0])


def test_pairs_are_chosen_by_what_they_share():
    seen = [np.array([1, 2, 3, 4]), np.array([3, 4, 5, 6]), np.array([4, 9]), np.array([], int)]
    # Shared over the smaller number: (0, 1) 2/4, (0, 2) 1/2, (1, 2) 1/2.
    assert overlapping(seen, 0.5, 1.0) == [(0, 1), (0, 2), (1, 2)]
    assert overlapping(seen, 0.6, 1.0) == []
    assert overlapping([*seen, np.array([4, 9])], 0.9, 1.0) == [(2, 4)]
    assert overlapping([*seen, np.array([4, 9])], 0.1, 0.9) == [
        (0, 1), (0, 2), (0, 4), (1, 2), (1, 4),
    ]  # fmt: skip
    assert overlapping([np.array([], int)] * 2, 0.0, 1.0) == []


def test_any_image_becomes_bgr():
    gray = np.array([[0, 257, 65535]], np.uint16)
    np.testing.assert_array_equal(as_bgr(gray)[0, :, 1], [0, 1, 255])
    assert as_bgr(np.zeros((2, 3, 3), np.uint8)).shape == (2, 3, 3)


def test_a_pair_checks_itself():
    image = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(ValueError, match="as many"):
        Pair(image, image, np.zeros((3, 2)), np.zeros((2, 2)))
