"""Pyramids and sampling keep their coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from d2_ros.matching.pyramid import (
    SMOOTHING_ENERGY,
    build_pyramid,
    inside,
    sample,
    smooth_patches,
    to_gray,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [(120, 160), (121, 163)])
def test_pyramid_pixel_p_is_p_over_two(size):
    v, u = np.mgrid[: size[0], : size[1]].astype(np.float32)
    for ramp, axis in ((u, 0), (v, 1)):
        pyramid = build_pyramid(ramp, 3, CPU)
        points = torch.tensor([[[40.0, 50.0], [61.5, 33.25]]])
        for level, image in enumerate(pyramid):
            values = sample(image, points / 2**level)[0]
            np.testing.assert_allclose(values, points[0, :, axis], atol=1e-3)


def test_small_images_get_fewer_levels():
    assert len(build_pyramid(np.zeros((64, 64), np.float32), 5, CPU)) == 3


def test_gray_scales_sixteen_bits_to_eight():
    image = np.array([[0, 257, 65535]], np.uint16)
    np.testing.assert_allclose(to_gray(image), [[0, 1, 255]])
    assert to_gray(np.zeros((4, 4, 3), np.uint8)).shape == (4, 4)


def test_inside_is_between_pixel_centres():
    level = build_pyramid(np.zeros((32, 40), np.float32), 1, CPU)[0]
    points = torch.tensor([[0.0, 0.0], [39.0, 31.0], [39.01, 5.0], [-0.01, 3.0]])
    assert inside(level, points).tolist() == [True, True, False, False]


def test_interpolation_is_exact_between_pixels():
    """A sine of four pixels a period, which bilinear interpolation would halve at its crests."""
    u = np.arange(80, dtype=np.float32)
    plane = np.tile(np.sin(u * np.pi / 2 + 0.4), (64, 1)).astype(np.float32)
    level = build_pyramid(plane, 1, CPU)[0]
    places = np.linspace(20, 60, 161)
    values = sample(
        level, torch.tensor(np.c_[places, np.full(161, 30.3)], dtype=torch.float32)[None]
    )
    gain = 0.8  # what the light smoothing leaves of that sine
    truth = gain * np.sin(places * np.pi / 2 + 0.4)
    assert np.abs(values[0].numpy() - truth).max() < 0.08
    bilinear = gain * np.interp(places, u, np.sin(u * np.pi / 2 + 0.4))
    assert np.abs(bilinear - truth).max() > 0.2


def test_smoothing_patches_spreads_noise_as_the_pyramid_does():
    rng = np.random.default_rng(0)
    patch = torch.from_numpy(rng.normal(size=(1, 1, 101 * 101)).astype(np.float32))
    energy = float((smooth_patches(patch) ** 2).mean() / (patch**2).mean())
    assert energy == pytest.approx(SMOOTHING_ENERGY, rel=0.05)
    impulse = torch.zeros(1, 1, 25)
    impulse[0, 0, 12] = 1
    smooth = smooth_patches(impulse)[0, 0].reshape(5, 5)
    assert smooth[2, 2] == pytest.approx(0.64)
    assert smooth[1, 2] == pytest.approx(0.08)
