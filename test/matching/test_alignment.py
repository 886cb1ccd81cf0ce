"""Alignment against warps that are known exactly."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from d2_ros.config import AlignmentConfig
from d2_ros.matching.alignment import Warps, align, predicted_sigma
from d2_ros.matching.patches import build_pyramid, grey

CPU = torch.device("cpu")
SIZE = (240, 320)


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    plane = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2GRAY)
    return cv2.resize(plane, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC).astype(np.float32)


def render(photograph, matrix, offset, rng, gain=1.0, bias=0.0, noise=1.5):
    """View of the photograph in which pixel x shows ``matrix @ x + offset``, area-averaged."""
    fine = 4
    line = [(np.arange(edge * fine) + 0.5) / fine - 0.5 for edge in SIZE]
    u, v = np.meshgrid(line[1], line[0])
    x = matrix[0, 0] * u + matrix[0, 1] * v + offset[0]
    y = matrix[1, 0] * u + matrix[1, 1] * v + offset[1]
    view = cv2.remap(photograph, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    view = view.reshape(SIZE[0], fine, SIZE[1], fine).mean((1, 3))
    view = view * gain + bias + rng.normal(0, noise, SIZE)
    return np.clip(np.round(view), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pair(photograph):
    """Two views, places in the first, and where they lie in the second."""
    rng = np.random.default_rng(0)
    turn = cv2.getRotationMatrix2D((0, 0), -4, 1)[:, :2]
    first, offset = np.eye(2) * 2, np.array([200.0, 350.0])
    second, moved = turn @ np.array([[1.08, 0.03], [0.0, 0.97]]) * 2, np.array([204.2, 347.3])
    one = render(photograph, first, offset, rng)
    two = render(photograph, second, moved, rng, gain=0.7, bias=25)
    places = cv2.goodFeaturesToTrack(one, 300, 0.02, 6)[:, 0] + rng.uniform(-0.5, 0.5, (1, 2))
    inner = np.all((places > 25) & (places < [SIZE[1] - 25, SIZE[0] - 25]), axis=1)
    places = places[inner].astype(np.float64)
    truth = np.linalg.solve(second, (first @ places.T).T.T + (offset - moved)[:, None]).T
    affine = np.linalg.solve(second, first)
    return one, two, places, truth, affine


def run(pair, start, config=None, templates=None):
    one, two, places, _, _ = pair
    config = config or AlignmentConfig()
    pyramids = [build_pyramid(grey(image), config.levels, CPU) for image in (one, two)]
    identity = np.tile(np.eye(2), (len(places), 1, 1))
    which = np.zeros(len(places), np.int64)
    return align(pyramids[:1], pyramids[1], which, places, [Warps(start, identity)], config)


def test_recovers_affine_warp_under_gain_and_bias(pair):
    *_, truth, affine = pair
    rng = np.random.default_rng(1)
    result = run(pair, truth + rng.normal(0, 1.0, truth.shape))
    error = result.warps.pixels - truth
    good = result.accepted
    assert good.mean() > 0.9
    assert np.median(np.linalg.norm(error[good], axis=1)) < 0.08
    assert np.abs(error[good].mean(0)).max() < 0.02  # no bias
    assert np.median(np.abs(result.warps.affine[good] - affine).max(axis=(1, 2))) < 0.03


def test_gates_refuse_wrong_places(pair):
    *_, truth, _ = pair
    rng = np.random.default_rng(2)
    angle = rng.uniform(0, 2 * np.pi, len(truth))
    start = truth + 25 * np.column_stack([np.cos(angle), np.sin(angle)])
    result = run(pair, start)
    assert result.accepted.mean() < 0.05


def test_pyramid_widens_convergence(pair):
    *_, truth, _ = pair
    rng = np.random.default_rng(3)
    start = truth + rng.normal(0, 3.0, truth.shape)
    found = {}
    for levels in (1, 2):
        result = run(pair, start, replace(AlignmentConfig(), levels=levels))
        near = np.linalg.norm(result.warps.pixels - truth, axis=1) < 0.5
        found[levels] = (near & result.accepted).mean()
    assert found[2] > found[1] + 0.05


def test_best_of_two_starts_wins(pair):
    one, two, places, truth, _ = pair
    config = AlignmentConfig()
    pyramids = [build_pyramid(grey(image), config.levels, CPU) for image in (one, two)]
    identity = np.tile(np.eye(2), (len(places), 1, 1))
    far = Warps(truth + 20.0, identity)
    near = Warps(truth + 1.0, identity)
    which = np.zeros(len(places), np.int64)
    for starts, accepted in (([far, near], 0.0), ([near, far], 1.0)):
        result = align(pyramids[:1], pyramids[1], which, places, starts, config)
        error = np.linalg.norm(result.warps.pixels - truth, axis=1)
        assert (error < 0.5).mean() > 0.9
        # The first start is the keypoint: an alignment that ends far from it is another's.
        assert abs(result.accepted.mean() - accepted) < 0.15


def test_covariance_has_the_size_of_the_error(pair):
    *_, truth, _ = pair
    rng = np.random.default_rng(4)
    result = run(pair, truth + rng.normal(0, 0.7, truth.shape))
    good = result.accepted
    error = result.warps.pixels[good] - truth[good]
    squared = np.einsum("ni,nij,nj->n", error, np.linalg.inv(result.covariance[good]), error)
    assert 0.8 < np.median(squared) / 1.386 < 3.0


def test_flat_images_are_refused_not_crashed_on():
    flat = np.full(SIZE, 90, np.uint8)
    pyramid = build_pyramid(grey(flat), 2, CPU)
    places = np.array([[50.0, 60.0], [0.0, 0.0], [319.0, 239.0]])
    identity = np.tile(np.eye(2), (3, 1, 1))
    config = AlignmentConfig()
    start = [Warps(places, identity)]
    result = align([pyramid], pyramid, np.zeros(3, np.int64), places, start, config)
    assert not result.accepted.any()
    assert (predicted_sigma(pyramid, places, config.patch_radius) > 10).all()


def test_predicted_sigma_sees_the_aperture():
    image = np.zeros(SIZE, np.uint8)
    image[:, 160:] = 200  # an edge
    image[120:, 60:100] = 200  # a corner at (60, 120)
    pyramid = build_pyramid(grey(image), 1, CPU)
    edge, corner = predicted_sigma(pyramid, np.array([[160.0, 60.0], [60.0, 120.0]]), 8)
    assert corner < 0.1 < 1.0 < edge


def test_each_match_reads_its_own_template(pair):
    one, two, places, truth, _ = pair
    config = AlignmentConfig()
    pyramids = [build_pyramid(grey(image), config.levels, CPU) for image in (one, two)]
    blank = build_pyramid(np.full(SIZE, 7, np.float32), config.levels, CPU)
    which = np.arange(len(places)) % 2
    start = [Warps(truth + 0.5, np.tile(np.eye(2), (len(places), 1, 1)))]
    result = align([pyramids[0], blank], pyramids[1], which, places, start, config)
    assert result.accepted[which == 0].mean() > 0.9
    assert not result.accepted[which == 1].any()
