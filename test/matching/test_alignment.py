"""Alignment against warps that are known exactly."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d2_ros.config import AlignmentConfig
from d2_ros.features.early import EarlyMap
from d2_ros.matching import alignment, batched
from d2_ros.matching.alignment import (
    accept,
    align,
    forward_backward,
    largest_sigma,
    predicted_sigma,
)
from d2_ros.matching.cutting import cut
from d2_ros.matching.early import early_pyramid
from d2_ros.matching.pyramid import build_pyramid, to_gray
from d2_ros.matching.warps import Warps

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


def identities(count):
    return np.tile(np.eye(2), (count, 1, 1))


def run(pair, *starts, config=None):
    """Align, and say which alignments every gate accepts; the first start is the keypoint."""
    one, two, places, _, _ = pair
    config = config or AlignmentConfig()
    pyramids = [build_pyramid(to_gray(image), config.levels, CPU) for image in (one, two)]
    patches = cut(pyramids[0], places, config.patch_radius)
    warps = [Warps(start, identities(len(places))) for start in starts]
    found = align(patches, pyramids[1], warps, config)
    there = cut(pyramids[1], found.warps.pixels, config.patch_radius)[0]
    each, first = np.arange(len(places)), np.zeros(len(places), np.int64)
    back = forward_backward(
        there, each, found.warps.pixels, found.warps, [pyramids[0]], first, places, config
    )
    return found, accept(found, starts[0], config) & (back <= config.max_forward_backward)


def test_recovers_affine_warp_under_gain_and_bias(pair):
    *_, truth, affine = pair
    rng = np.random.default_rng(1)
    found, good = run(pair, truth + rng.normal(0, 1.0, truth.shape))
    error = found.warps.pixels - truth
    assert good.mean() > 0.9
    assert np.median(np.linalg.norm(error[good], axis=1)) < 0.06
    assert np.abs(error[good].mean(0)).max() < 0.02  # no bias
    assert np.median(np.abs(found.warps.affine[good] - affine).max(axis=(1, 2))) < 0.03


def test_gates_refuse_wrong_places(pair):
    *_, truth, _ = pair
    rng = np.random.default_rng(2)
    angle = rng.uniform(0, 2 * np.pi, len(truth))
    _, good = run(pair, truth + 25 * np.column_stack([np.cos(angle), np.sin(angle)]))
    assert good.mean() < 0.05


def test_pyramid_widens_convergence(pair):
    *_, truth, _ = pair
    rng = np.random.default_rng(3)
    start = truth + rng.normal(0, 3.0, truth.shape)
    share = {}
    for levels in (1, 2):
        config = replace(AlignmentConfig(), levels=levels)
        found, good = run(pair, start, config=config)
        share[levels] = ((np.linalg.norm(found.warps.pixels - truth, axis=1) < 0.5) & good).mean()
    assert share[2] > share[1] + 0.05


def test_best_of_two_starts_wins(pair):
    *_, truth, _ = pair
    for starts, accepted in (((truth + 20, truth + 1), 0.0), ((truth + 1, truth + 20), 1.0)):
        found, good = run(pair, *starts)
        assert (np.linalg.norm(found.warps.pixels - truth, axis=1) < 0.5).mean() > 0.9
        # The first start is the keypoint: an alignment that ends far from it is another's.
        assert abs(good.mean() - accepted) < 0.15


def test_covariance_has_the_size_of_the_error(pair):
    *_, truth, _ = pair
    rng = np.random.default_rng(4)
    found, good = run(pair, truth + rng.normal(0, 0.7, truth.shape))
    error = found.warps.pixels[good] - truth[good]
    squared = np.einsum("ni,nij,nj->n", error, np.linalg.inv(found.covariance[good]), error)
    assert 0.7 < np.median(squared) / 1.386 < 2.0


def test_places_between_pixels_are_no_worse_than_on_them(photograph):
    """A shift of half a pixel blurs a patch that is interpolated poorly; corners then move."""
    rng = np.random.default_rng(5)
    one = render(photograph, np.eye(2) * 2, np.array([200.0, 350.0]), rng, noise=0.5)
    places = cv2.goodFeaturesToTrack(one, 200, 0.02, 6)[:, 0].astype(np.float64)
    inner = np.all((places > 25) & (places < [SIZE[1] - 25, SIZE[0] - 25]), axis=1)
    places, median = places[inner], {}
    for shift in (0.0, 0.5):
        moved = np.array([200.0, 350.0]) - 2 * shift
        two = render(photograph, np.eye(2) * 2, moved, rng, noise=0.5)
        found, good = run((one, two, places, None, None), places + shift)
        error = np.linalg.norm(found.warps.pixels - places - shift, axis=1)
        median[shift] = np.median(error[good])
    assert median[0.5] < 1.5 * median[0.0] + 0.005


def test_pixels_of_another_surface_count_less(photograph, monkeypatch):
    """A strip across the rim of every patch shows a surface that does not move along."""
    rng = np.random.default_rng(6)
    one, two = (
        render(photograph, np.eye(2) * 2, np.array([left, 350.0]), rng) for left in (200.0, 194.0)
    )
    other = cv2.flip(render(photograph, np.eye(2) * 2, np.array([600.0, 700.0]), rng), 1)
    places = cv2.goodFeaturesToTrack(one, 60, 0.02, 20)[:, 0].astype(np.float64)
    places = places[np.all((places > 25) & (places < [SIZE[1] - 25, SIZE[0] - 25]), axis=1)]
    config, median = replace(AlignmentConfig(), patch_radius=8), {}

    def finish(patches, image, pixels, affine, shape):
        for _ in range(4):  # one step is what the gain pays for; four show the effect
            pixels, affine, score = batched.finish(patches, image, pixels, affine, shape)
        return pixels, affine, score

    steps = SimpleNamespace(track=batched.track, finish=finish)
    monkeypatch.setattr(alignment, "steps_for", lambda image: steps)
    for kernel in (1e6, batched.ROBUST):
        monkeypatch.setattr(batched, "ROBUST", kernel)
        error = []
        for place in places:
            edge = int(place[0]) + 9  # 6 px from the keypoint after the move of 3 px
            first, second = (np.hstack([view[:, :edge], other[:, edge:]]) for view in (one, two))
            truth = place + np.array([3.0, 0.0])
            strip = (first, second, place[None], None, None)
            found, _ = run(strip, truth[None] + 0.2, config=config)
            error.append(np.linalg.norm(found.warps.pixels[0] - truth))
        median[kernel] = np.median(error)
    assert median[1.5] < 0.7 * median[1e6]


def test_flat_images_are_refused_not_crashed_on():
    flat = np.full(SIZE, 90, np.uint8)
    places = np.array([[50.0, 60.0], [0.0, 0.0], [319.0, 239.0]])
    _, good = run((flat, flat, places, None, None), places)
    assert not good.any()
    patches = cut(build_pyramid(to_gray(flat), 1, CPU), places, 8)[0]
    assert (predicted_sigma(patches) > 10).all()


def test_predicted_sigma_sees_the_aperture():
    image = np.zeros(SIZE, np.uint8)
    image[:, 160:] = 200  # an edge
    image[120:, 60:100] = 200  # a corner at (60, 120)
    pyramid = build_pyramid(to_gray(image), 1, CPU)
    edge, corner = predicted_sigma(cut(pyramid, np.array([[160.0, 60.0], [60.0, 120.0]]), 8)[0])
    assert corner < 0.1 < 1.0 < edge


def test_no_matches_are_no_trouble(pair):
    one, two, *_ = pair
    found, good = run((one, two, np.empty((0, 2)), None, None), np.empty((0, 2)))
    assert len(good) == len(found.warps.pixels) == 0


def noise_free(seed, blur, flat, contrast):
    """A simulator's picture: rounded, without noise; its upper part of one gray value."""
    rng = np.random.default_rng(seed)
    plane = rng.uniform(128 - contrast, 128 + contrast, (30, 40)).repeat(4, 0).repeat(4, 1)
    if blur:
        plane = cv2.GaussianBlur(plane, (0, 0), blur)
    plane[: int(flat * len(plane))] = 100
    return np.round(plane).astype(np.uint8)


