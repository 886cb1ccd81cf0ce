"""Pyramids and sampling keep their coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from d2_ros.matching.patches import build_pyramid, grey, inside, patch_grid, sample, smooth_patches

CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [(120, 160), (121, 163)])
def test_pyramid_pixel_p_is_p_over_two(size):
    v, u = np.mgrid[: size[0], : size[1]].astype(np.float32)
    for ramp, axis in ((u, 0), (v, 1)):
        pyramid = build_pyramid(ramp, 3, CPU)
        points = torch.tensor([[[40.0, 50.0], [61.5, 33.25]]])
        for level, image in enumerate(pyramid):
            values = sample(image, points / 2**level)[0, 0]
            np.testing.assert_allclose(values, points[0, :, axis], atol=1e-3)


def test_small_images_get_fewer_levels():
    assert len(build_pyramid(np.zeros((64, 64), np.float32), 5, CPU)) == 3


def test_grey_scales_sixteen_bits_to_eight():
    image = np.array([[0, 257, 65535]], np.uint16)
    np.testing.assert_allclose(grey(image), [[0, 1, 255]])
    assert grey(np.zeros((4, 4, 3), np.uint8)).shape == (4, 4)


def test_patch_grid_counts_rows_first():
    grid = patch_grid(1, CPU)
    assert grid.tolist()[:4] == [[-1, -1], [0, -1], [1, -1], [-1, 0]]


def test_inside_is_between_pixel_centres():
    image = torch.zeros(1, 1, 10, 20)
    points = torch.tensor([[0.0, 0.0], [19.0, 9.0], [19.01, 5.0], [-0.01, 3.0]])
    assert inside(image, points).tolist() == [True, True, False, False]


def test_smoothing_patches_is_the_pyramids_smoothing():
    rng = np.random.default_rng(0)
    plane = np.zeros((64, 64), np.float32)
    plane[20:31, 30:41] = rng.normal(size=(11, 11))
    smooth = build_pyramid(plane, 1, CPU)[0][0, 0, 19:32, 29:42]
    patch = torch.from_numpy(plane[20:31, 30:41].reshape(1, 1, -1))
    np.testing.assert_allclose(smooth_patches(patch)[0, 0].reshape(13, 13), smooth, atol=1e-6)
