"""Recall and precision of answers of which it is known how good they are."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from d2_ros.evaluation.places import Answer, Truth, judge

pytest.importorskip("faiss", reason="faiss is not installed (extra places)")


def poses(*places, turn_deg=0.0):
    whole = np.tile(np.eye(4), (len(places), 1, 1))
    whole[:, :3, :3] = Rotation.from_euler("y", turn_deg, degrees=True).as_matrix()
    whole[:, 0, 3] = places
    return whole


def answer(best, inliers, *candidates, **motion):
    return Answer(np.array(candidates or (best,)), best, inliers, **motion)


KNOWN = poses(0, 10, 20, 30)


def test_recall_ends_where_the_first_false_answer_begins():
    queries = poses(0.1, 10.1, 20.1, 30.1, 50)
    truth = Truth(KNOWN, queries, 0.5, 20)
    answers = [answer(0, 90), answer(1, 80), answer(0, 70), answer(3, 60), answer(2, 10)]
    judged = judge(answers, truth)
    assert judged.right.tolist() == [True, True, False, True, False]
    assert judged.false.tolist() == [False, False, True, False, True]
    figures = judged.figures(min_inliers=65)
    assert figures["revisits"] == 4
    assert figures["recall_at_full_precision"] == 0.5
    assert figures["recall"] == 0.5
    assert figures["false_revisits"] == 1
    recall, precision = judged.curve()
    np.testing.assert_allclose(recall, [0.25, 0.5, 0.5, 0.75, 0.75])
    np.testing.assert_allclose(precision, [1, 1, 2 / 3, 3 / 4, 3 / 5])
    assert figures["average_precision"] == pytest.approx(0.25 + 0.25 + 0.25 * 3 / 4)


def test_a_false_answer_with_as_many_inliers_counts_with_the_right_one():
    truth = Truth(KNOWN, poses(0, 10), 0.5, 20)
    judged = judge([answer(0, 50), answer(3, 50)], truth)
    assert judged.figures(20)["recall_at_full_precision"] == 0


def test_between_one_and_two_radii_an_answer_is_neither_right_nor_false():
    judged = judge([answer(0, 50)], Truth(KNOWN, poses(0.8), 0.5, 20))
    assert not judged.right.any()
    assert not judged.false.any()
    assert judged.figures(20)["revisits"] == 0


def test_a_place_seen_the_other_way_is_another_one():
    judged = judge([answer(0, 50)], Truth(KNOWN, poses(0, turn_deg=90), 0.5, 20))
    assert judged.false.all()


def test_candidates_are_judged_before_geometry_and_none_told_is_no_mistake():
    truth = Truth(KNOWN, poses(0, 10), 0.5, 20)
    judged = judge([answer(-1, 0, 3, 0), answer(-1, 0, 2, 3)], truth)
    figures = judged.figures(20)
    assert figures["candidate_recall"] == 0.5
    assert figures["recall"] == figures["false_revisits"] == 0
    assert figures["recall_at_full_precision"] == figures["average_precision"] == 0


def test_errors_of_the_pose_are_those_of_the_right_answers():
    turned = Rotation.from_euler("y", 3, degrees=True).as_matrix()
    aside = np.array([np.cos(np.radians(4)), np.sin(np.radians(4)), 0])
    answers = [
        answer(0, 50, rotation=turned, direction=-aside),
        answer(0, 50, rotation=np.eye(3)),
        answer(0, 50, rotation=-turned, direction=aside),
    ]
    judged = judge(answers, Truth(KNOWN, poses(0.4, 0.2, 40), 0.5, 20))
    np.testing.assert_allclose(judged.rotation_deg, [3, 0], atol=1e-6)
    np.testing.assert_allclose(judged.direction_deg, [4], atol=1e-6)
    assert judged.figures(20)["direction_within_5deg"] == 1


@pytest.mark.parametrize(
    ("turn_deg", "direction", "false"),
    [(0, [1, 0, 0], False), (7, [1, 0, 0], True), (0, [0, 0, 1], True), (0, None, True)],
)
def test_from_further_away_the_pose_says_whether_an_answer_is_false(turn_deg, direction, false):
    rotation = Rotation.from_euler("y", turn_deg, degrees=True).as_matrix()
    along = None if direction is None else np.array(direction, float)
    told = answer(0, 50, rotation=rotation, direction=along)
    judged = judge([told], Truth(KNOWN, poses(3), 0.5, 20))
    assert judged.false.tolist() == [false]
    assert not judged.right.any()
