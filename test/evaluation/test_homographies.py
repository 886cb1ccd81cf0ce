"""Matching accuracy of matches whose errors are known."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2_ros.errors import D2RosError
from d2_ros.evaluation.homographies import (
    accuracy,
    find_pairs,
    homography_errors,
    homography_figures,
    judge_homography,
    load_pair,
    oriented,
)
from d2_ros.evaluation.match_sets import MatchSets

H = np.array([[0.9, 0.1, 12.0], [-0.05, 1.1, 3.0], [1e-4, -2e-4, 1.0]])


def mapped(first):
    there = np.column_stack([first, np.ones(len(first))]) @ H.T
    return there[:, :2] / there[:, 2:]


def scene(folder: Path, numbers):
    folder.mkdir(parents=True)
    (folder / "1.png").touch()
    for number in numbers:
        (folder / f"{number}.JPG").touch()
        np.savetxt(folder / f"H_1_{number}", H * number)
    return folder


def match_sets(first, second, kept=slice(None), published=0, guided=0):
    """Matches of which `kept` is verified, and the first so many published and guided."""
    return MatchSets(
        (first, second),
        (first[kept], second[kept]),
        (first[:published], second[:published]),
        (first[:guided], second[:guided]),
    )


def test_errors_are_distances_after_the_map():
    first = np.random.default_rng(0).uniform(20, 300, (100, 2))
    second = mapped(first)
    second[:30] += [0.3, 0.4]
    second[30:35] += [40.0, 0.0]
    errors = homography_errors((first, second), H)
    np.testing.assert_allclose(errors[:30], 0.5)
    np.testing.assert_allclose(errors[30:35], 40.0)
    np.testing.assert_allclose(errors[35:], 0, atol=1e-9)


def test_points_beyond_the_horizon_are_wrong():
    behind = np.diag([1.0, 1.0, 1.0])
    behind[2] = [-0.01, 0, 1]
    points = np.array([[200.0, 5], [50, 5]]), np.array([[-200.0, -5], [100, 10]])
    np.testing.assert_allclose(homography_errors(points, behind), [np.inf, 0], atol=1e-9)


@given(st.floats(1e-9, 1e9), st.sampled_from([-1, 1]))
def test_the_factor_and_the_sign_of_a_homography_say_nothing(factor, sign):
    first = np.random.default_rng(0).uniform(20, 300, (50, 2))
    found = oriented(sign * factor * H, (240, 320, 3))
    np.testing.assert_allclose(homography_errors((first, mapped(first)), found), 0, atol=1e-9)


def test_what_lies_beyond_the_horizon_does_not_depend_on_the_sign():
    """The horizon runs through the image, right of its centre."""
    steep = np.eye(3)
    steep[2] = [-1 / 250, 0, 1]
    points = np.array([[100.0, 9], [300, 9]]), np.array([[100 / 0.6, 15], [-1500, -45]])
    for sign in (-1, 1):
        errors = homography_errors(points, oriented(sign * steep, (240, 320)))
        np.testing.assert_allclose(errors, [0, np.inf], atol=1e-9)


def test_a_homography_of_negative_sign_is_turned_when_it_is_loaded(tmp_path):
    folder = scene(tmp_path / "a", [2])
    for name in ("1.png", "2.JPG"):
        cv2.imwrite(str(folder / name), np.zeros((90, 120), np.uint8))
    np.savetxt(folder / "H_1_2", -3 * H)
    images, homography = load_pair(find_pairs(folder)[0])
    np.testing.assert_allclose(homography, 3 * H)
    assert images[1].shape == (90, 120)
    np.savetxt(folder / "H_1_2", [[1, 0, 0], [0, 1, 0], [1, 0, -59.5]])
    with pytest.raises(D2RosError, match="a 1-2: it maps the centre of the first image to infin"):
        load_pair(find_pairs(folder)[0])


def test_figures_are_means_over_pairs_of_every_match_set():
    exact = np.random.default_rng(0).uniform(20, 300, (40, 2))
    wrong = mapped(exact[:20])
    wrong[:10] += [0.0, 2.5]
    none = np.empty((0, 2))
    results = [
        judge_homography(found, H)
        for found in (
            match_sets(exact, mapped(exact), published=12, guided=6),
            match_sets(exact[:20], wrong, kept=slice(5, None), published=12, guided=3),
            match_sets(none, none),
        )
    ]
    figures = homography_figures(results)
    assert figures["pairs"] == 3
    assert figures["mma_1px"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert figures["mma_2px"] == pytest.approx(0.5)
    assert figures["mma_3px"] == pytest.approx(2 / 3)
    assert figures["matches"] == 20
    assert figures["correct_1px"] == pytest.approx((40 + 10) / 3)
    assert figures["correct_3px"] == pytest.approx(20)
    assert figures["verified_matches"] == pytest.approx((40 + 15) / 3)
    assert figures["verified_mma_1px"] == pytest.approx((1 + 10 / 15) / 3)
    assert figures["verified_correct_1px"] == pytest.approx((40 + 10) / 3)
    assert figures["published_matches"] == 8
    assert figures["published_correct_1px"] == pytest.approx((12 + 2) / 3)
    assert figures["published_correct_3px"] == 8
    assert figures["guided_matches"] == 3
    assert figures["guided_correct_1px"] == 2
    assert figures["guided_mma_3px"] == pytest.approx(2 / 3)


def test_accuracy_includes_the_threshold():
    np.testing.assert_allclose(accuracy(np.array([0, 1, 1.5, 7]), (1, 2, 5)), [0.5, 0.75, 0.75])
    np.testing.assert_allclose(accuracy(np.empty(0), (1, 2)), 0)


def test_scenes_are_found_in_order_of_their_numbers(tmp_path):
    scene(tmp_path / "b", [2, 10, 3])
    scene(tmp_path / "a", [2])
    (tmp_path / "other").mkdir()
    pairs = find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == ["a 1-2", "b 1-2", "b 1-3", "b 1-10"]
    assert [pair.second.name for pair in pairs] == ["2.JPG", "2.JPG", "3.JPG", "10.JPG"]
    np.testing.assert_allclose(pairs[3].homography, 10 * H)
    assert [pair.name for pair in find_pairs(tmp_path / "a")] == ["a 1-2"]


def test_what_is_wrong_with_a_folder_is_said(tmp_path):
    with pytest.raises(D2RosError, match="holds no scenes"):
        find_pairs(tmp_path)
    folder = scene(tmp_path / "a", [2])
    (folder / "2.JPG").unlink()
    with pytest.raises(D2RosError, match=r"no image 2\."):
        find_pairs(tmp_path)
    for text, words in (
        ("1 2 3", "not three rows"),
        ("a b c", "cannot be read"),
        ("1 2 3\n2 4 6\n0 0 1\n", "is singular"),
        ("0 0 0\n" * 3, "is singular"),
    ):
        (folder / "H_1_2").write_text(text)
        with pytest.raises(D2RosError, match=words):
            find_pairs(folder)
