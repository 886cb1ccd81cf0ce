"""The test set of other light: the same every time, exact, stronger step by step."""

import hashlib

import cv2
import numpy as np
import pytest

from d2_ros.evaluation.illumination import (
    PHOTOGRAPHS,
    STRENGTHS,
    UNCHANGED,
    illumination_pairs,
    seen_by,
    transform,
)

SIZE = (160, 120)

pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def pairs():
    return list(illumination_pairs(0, SIZE, ("astronaut", "coffee")))


def of_kind(pairs, photo, kind):
    return [pair for pair in pairs if pair.photo == photo and pair.kind == kind]


def correlation(one, other):
    return np.corrcoef(one.ravel().astype(float), other.ravel().astype(float))[0, 1]


def digest(pairs):
    whole = hashlib.sha256()
    for pair in pairs:
        for part in (pair.first, pair.second, pair.homography):
            whole.update(part.tobytes())
    return whole.hexdigest()


def test_there_is_one_unchanged_pair_and_one_of_each_kind_and_strength(pairs):
    assert len({pair.name for pair in pairs}) == len(pairs) == 2 * (1 + 5 * 5)
    for photo in ("astronaut", "coffee"):
        assert [pair.strength for pair in of_kind(pairs, photo, UNCHANGED)] == [0]
        for kind in STRENGTHS:
            assert [pair.strength for pair in of_kind(pairs, photo, kind)] == [1, 2, 3, 4, 5]
    assert {pair.first.shape for pair in pairs} | {pair.second.shape for pair in pairs} == {
        (120, 160, 3)
    }


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(pairs):
    coffee = [pair for pair in pairs if pair.photo == "coffee"]
    again = digest(illumination_pairs(0, SIZE, ("coffee",)))  # whatever photographs are beside it
    assert again == digest(coffee)
    assert digest(illumination_pairs(1, SIZE, ("coffee",))) != again


@pytest.mark.parametrize("photo", PHOTOGRAPHS)
def test_the_homography_is_where_an_alignment_of_the_images_ends(photo):
    """ECC starts 1.5 px off and must come back to within a twentieth of a pixel everywhere."""
    pair = next(illumination_pairs(0, (320, 240), (photo,)))
    start = pair.homography / pair.homography[2, 2]
    start[:2, 2] += [1.5, -1.5]
    first, second = (cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in (pair.first, pair.second))
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-7)
    correlation, found = cv2.findTransformECC(
        first, second, start.astype(np.float32), cv2.MOTION_HOMOGRAPHY, criteria, None, 3
    )
    assert correlation > 0.99
    grid = np.stack(np.meshgrid(np.arange(20.0, 301, 40), np.arange(20.0, 221, 40)), -1)
    grid = grid.reshape(-1, 2)
    grid = grid[seen_by(pair.homography, (320, 240))(grid)[1]]
    there, aligned = (transform(grid, H.astype(np.float64)) for H in (pair.homography, found))
    assert np.abs(there - aligned).max() < 0.05
    assert np.linalg.norm(there - grid, axis=1).mean() > 3  # identity is no answer


def test_both_images_show_the_photograph_everywhere(monkeypatch):
    """A white photograph on black ground stays white: neither image shows a border of it."""
    white = np.full((480, 640, 3), 255, np.uint8)
    monkeypatch.setattr("d2_ros.evaluation.illumination.photograph", lambda name: white)
    monkeypatch.setattr(cv2, "BORDER_REFLECT_101", cv2.BORDER_CONSTANT)
    for seed in range(10):
        pair = next(illumination_pairs(seed, SIZE if seed else (20, 640)))
        assert pair.first.min() == pair.second.min() == 255


def test_each_strength_is_less_like_the_unchanged_image_than_the_last(pairs):
    for photo in ("astronaut", "coffee"):
        plain = of_kind(pairs, photo, UNCHANGED)[0]
        for kind in STRENGTHS:
            steps = of_kind(pairs, photo, kind)
            assert all(np.array_equal(step.first, plain.first) for step in steps)
            assert all(np.array_equal(step.homography, plain.homography) for step in steps)
            alike = [correlation(step.second, plain.second) for step in steps]
            # Half a stop more light cuts off little: most of it is another factor.
            assert (np.diff([1, *alike]) < -5e-5).all(), (kind, alike)
            assert (np.diff(alike) < -0.002).all(), (kind, alike)
            assert alike[-1] > 0.5, (kind, alike)  # hard, but not impossible


def test_light_changes_as_its_kind_says(pairs):
    plain = of_kind(pairs, "coffee", UNCHANGED)[0].second.astype(float)
    last = {kind: of_kind(pairs, "coffee", kind)[-1].second.astype(float) for kind in STRENGTHS}
    np.testing.assert_allclose(last["gamma"] / 255, (plain / 255) ** 5, atol=0.012)
    gain = np.where(plain > 0, plain, 1)
    assert (last["shading"] <= plain + 1).all()
    shade = last["shading"].sum(2) / gain.sum(2)  # of light 0.05 and more: 0.05 ** (1 / 2.2)
    assert 0.24 < shade.min() < 0.35
    assert shade.max() > 0.9
    expected = np.clip((plain / 255) * 2 ** (2.5 / 2.2), 0, 1)
    np.testing.assert_allclose(last["exposure"] / 255, expected, atol=0.012)
    detail = [cv2.Laplacian(image, cv2.CV_64F).std() for image in (last["blur"], plain)]
    assert detail[0] < 0.25 * detail[1]
    assert last["night"].max() <= 153
    assert last["night"].mean() < 0.6 * plain.mean()


def test_places_seen_in_both_images_are_those_that_map_into_the_second():
    shift = np.eye(3)
    shift[:2, 2] = [10, -5]
    pixels = np.array([[0, 0], [0, 4.6], [149.4, 50], [149.6, 50], [20, 119.0]])
    there, seen = seen_by(shift, (160, 120))(pixels)
    np.testing.assert_allclose(there, pixels + np.array([10, -5]))
    np.testing.assert_array_equal(seen, [False, True, True, False, True])
    assert seen_by(shift, (160, 120))(np.empty((0, 2)))[1].shape == (0,)
