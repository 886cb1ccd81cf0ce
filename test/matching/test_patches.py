"""Patches: round, normalised, in order."""

from __future__ import annotations

import numpy as np
import torch

from d2_ros.matching.cutting import cut
from d2_ros.matching.patches import disc, gather, patch_grid
from d2_ros.matching.pyramid import build_pyramid

CPU = torch.device("cpu")


def test_patch_grid_counts_rows_first():
    grid = patch_grid(1, CPU)
    assert grid.tolist()[:4] == [[-1, -1], [0, -1], [1, -1], [-1, 0]]


def test_patches_are_round_normalised_and_weightless_outside():
    rng = np.random.default_rng(1)
    pyramid = build_pyramid(rng.uniform(0, 255, (64, 80)).astype(np.float32), 2, CPU)
    patches = cut(pyramid, np.array([[40.0, 30.0], [2.0, 30.0]]), 8)
    assert len(patches) == 2
    shape = disc(8, CPU)
    assert float(shape.offsets.norm(dim=1).max()) <= 8.5
    assert len(shape.offsets) == 113
    for level in patches:
        mean = (level.values * level.weight).sum(1) / level.weight.sum(1)
        variance = (level.values**2 * level.weight).sum(1) / level.weight.sum(1)
        np.testing.assert_allclose(mean, 0, atol=1e-4)
        np.testing.assert_allclose(variance, 1, atol=1e-4)
    left = shape.offsets[:, 0] < -2
    assert (patches[0].weight[1, left] == 0).all()
    assert (patches[0].weight[0] > 0).all()


def test_gather_takes_rows_in_order():
    rng = np.random.default_rng(2)
    pyramid = build_pyramid(rng.uniform(0, 255, (64, 80)).astype(np.float32), 1, CPU)
    one = cut(pyramid, rng.uniform(20, 40, (5, 2)), 4)[0]
    two = cut(pyramid, rng.uniform(20, 40, (5, 2)), 4)[0]
    both = gather([(one, torch.tensor([3, 0])), (two, torch.tensor([4]))])
    np.testing.assert_array_equal(
        both.values, torch.stack([one.values[3], one.values[0], two.values[4]])
    )
