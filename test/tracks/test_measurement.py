"""Which of gray values and early maps measure the links of a pair of images."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from d2_ros.config import AlignmentConfig, Config, with_values
from d2_ros.features.extractor import Extractor
from d2_ros.matching.early import LazyPyramid, early_pyramid
from d2_ros.matching.neighbours import Matches
from d2_ros.matching.pyramid import build_pyramid, to_gray
from d2_ros.tracks.keyframe import cut_patches
from d2_ros.tracks.measurement import measure_links
from d2_ros.tracks.seen import Seen
from d2_ros.tracks.view import View

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def extractor():
    return Extractor(with_values(Config(), {"device": "cpu"}))


@pytest.fixture
def measured(keyframe, extractor):
    """Links of a view with a second one, measured, and the frames whose early maps were built."""

    def measure(second, truth, places, mode):
        config, built = replace(AlignmentConfig(), mode=mode), []

        def frame(image, pixels, stamp):
            def build():
                built.append(stamp)
                return early_pyramid(extractor.early(image), config.levels)

            made = keyframe(np.arange(1, len(pixels) + 1), pixels, stamp)
            plane = to_gray(image)
            pyramid = build_pyramid(plane, config.levels, CPU)
            view = View(stamp, None, pyramid, LazyPyramid(build), plane)
            return replace(made, view=view, patches=cut_patches(view, pixels, config.patch_radius))

        first = frame(skimage.data.camera()[:400], places, 1)
        start = truth + np.random.default_rng(1).normal(0, 0.8, truth.shape)
        rows = np.arange(len(places))
        links = Matches(rows, np.zeros_like(rows), rows, np.ones(len(rows), np.float32))
        made = frame(second, start, 2)
        seen = Seen(
            made.view, made.obs, links, [(rows, rows)], len(rows), followed=False, located=False
        )
        found = measure_links(seen, links, [first], config)
        error = np.linalg.norm(found.edges.pixels - truth[found.link], axis=1)
        return error, sorted(built)

    return measure


@pytest.fixture(scope="module")
def scene():
    """A photograph turned by 3 degrees; its corners, here and there."""
    image = skimage.data.camera()[:400]
    turn = cv2.getRotationMatrix2D((256, 200), 3, 1)
    second = cv2.warpAffine(image, turn, image.shape[::-1], flags=cv2.INTER_CUBIC)
    places = cv2.goodFeaturesToTrack(image, 200, 0.02, 8)[:, 0].astype(np.float64)
    places = places[np.all((places > 40) & (places < [470, 360]), axis=1)]
    return second, places @ turn[:, :2].T + turn[:, 2], places


def test_early_maps_are_not_even_built_where_gray_values_agree(scene, measured):
    second, truth, places = scene
    error, built = measured(second, truth, places, "auto")
    same, _ = measured(second, truth, places, "gray")
    assert built == []
    assert len(error) > 0.9 * len(places)
    assert np.median(error) < 0.1
    np.testing.assert_array_equal(error, same)


def test_early_maps_measure_a_pair_whose_gray_values_disagree(scene, measured):
    second, truth, places = scene
    negative = 255 - second
    assert len(measured(negative, truth, places, "gray")[0]) < 0.1 * len(places)
    error, built = measured(negative, truth, places, "auto")
    assert built == [1, 2]
    assert (error < 0.5).sum() > 0.8 * len(places)


def test_early_maps_on_request(scene, measured):
    error, built = measured(*scene, "features")
    assert built == [1, 2]
    assert len(error) > 0.8 * len(scene[1])
    assert np.median(error) < 0.15


def test_where_nothing_aligns_nothing_is_measured(scene, measured):
    second, truth, places = scene
    noise = np.random.default_rng(0).integers(0, 255, second.shape, np.uint8)
    error, _ = measured(noise, truth, places, "auto")
    assert len(error) < 0.05 * len(places)