@pytest.mark.parametrize("code", ["compiled", "batched"])
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    blur=st.sampled_from([0.0, 0.8, 2.0]),
    flat=st.sampled_from([0.0, 0.3, 1.0]),
    contrast=st.sampled_from([3.0, 30.0, 120.0]),
    shift=st.tuples(st.integers(-3, 3), st.integers(-3, 3)),
)
def test_without_noise_a_place_is_as_certain_as_rounding_allows(
    code, seed, blur, flat, contrast, shift
):
    picture = noise_free(seed, blur, flat, contrast)
    config = AlignmentConfig()
    one = picture[8:-8, 8:-8]
    two = picture[8 + shift[1] : -8 + shift[1] or None, 8 + shift[0] : -8 + shift[0] or None]
    first, second = (build_pyramid(to_gray(image), 2, CPU) for image in (one, two))
    places = np.stack(np.meshgrid(np.arange(16, 130, 9.0), np.arange(16, 90, 9.0)), -1)
    places = places.reshape(-1, 2)
    start = Warps(places - shift, identities(len(places)))
    patches = cut(first, places, config.patch_radius)
    with pytest.MonkeyPatch.context() as patch:
        if code == "batched":
            patch.setattr(alignment, "steps_for", lambda image: batched)
        found = align(patches, second, [start], config)
    # What could be aligned at all, as of a track's first frame.
    textured = predicted_sigma(patches[0]) <= config.max_sigma
    kept = accept(found, start.pixels, config) & textured
    if flat == 1.0:
        assert not kept.any()
    covariance = found.covariance[kept]
    assert np.isfinite(covariance).all()
    assert (np.linalg.eigvalsh(covariance) > 1e-9).all()
    # Rounding alone, so never more certain than predicted for less noise than it makes.
    least = predicted_sigma(patches[0], noise=0.1)[kept]
    assert (largest_sigma(covariance) > least).all()


