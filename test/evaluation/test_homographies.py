"""Matching accuracy of matches whose errors are known."""

from pathlib import Path

import numpy as np
import pytest

from d2_ros.config import MatchingConfig
from d2_ros.errors import D2RosError
from d2_ros.evaluation.homographies import (
    accuracy,
    find_pairs,
    homography_figures,
    judge_homography,
)

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


def test_errors_are_distances_after_the_map():
    first = np.random.default_rng(0).uniform(20, 300, (100, 2))
    second = mapped(first)
    second[:30] += [0.3, 0.4]
    second[30:35] += [40.0, 0.0]
    judged = judge_homography((first, second), H, MatchingConfig())
    np.testing.assert_allclose(judged.errors[:30], 0.5)
    np.testing.assert_allclose(judged.errors[30:35], 40.0)
    np.testing.assert_allclose(judged.errors[35:], 0, atol=1e-9)
    assert not judged.inlier[30:35].any()
    assert judged.inlier[35:].all()


def test_points_beyond_the_horizon_are_wrong():
    behind = np.diag([1.0, 1.0, 1.0])
    behind[2] = [-0.01, 0, 1]
    judged = judge_homography((np.array([[200.0, 5]]), np.zeros((1, 2))), behind, MatchingConfig())
    assert np.isinf(judged.errors[0])


def test_figures_are_means_over_pairs():
    exact = np.random.default_rng(0).uniform(20, 300, (40, 2))
    wrong = mapped(exact[:20])
    wrong[:10] += [0.0, 2.5]
    results = [
        judge_homography((exact, mapped(exact)), H, MatchingConfig()),
        judge_homography((exact[:20], wrong), H, MatchingConfig()),
        judge_homography((np.empty((0, 2)), np.empty((0, 2))), H, MatchingConfig()),
    ]
    figures = homography_figures(results)
    assert figures["mma_1px"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert figures["mma_2px"] == pytest.approx(0.5)
    assert figures["mma_3px"] == pytest.approx(2 / 3)
    assert figures["matches"] == 20
    assert figures["correct_1px"] == pytest.approx((40 + 10) / 3)
    assert figures["correct_3px"] == pytest.approx(20)
    assert figures["pairs"] == 3
    assert figures["inlier_matches"] >= 40 / 3


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
    for text, words in (("1 2 3", "not three rows"), ("a b c", "cannot be read")):
        (folder / "H_1_2").write_text(text)
        with pytest.raises(D2RosError, match=words):
            find_pairs(folder)
