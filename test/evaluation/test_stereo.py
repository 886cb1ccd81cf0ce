"""Stereo matches against a disparity that is known."""

import numpy as np
import pytest

from d2_ros.evaluation.match_sets import MatchSets, select
from d2_ros.evaluation.stereo import judge_stereo, motorcycle, stereo_errors, stereo_figures


def test_errors_are_distances_from_the_place_that_the_disparity_says():
    columns, rows = np.meshgrid(np.arange(60.0), np.arange(40.0))
    disparity = 5 + 0.1 * columns + 0.05 * rows  # a slanted plane: bilinear is exact
    left = np.random.default_rng(0).uniform([1, 1], [58, 38], (50, 2))
    right = left - np.column_stack([5 + left @ [0.1, 0.05], np.zeros(50)])
    np.testing.assert_allclose(stereo_errors((left, right), disparity), 0, atol=1e-9)
    np.testing.assert_allclose(stereo_errors((left, np.add(right, [0.3, -0.4])), disparity), 0.5)


def test_places_without_a_truth_do_not_count():
    disparity = np.full((40, 60), 10.0)
    disparity[:, 30:] = 20.0  # a depth edge between columns 29 and 30
    disparity[20, 10] = np.inf
    left = np.array([[29.5, 5], [10.2, 19.7], [-0.5, 3], [59.5, 3], [5.5, 5.5], [40.2, 8]])
    errors = stereo_errors((left, left - [10.0, 0]), disparity)
    np.testing.assert_allclose(errors, [0, 10])
    assert len(stereo_errors((np.empty((0, 2)), np.empty((0, 2))), disparity)) == 0


def test_figures():
    raw = np.array([0.1, 0.5, 0.7, 2.0, 9.0])
    match_sets = {"verified": raw[1:4], "published": raw[1:2], "guided": np.empty(0)}
    figures = stereo_figures({"raw": raw, **match_sets})
    of_raw = {
        "matches": 5, "share_0.5px": 0.4, "within_0.5px": 2, "share_1px": 0.6, "within_1px": 3,
        "share_3px": 0.8, "within_3px": 4, "median_within_3px_px": pytest.approx(0.6),
    }  # fmt: skip
    assert {key: figures[key] for key in of_raw} == of_raw
    assert (figures["verified_matches"], figures["verified_within_1px"]) == (3, 2)
    assert figures["verified_median_within_3px_px"] == 0.7
    assert (figures["published_matches"], figures["published_within_0.5px"]) == (1, 1)
    assert (figures["guided_matches"], figures["guided_share_1px"]) == (0, 0)


def test_a_match_is_judged_in_the_match_sets_that_it_is_in():
    left = np.random.default_rng(0).uniform([1, 1], [58, 38], (10, 2))
    points = left, left - [4.0, 0]
    found = MatchSets(
        points, select(points, left[:, 0] > 30), points, select(points, left[:, 0] < 0)
    )
    errors = judge_stereo(found, np.full((40, 60), 5.0))
    np.testing.assert_allclose(errors["raw"], 1)
    assert {name: len(off) for name, off in errors.items()} == {
        "raw": 10, "verified": (left[:, 0] > 30).sum(), "published": 10, "guided": 0,
    }  # fmt: skip


def test_the_pictures_agree_with_the_disparity():
    pytest.importorskip("skimage")
    pair = motorcycle()
    rows, columns = np.meshgrid(np.arange(100, 400, 7), np.arange(150, 700, 7), indexing="ij")
    offset = pair.disparity[rows, columns]
    known = np.isfinite(offset)
    rows, columns = rows[known], columns[known]
    there = np.rint(columns - offset[known]).astype(int)
    difference = pair.left[rows, columns].astype(float) - pair.right[rows, there]
    assert np.median(np.abs(difference)) < 8
