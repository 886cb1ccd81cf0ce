"""Alignment by early maps, where gray values disagree."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from d2_ros.config import Config, with_values
from d2_ros.features.early import EarlyMap
from d2_ros.features.extractor import Extractor
from d2_ros.matching import alignment, batched
from d2_ros.matching.alignment import accept, align, forward_backward
from d2_ros.matching.cutting import cut
from d2_ros.matching.early import LazyPyramid, early_pyramid
from d2_ros.matching.pyramid import Level, build_pyramid, sample, to_gray
from d2_ros.matching.warps import Warps

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def extractor():
    return Extractor(with_values(Config(), {"device": "cpu"}))


def render(plane, matrix, offset, rng):
    """View of 320x240 in which pixel x shows ``matrix @ x + offset`` of `plane`, area-averaged."""
    fine = 4
    shift = offset - (fine - 1) / (2 * fine) * matrix.sum(1)
    warp = np.column_stack([matrix / fine, shift])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    view = cv2.warpAffine(plane, warp, (320 * fine, 240 * fine), flags=flags)
    view = view.reshape(240, fine, 320, fine).mean((1, 3)) + rng.normal(0, 1.5, (240, 320))
    return np.clip(np.round(view), 0, 255).astype(np.uint8)


def relit(view, rng):
    """A nonlinear tone curve, its negative in every other cell, and shading."""
    x = view.astype(np.float32) / 255
    v, u = np.mgrid[: view.shape[0], : view.shape[1]]
    cells = (np.sin(u / 23) * np.sin(v / 19) > 0).astype(np.float32)
    mask = cv2.GaussianBlur(cells, (0, 0), 3)
    curve = 0.1 + 0.8 * x**0.4
    out = (mask * curve + (1 - mask) * (1 - curve)) * (
        0.75 + 0.25 * np.sin(u / 31) * np.cos(v / 37)
    )
    return np.clip(np.round(out * 255 + rng.normal(0, 1.5, view.shape)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module", params=["astronaut", "camera"])
def views(request):
    """Two views of a photograph, places in the first and where they lie in the second."""
    image = getattr(skimage.data, request.param)()
    plane = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    plane = cv2.resize(plane, (1536, 1536), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    rng = np.random.default_rng(0)
    turn = cv2.getRotationMatrix2D((0, 0), -4, 1)[:, :2]
    first, offset = np.eye(2) * 2, np.array([200.0, 350.0])
    second, moved = turn @ np.array([[1.08, 0.03], [0.0, 0.97]]) * 2, np.array([204.2, 347.3])
    one = render(plane, first, offset, rng)
    two = render(plane, second, moved, rng)
    places = cv2.goodFeaturesToTrack(one, 300, 0.02, 6)[:, 0] + rng.uniform(-0.5, 0.5, (1, 2))
    places = places[np.all((places > 25) & (places < [295, 215]), axis=1)].astype(np.float64)
    truth = np.linalg.solve(second, (first @ places.T) + (offset - moved)[:, None]).T
    return one, two, places, truth


def measure(pyramids, places, truth, min_correlation):
    """Alignments from 1 px off, their errors, and which pass all gates."""
    config = with_values(Config(), {"alignment.min_correlation": min_correlation}).alignment
    start = truth + np.random.default_rng(1).normal(0, 1.0, truth.shape)
    one, two = pyramids
    warps = Warps(start, np.tile(np.eye(2), (len(places), 1, 1)))
    found = align(cut(one, places, config.patch_radius), two, [warps], config)
    there = cut(two, found.warps.pixels, config.patch_radius)[0]
    each, first = np.arange(len(places)), np.zeros(len(places), np.int64)
    back = forward_backward(
        there, each, found.warps.pixels, found.warps, [one], first, places, config
    )
    good = accept(found, start, config) & (back <= config.max_forward_backward)
    return found, found.warps.pixels - truth, good


def early(extractor, *images):
    return [early_pyramid(extractor.early(image), 2) for image in images]


def test_early_maps_align_where_gray_values_cannot(views, extractor):
    one, two, places, truth = views
    two = relit(two, np.random.default_rng(2))
    gray_pair = [build_pyramid(to_gray(image), 2, CPU) for image in (one, two)]
    right = {}
    for name, pair in (("gray", gray_pair), ("early", early(extractor, one, two))):
        _, error, good = measure(pair, places, truth, 0.9 if name == "gray" else 0.7)
        right[name] = (good & (np.linalg.norm(error, axis=1) < 0.5)).mean()
        print(name, right[name], good.mean(), np.median(np.linalg.norm(error[good], axis=1)))
    assert right["gray"] < 0.3
    assert right["early"] > 0.4


def test_covariances_of_early_maps_have_the_size_of_the_error(views, extractor):
    one, two, places, truth = views
    found, error, good = measure(early(extractor, one, two), places, truth, 0.7)
    assert good.mean() > 0.95
    assert np.median(np.linalg.norm(error[good], axis=1)) < 0.08
    squared = np.einsum("ni,nij,nj->n", error, np.linalg.inv(found.covariance), error)[good]
    assert 0.5 < np.median(squared) / 1.386 < 2.0
    assert np.mean(squared < 5.99) > 0.88


def test_negatives_look_alike(views, extractor):
    one, *_ = views
    maps, negative = (extractor.early(image).values for image in (one, 255 - one))
    assert np.corrcoef(maps.flatten(), negative.flatten())[0, 1] > 0.8


@pytest.mark.parametrize("max_edge", [320, 200])
def test_cells_lie_where_the_image_has_them(max_edge):
    """A ramp in u and v, reduced for the network or not, is read at the raw pixel."""
    extractor_scale = max_edge / 320
    u, v = np.meshgrid(*(np.arange(n * extractor_scale) for n in (320, 240)))
    cells = np.stack([u, v]).astype(np.float32)
    raw = (cells + 0.5) / extractor_scale - 0.5
    maps = EarlyMap(torch.from_numpy(raw.astype(np.float32)), np.full(2, extractor_scale))
    points = torch.tensor([[[100.0, 120.0], [161.5, 83.25]]])
    for number, level in enumerate(early_pyramid(maps, 2)):
        assert level.size == (320 // 2**number, 240 // 2**number)
        values = sample(level, points / 2**number).view(2, 2)
        np.testing.assert_allclose(values.T, points[0], atol=2e-2)


def test_equal_channels_measure_what_one_does(views, monkeypatch):
    monkeypatch.setattr(alignment, "steps_for", lambda image: batched)  # one channel as well
    one, two, places, truth = views
    gray_pair = [build_pyramid(to_gray(image), 2, CPU) for image in (one, two)]
    triple = [
        tuple(Level(lv.texels.expand(-1, 3, -1, -1), lv.size, lv.scale, lv.shift) for lv in pyramid)
        for pyramid in gray_pair
    ]
    single, _, good = measure(gray_pair, places, truth, 0.9)
    found, _, also = measure(triple, places, truth, 0.9)
    np.testing.assert_allclose(found.warps.pixels[good], single.warps.pixels[good], atol=2e-3)
    np.testing.assert_allclose(found.correlation, single.correlation, atol=1e-3)
    assert (good == also).mean() > 0.98


def test_a_lazy_pyramid_is_built_once_and_only_on_demand():
    built = []
    lazy = LazyPyramid(lambda: built.append(1) or ())
    assert not built
    assert lazy.pyramid == () == lazy.pyramid
    assert built == [1]
