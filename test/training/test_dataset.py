"""What a draw shows depends on its number and the seed alone."""

import numpy as np
import pytest
import torch

from d2_ros.errors import D2RosError
from d2_ros.training.dataset import Draws, batches, collate
from d2_ros.training.pairs import Pair


class Numbered:
    """Pairs whose pixels say which they are; `empty` ones have no correspondence."""

    def __init__(self, first, count, empty=()):
        self.first, self.count, self.empty = first, count, empty

    def __len__(self):
        return self.count

    def draw(self, index, rng):
        assert 0 <= index < self.count
        image = np.full((80, 80, 3), self.first + index, np.uint8)
        rows = 0 if index in self.empty else 50
        pixels = rng.uniform(0, 79, (rows, 2))
        return Pair(image, image, pixels, pixels)


def numbers(images):
    return images[::2, 0, 0, 0].tolist()


def test_every_pair_of_every_source_comes_once_before_any_comes_again():
    draws = Draws([Numbered(0, 3), Numbered(10, 5)], seed=1, size=64)
    shown = [int(draws[index].first[0, 0, 0]) for index in range(16)]
    assert sorted(shown[:8]) == sorted(shown[8:]) == [0, 1, 2, 10, 11, 12, 13, 14]
    assert shown[:8] != shown[8:]


def test_draws_repeat_and_differ_with_the_seed():
    a, b, c = (Draws([Numbered(0, 9)], seed, 64, points=20) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a[5].pixels, b[5].pixels)
    assert not np.array_equal(a[5].pixels[:5], c[5].pixels[:5])
    assert len(a[5].pixels) <= 20
    assert len(Draws([Numbered(0, 9)], 1, 80)[5].pixels) == 50


def test_a_limited_number_of_windows_comes_again_in_another_order():
    draws = Draws([Numbered(0, 9)], 1, 64, points=20, different=6)
    shown = [draws[index].pixels.tobytes() for index in range(18)]
    assert set(shown[:6]) == set(shown[6:12]) == set(shown[12:])
    assert len(set(shown)) == 6
    assert shown[:6] != shown[6:12]
    endless = Draws([Numbered(0, 9)], 1, 64, points=20)
    assert set(shown) == {endless[index].pixels.tobytes() for index in range(6)}


def test_processes_share_out_every_step_and_resuming_changes_nothing():
    draws = Draws([Numbered(0, 20)], seed=0, size=64)
    alone = [numbers(batch.images) for batch in batches(draws, range(4), 4, 0, 1, 0)]
    halves = [
        [numbers(batch.images) for batch in batches(draws, range(4), 4, rank, 2, 0)]
        for rank in (0, 1)
    ]
    for whole, first, second in zip(alone, *halves, strict=True):
        assert sorted(whole) == sorted(first + second)
    resumed = [numbers(batch.images) for batch in batches(draws, range(2, 4), 4, 0, 1, 0)]
    assert resumed == alone[2:]


def test_other_processes_prepare_the_same_pairs():
    draws = Draws([Numbered(0, 6)], seed=0, size=64, points=30)
    here, there = (list(batches(draws, range(2), 2, 0, 1, workers)) for workers in (0, 1))
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a.images, b.images)
        assert all(torch.equal(x, y) for x, y in zip(a.pixels, b.pixels, strict=True))


def test_pairs_may_have_different_numbers_of_points():
    draws = Draws([Numbered(0, 4)], 0, 64)
    batch = collate([draws[0], draws[1]])
    assert batch.images.shape == (4, 64, 64, 3)
    assert batch.images.dtype == torch.uint8
    assert [tuple(pixels.shape[::2]) for pixels in batch.pixels] == [(2, 2), (2, 2)]
    assert batch.pixels[0].dtype == torch.float32


def test_pairs_without_correspondences_are_passed_over():
    draws = Draws([Numbered(0, 4, empty={0, 1, 2})], 0, 64)
    assert {int(draws[index].first[0, 0, 0]) for index in range(4)} == {3}
    with pytest.raises(D2RosError, match=r"no correspondence; raise data\.min_overlap"):
        Draws([Numbered(0, 2, empty={0, 1})], 0, 64)[0]
