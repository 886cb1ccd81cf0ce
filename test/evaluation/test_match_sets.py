"""Two images by every method: what is raw, verified, published and guided."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from d2_ros.config import Config
from d2_ros.evaluation.match_sets import MATCH_SETS, match_images, select, verified
from d2_ros.evaluation.peers import gray8, mutual_nearest, root_sift
from d2_ros.evaluation.stages import stage_points
from d2_ros.frontend import FrontEnd
from d2_ros.matching.neighbours import match
from d2_ros.matching.verification import verify

METHODS = ("d2", "d2_detected", "d2_published", "sift", "orb")


def errors(points, motion):
    return np.linalg.norm(points[0] @ motion[:, :2].T + motion[:, 2] - points[1], axis=1)


@pytest.fixture(scope="module")
def images():
    """A photograph, it turned and enlarged, and that motion ``(2, 3)``."""
    photo = pytest.importorskip("skimage.data").astronaut()
    first = cv2.resize(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), (200, 200))
    motion = cv2.getRotationMatrix2D((100, 100), 8, 1.1)
    return first, cv2.warpAffine(first, motion, (200, 200)), motion


@pytest.fixture(scope="module")
def frontend():
    return FrontEnd(Config(threads=1))


@pytest.fixture(scope="module")
def found(frontend, images):
    return match_images(frontend, images[:2])


def test_every_method_is_in_every_match_set(found):
    assert tuple(found) == METHODS
    assert MATCH_SETS == ("raw", "verified", "published", "guided")


def test_raw_matches_are_the_mutual_nearest_neighbours_and_nothing_else(found, frontend, images):
    first, second = (frontend.extractor.extract([image])[0] for image in images[:2])
    mutual = match(second.descriptors, [first.descriptors])
    detected = first.keypoints[mutual.keyframe_index], second.keypoints[mutual.index]
    for places, expected in zip(found["d2_detected"].raw, detected, strict=True):
        np.testing.assert_array_equal(places, expected)
    assert [len(found[name].raw[0]) for name in METHODS[:3]] == [len(mutual)] * 3
    ours, theirs = (root_sift(gray8(image), 1000) for image in images[:2])
    near, far = mutual_nearest(ours, theirs)
    np.testing.assert_array_equal(found["sift"].raw[0], ours.pixels[near])
    np.testing.assert_array_equal(found["sift"].raw[1], theirs.pixels[far])


def test_raw_places_are_aligned_or_left_where_they_were_detected(found, images):
    (start, aligned), (_, detected) = found["d2"].raw, found["d2_detected"].raw
    moved = (aligned != detected).any(axis=1)
    assert 0.3 < moved.mean() < 1  # this pair has wrong matches, whose alignment fails
    off = errors((start, aligned), images[2])
    assert np.median(off[moved]) < 0.1 * np.median(errors((start, detected), images[2])[moved])
    assert np.median(off[~moved]) > 3
    np.testing.assert_array_equal(found["d2_published"].raw[1], detected - 2)


def test_what_is_published_is_the_front_ends_and_guided_ones_are_apart(found, frontend, images):
    frontend.reset()
    first, second = (frontend.process(image, n * 10**9) for n, image in enumerate(images[:2], 1))
    shapes = (images[0].shape, images[1].shape)
    told = stage_points(first.features, second, 10**9, shapes, 1600)["d2"]
    ours = found["d2"]
    both = {tuple(row) for part in (ours.published, ours.guided) for row in np.hstack(part)}
    assert both == set(map(tuple, np.hstack(told)))
    assert len(ours.published[0]) + len(ours.guided[0]) == len(told[0])
    # The descriptors of the former are mutually nearest, of the latter not.
    raw = set(map(tuple, np.hstack(found["d2_detected"].raw)))
    detected = found["d2_detected"]
    assert len(detected.published[0]) > 30
    assert all(tuple(row) in raw for row in np.hstack(detected.published))
    assert len(detected.guided[0]) > 0
    assert not any(tuple(row) in raw for row in np.hstack(detected.guided))


def test_raw_places_are_those_that_the_front_end_publishes(found):
    """The same alignment: a match that is published lies where it lies among the raw ones."""
    place = dict(
        zip(map(tuple, np.hstack(found["d2_detected"].raw)), found["d2"].raw[1], strict=True)
    )
    raw = [place[tuple(row)] for row in np.hstack(found["d2_detected"].published)]
    off = np.linalg.norm(found["d2"].published[1] - raw, axis=1)
    assert np.median(off) < 0.01
    assert np.mean(off < 0.1) > 0.9


def test_all_are_verified_alike(found):
    settings = Config().matching
    for name, match_sets in found.items():
        first, second = match_sets.raw
        kept = verify(second, first, None, None, settings.max_error, settings.seed).inlier
        assert 20 < kept.sum() < len(kept), name
        np.testing.assert_array_equal(match_sets.verified[0], first[kept])
        np.testing.assert_array_equal(match_sets.verified[1], second[kept])
        again = verified(match_sets.raw, (None, None), settings)
        np.testing.assert_array_equal(again, match_sets.verified)
    for name in ("sift", "orb"):  # have no further stages
        assert found[name].published is found[name].verified
        assert len(found[name].guided[0]) == 0


def test_without_refinement_nothing_is_aligned(frontend, images):
    config = frontend.config
    try:
        frontend.config = replace(config, refinement=replace(config.refinement, enabled=False))
        found = match_images(frontend, images[:2])
    finally:
        frontend.config = config
    np.testing.assert_array_equal(found["d2"].raw, found["d2_detected"].raw)


def test_images_without_texture_have_no_matches(frontend):
    flat = np.full((120, 160), 90, np.uint8)
    found = match_images(frontend, (flat, flat))
    for match_sets in found.values():
        for points in vars(match_sets).values():
            assert len(points[0]) == len(points[1])
        assert len(match_sets.published[0]) == 0


def test_rows_are_chosen_in_both_images():
    points = np.arange(6.0).reshape(3, 2), np.arange(6.0).reshape(3, 2) + 10
    first, second = select(points, np.array([True, False, True]))
    assert first.tolist() == [[0, 1], [4, 5]]
    assert second.tolist() == [[10, 11], [14, 15]]