def test_real_noise_is_more_than_rounding_and_its_covariances_are_as_they_were(pair, monkeypatch):
    found, good = run(pair, pair[3] + 0.4)
    for name in ("QUANTISATION", "EARLY_QUANTISATION"):
        monkeypatch.setattr(alignment, name, 0.0)
    without, _ = run(pair, pair[3] + 0.4)
    assert good.sum() > 100
    np.testing.assert_array_equal(found.covariance[good], without.covariance[good])
    np.testing.assert_array_equal(found.warps.pixels, without.warps.pixels)


def test_identical_early_maps_are_as_certain_as_rounding_allows():
    rng = np.random.default_rng(0)
    maps = cv2.GaussianBlur(rng.normal(0, 5, (60, 80, 8)), (0, 0), 1.5).transpose(2, 0, 1)
    early = EarlyMap(torch.from_numpy(maps.astype(np.float32)), np.ones(2))
    places = rng.uniform([15, 15], [65, 45], (40, 2))
    pyramid, config = early_pyramid(early, 1), AlignmentConfig()
    patches = cut(pyramid, places, config.patch_radius)
    found = align(patches, pyramid, [Warps(places, identities(len(places)))], config)
    assert found.valid.all()
    least = alignment.EARLY_QUANTISATION / patches[0].spread ** 2
    expected = (patches[0].noise * least[:, None, None]).double().numpy()
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-3, atol=1e-12)
    assert (np.linalg.eigvalsh(found.covariance) > 0).all()
