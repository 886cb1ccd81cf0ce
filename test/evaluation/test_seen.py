"""Matches judged where both images show the place, KLT's among them, and long gaps."""

import cv2
import numpy as np
import pytest

from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.evaluation.gaps import (
    gap_figures,
    gap_pairs,
    judge_gap,
    possible_gaps,
    truth_between,
)
from d2_ros.evaluation.match_sets import MatchSets
from d2_ros.evaluation.seen import judge_seen, klt_matches, share_seen
from d2_ros.sources.synthetic import open_synthetic

NOTHING = (np.empty((0, 2)), np.empty((0, 2)))


def shifted(pixels):
    """The second image lies 10 px to the right and shows 0 to 99 there."""
    there = pixels + np.array([10.0, 0])
    return there, there[:, 0] < 100


def test_errors_are_those_of_the_places_that_both_images_show():
    first = np.array([[0.0, 5], [50, 5], [95, 5]])
    second = np.array([[10.0, 5], [63, 9], [20, 5]])
    found = MatchSets((first, second), (first[:1], second[:1]), NOTHING, NOTHING)
    errors = judge_seen(found, shifted)
    np.testing.assert_allclose(errors["raw"], [0, 5])  # the third place is not in the second
    np.testing.assert_allclose(errors["verified"], [0])
    assert errors["published"].shape == errors["guided"].shape == (0,)
    assert share_seen(shifted, (100, 40)) == pytest.approx(23 / 25)


def test_klt_starts_from_the_same_place_and_follows_small_motion():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(140, 200))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    image = np.clip(128 + 400 * smooth, 0, 255).astype(np.uint8)
    found = klt_matches((image[4:124, 6:166], image[:120, :160]), (None, None), Config())
    moved = found.raw[1] - found.raw[0]
    assert len(moved) > 40
    np.testing.assert_allclose(np.median(moved, axis=0), [6, 4], atol=0.02)
    assert len(found.verified[0]) > 0.9 * len(moved)
    assert found.published is found.verified
    assert len(found.guided[0]) == 0
    blank = np.zeros((120, 160), np.uint8)
    assert len(klt_matches((blank, blank), (None, None), Config()).raw[0]) == 0


def test_pairs_are_all_that_fit_and_a_sequence_too_short_is_refused():
    assert list(gap_pairs(30, 20, 4)) == [(0, 20), (4, 24), (8, 28)]
    assert list(gap_pairs(21, 20, 4)) == [(0, 20)]
    assert possible_gaps(90) == (10, 20, 40, 60)
    assert possible_gaps(41) == (10, 20, 40)
    assert possible_gaps(40) == (10, 20)
    with pytest.raises(D2RosError, match="use frames=11"):
        possible_gaps(10)


def test_exact_matches_of_a_gap_have_no_error_and_the_true_pose():
    source = open_synthetic("size=160x120,frames=30")
    pixels = np.random.default_rng(0).uniform(5, 110, (300, 2))
    truth = truth_between(source, 3, 23)
    true, seen = truth(pixels)
    assert 30 < seen.sum() < 300  # hidden or outside: left out
    exact = (pixels[seen], true[seen])
    wrong = true + np.array([2.7, 3.6])
    found = MatchSets((pixels, wrong), exact, exact, NOTHING)
    judged = judge_gap(found, source, (3, 23), Config().matching)
    np.testing.assert_allclose(judged.errors["raw"], 4.5)
    assert len(judged.errors["raw"]) == seen.sum()
    np.testing.assert_allclose(judged.errors["verified"], 0, atol=1e-9)
    figures = gap_figures([judged])
    assert figures["mma_3px"] == 0
    assert figures["mma_5px"] == 1
    assert figures["verified_mma_1px"] == 1
    assert figures["verified_correct_1px"] == seen.sum()
    assert figures["rotation_error_deg"] < 0.01
    assert figures["auc_5deg"] > 0.98
