"""Large alignments held against small patches: what a depth edge does to their covariances."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from d2_ros.config import AlignmentConfig
from d2_ros.matching.alignment import align, largest_sigma
from d2_ros.matching.cutting import cut
from d2_ros.matching.multiscale import cut_small, disagreement, with_disagreement
from d2_ros.matching.pyramid import build_pyramid, to_gray
from d2_ros.matching.warps import Alignment, Warps

CONFIG = AlignmentConfig()


def texture(seed, contrast):
    noise = np.random.default_rng(seed).normal(size=(240, 320))
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.6)
    return contrast * smooth / smooth.std()


def scene(shift):
    """A quiet wall that stands, and from u = 160 on a loud one before it that is shifted, px."""
    image = 110 + texture(1, 12)
    moved = 130 + np.roll(texture(2, 45), shift, axis=1)
    image[:, 160 + shift :] = moved[:, 160 + shift :]
    return np.clip(image, 0, 255).astype(np.uint8)


def measured(places, first, second):
    """Alignments of the large patches from the true place, and the same held against small ones."""
    pyramids = [
        build_pyramid(to_gray(image), CONFIG.levels, torch.device("cpu"))
        for image in (first, second)
    ]
    patches = cut(pyramids[0], places, CONFIG.patch_radius)
    start = Warps(places, np.tile(np.eye(2), (len(places), 1, 1)))
    large = align(patches, pyramids[1], [start], CONFIG)
    return large, with_disagreement(large, cut_small(pyramids[0], places), pyramids[1], CONFIG)


def column(u):
    return np.column_stack([np.full(19, float(u)), np.linspace(30, 210, 19)])


def test_a_patch_across_a_depth_edge_is_known_to_be_unsure():
    places = column(160 - 7)  # of the quiet wall; a fifth of the patch is of the other one
    large, held = measured(places, scene(0), scene(-2))
    error = np.linalg.norm(large.warps.pixels - places, axis=1)
    wrong = error > 0.5
    assert wrong.sum() >= 10  # the loud surface does draw them along
    assert np.median((error / largest_sigma(large.covariance))[wrong]) > 5  # and they do not know
    assert np.median((error / largest_sigma(held.covariance))[wrong]) < 1.5
    np.testing.assert_array_equal(held.warps.pixels, large.warps.pixels)


def test_a_patch_of_one_surface_stays_sure():
    places = column(80)
    rng = np.random.default_rng(3)
    first, second = (
        np.clip(scene(0) + rng.normal(0, 2, (240, 320)), 0, 255).astype(np.uint8) for _ in range(2)
    )
    large, held = measured(places, first, second)
    assert np.linalg.norm(large.warps.pixels - places, axis=1).max() < 0.3
    growth = largest_sigma(held.covariance) / largest_sigma(large.covariance)
    assert (growth >= 1 - 1e-9).all()
    assert np.median(growth) < 2  # two alignments differ by their noise alone


def alignment(offset, sigma, affine=None):
    return Alignment(
        Warps(np.array([offset], float), np.eye(2)[None] if affine is None else affine[None]),
        np.eye(2)[None] * sigma**2,
        np.ones(1),
        np.ones(1, bool),
    )


@pytest.mark.parametrize(
    ("sigma", "low", "high"),
    [
        pytest.param(0.01, 2.5, 3.0, id="far beyond the noise: three times the square"),
        pytest.param(1.0, 0.1, 0.8, id="explained by the noise: hardly anything"),
    ],
)
def test_the_squared_distance_counts_as_far_as_noise_does_not_explain_it(sigma, low, high):
    extra = disagreement(alignment([5, 5], 0.1), alignment([6, 5], sigma))[0]
    assert low < extra[0, 0] < high
    np.testing.assert_allclose(extra[1], 0, atol=1e-12)


def test_nothing_is_said_of_large_warps_or_by_patches_that_are_lost():
    turned = np.array([[0.0, -1.0], [1.0, 0.0]])
    assert not disagreement(alignment([5, 5], 0.1, turned), alignment([9, 5], 0.1)).any()
    assert not disagreement(alignment([5, 5], 0.1), alignment([np.nan, 5], 0.1)).any()
