"""The trajectory forgets its oldest frames, and no keyframe on which another still hangs."""

from __future__ import annotations

import numpy as np

from d2_ros.mapper.trajectory import Trajectory


def at(x: float) -> np.ndarray:
    pose = np.eye(4)
    pose[0, 3] = x
    return pose


def test_the_newest_frames_are_kept_where_they_were():
    trajectory = Trajectory(most=100)
    for number in range(1000):
        if number % 7 == 0:
            trajectory.add_keyframe(number, at(number))
        else:
            trajectory.add(number, at(number), reference=number - number % 7)
        assert len(trajectory) <= 110
    stamps, poses = trajectory.poses()
    assert len(stamps) >= 100
    np.testing.assert_array_equal(stamps, np.arange(1000 - len(stamps), 1000))
    np.testing.assert_allclose(poses[:, 0, 3], stamps)
    assert len(trajectory.keyframes) < 20


def test_a_camera_that_stands_keeps_the_keyframe_that_its_frames_hang_on():
    trajectory = Trajectory(most=100)
    trajectory.add_keyframe(0, at(5.0))
    for number in range(1, 1000):
        trajectory.add(number, at(5.0), reference=0)
    assert list(trajectory.keyframes) == [0]
    np.testing.assert_allclose(trajectory.poses()[1][:, 0, 3], 5.0)


def test_a_keyframe_does_not_hold_the_array_that_it_comes_from():
    trajectory, window = Trajectory(most=100), np.tile(np.eye(4), (16, 1, 1))
    trajectory.add_keyframe(0, window[3])
    assert not np.shares_memory(trajectory.keyframes[0], window)
