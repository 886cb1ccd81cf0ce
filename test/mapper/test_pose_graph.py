"""A way that drifts, put right by loops whose truth is exact."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from d2_ros.mapper.geometry import inverse
from d2_ros.mapper.pose_graph import Correction, Loop, PoseGraph

COUNT = 60
SURE = np.array([1e-4] * 3 + [1e-4] * 3 + [1e-3])
TIMES = [10**9 * k for k in range(COUNT)]


def circle():
    poses = np.tile(np.eye(4), (COUNT, 1, 1))
    for number, angle in enumerate(np.linspace(0, 2 * np.pi, COUNT)):
        poses[number, :3, :3] = Rotation.from_rotvec([0, angle, 0]).as_matrix()
        poses[number, :3, 3] = [3 * np.sin(angle), 0, 3 - 3 * np.cos(angle)]
    return poses


def drifting(poses, turn=0.0, growth=1.0, begin=0):
    """Each step from `begin` on turned a little further, and longer than the one before."""
    result = [poses[0]]
    for number in range(1, len(poses)):
        step = inverse(poses[number - 1]) @ poses[number]
        if number > begin:
            step[:3, :3] = step[:3, :3] @ Rotation.from_rotvec([0, turn, turn]).as_matrix()
            step[:3, 3] *= growth ** (number - begin)
        result.append(result[-1] @ step)
    return np.stack(result)


def loop(poses, then, now, scale=1.0, sigmas=SURE):
    return Loop(TIMES[then], TIMES[now], inverse(poses[then]) @ poses[now], scale, sigmas)


def places(graph, poses):
    return graph.correction.poses(np.array(TIMES, np.int64), poses)[:, :3, 3]


def rms(off):
    return float(np.sqrt((off**2).sum(axis=-1).mean()))


def test_without_loops_nothing_changes():
    poses = circle()
    np.testing.assert_array_equal(Correction().poses(np.array(TIMES), poses), poses)
    graph = PoseGraph()
    same = graph.corrected(dict(zip(TIMES, poses, strict=True)), set(), False)
    np.testing.assert_array_equal(same.poses(np.array(TIMES), poses), poses)


def test_a_loop_takes_the_drift_of_turn_place_and_scale():
    true = circle()
    drifted = drifting(true, turn=1e-3, growth=1.003)
    graph, keyframes = PoseGraph(), dict(zip(TIMES, drifted, strict=True))
    # Units have grown by 1.003 with each step: one of now is less than one of then.
    assert graph.add(loop(true, 0, COUNT - 1, 1.003 ** -(COUNT - 1)), keyframes, set(), False)
    before, after = drifted[:, :3, 3] - true[:, :3, 3], places(graph, drifted) - true[:, :3, 3]
    assert np.linalg.norm(after[-1]) < 1e-3
    assert rms(after) < rms(before) / 5
    assert graph.correction.scales[-1] == pytest.approx(1.003 ** -(COUNT - 1), rel=0.01)


def test_metres_keep_their_scale():
    true = circle()
    drifted = drifting(true, turn=1e-3)
    graph, keyframes = PoseGraph(), dict(zip(TIMES, drifted, strict=True))
    assert graph.add(loop(true, 0, COUNT - 1, 0.8), keyframes, set(), True)
    np.testing.assert_allclose(graph.correction.scales, 1.0, atol=1e-4)
    assert np.linalg.norm(places(graph, drifted)[-1] - true[-1, :3, 3]) < 1e-3


def test_a_loop_that_no_drift_explains_is_refused():
    poses = circle()
    graph, keyframes = PoseGraph(), dict(zip(TIMES, poses, strict=True))
    assert graph.add(loop(poses, 0, COUNT - 1), keyframes, set(), False)
    false = loop(poses, 5, 5, sigmas=SURE)  # the same place as half a circle away
    false = Loop(TIMES[5], TIMES[35], false.pose, 1.0, SURE)
    before = graph.correction
    assert not graph.add(false, keyframes, set(), False)
    assert graph.correction is before
    assert (len(graph.loops), graph.refused) == (1, 1)


def test_a_second_loop_that_contradicts_the_first_is_refused():
    """Over a joint anything goes, once."""
    poses = circle()
    graph, keyframes = PoseGraph(), dict(zip(TIMES, poses, strict=True))
    joints = {TIMES[30]}
    assert graph.add(loop(poses, 2, 50), keyframes, joints, False)
    aside = loop(poses, 4, 52)
    aside.pose[:3, 3] += [0.5, 0, 0]
    assert not graph.add(aside, keyframes, joints, False)


def test_a_joint_bends_before_measured_steps_do():
    true, half = circle(), COUNT // 2
    guessed = true.copy()  # the second segment: elsewhere, turned and half as large
    turn = Rotation.from_rotvec([0, 0.2, 0]).as_matrix()
    guessed[half:, :3, 3] = (
        true[half, :3, 3] + 0.5 * (true[half:, :3, 3] - true[half, :3, 3]) @ turn.T + [0.1, 0, 0.1]
    )
    guessed[half:, :3, :3] = turn @ true[half:, :3, :3]
    graph, keyframes = PoseGraph(), dict(zip(TIMES, guessed, strict=True))
    assert graph.add(loop(true, 0, COUNT - 1, 2.0), keyframes, {TIMES[half]}, False)
    off = np.linalg.norm(places(graph, guessed) - true[:, :3, 3], axis=1)
    assert off.max() < 0.02
    np.testing.assert_allclose(graph.correction.scales[half:], 2.0, rtol=0.01)
    np.testing.assert_allclose(graph.correction.scales[:half], 1.0, rtol=0.01)


def test_what_comes_later_moves_with_the_last_keyframe():
    true = circle()
    drifted = drifting(true, turn=1e-3)
    graph, keyframes = PoseGraph(), dict(zip(TIMES[:50], drifted[:50], strict=True))
    assert graph.add(loop(true, 0, 49), keyframes, set(), False)
    late = places(graph, drifted)[50:] - true[50:, :3, 3]
    assert np.linalg.norm(late[0]) < 0.01
    assert rms(late) < rms(drifted[50:, :3, 3] - true[50:, :3, 3])


def test_keyframes_that_are_forgotten_take_their_loops_along():
    true = circle()
    drifted = drifting(true, turn=1e-3)
    graph = PoseGraph()
    assert graph.add(loop(true, 0, 59), dict(zip(TIMES, drifted, strict=True)), set(), False)
    left = dict(zip(TIMES[20:], drifted[20:], strict=True))
    assert not graph.add(loop(true, 0, 58), left, set(), False)
    assert graph.add(loop(true, 25, 59), left, set(), False)
    assert [each.then for each in graph.loops] == [TIMES[25]]
