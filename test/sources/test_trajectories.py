from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from d2_ros.errors import D2RosError
from d2_ros.sources.trajectories import (
    interpolate,
    nanoseconds,
    numbers,
    pose_matrices,
    read_table,
)

START = 1_403_715_273_262_142_976  # a real stamp: far beyond what a float64 holds exactly


def turning(angles, positions):
    quaternions = Rotation.from_rotvec(np.outer(angles, [0, 0, 1])).as_quat()
    return pose_matrices(positions, quaternions)


def test_between_two_poses_by_hand():
    known = np.array([START, START + 1000], np.int64)
    poses = turning([0.0, 0.8], [[0, 0, 0], [10, -20, 5]])
    at = interpolate(known, poses, np.array([START + 250, START + 1000, START]))
    np.testing.assert_allclose(at[0], turning([0.2], [[2.5, -5, 1.25]])[0], atol=1e-12)
    np.testing.assert_allclose(at[1], poses[1], atol=1e-12)
    np.testing.assert_allclose(at[2], poses[0], atol=1e-12)


def test_outside_is_nan_and_inside_is_a_pose():
    known = START + np.array([0, 100, 200])
    poses = turning([0, 0.1, 0.2], np.zeros((3, 3)))
    at = interpolate(known, poses, START + np.array([-1, 0, 200, 201]))
    assert np.isnan(at[[0, 3]]).all()
    assert np.isfinite(at[[1, 2]]).all()


def test_unordered_and_repeated_stamps_keep_the_first():
    known = START + np.array([100, 0, 100])
    poses = turning([0, 0, 0], [[1, 0, 0], [0, 0, 0], [9, 9, 9]])
    at = interpolate(known, poses, START + np.array([50]))
    np.testing.assert_allclose(at[0, :3, 3], [0.5, 0, 0], atol=1e-12)


def test_a_single_known_pose_counts_at_its_own_time_only():
    pose = turning([0.3], [[1, 2, 3]])
    at = interpolate(np.array([START]), pose, START + np.array([0, 1]))
    np.testing.assert_array_equal(at[0], pose[0])
    assert np.isnan(at[1]).all()


def test_rotations_stay_rotations():
    rng = np.random.default_rng(1)
    poses = pose_matrices(rng.normal(size=(5, 3)), rng.normal(size=(5, 4)))
    at = interpolate(np.arange(5) * 1000, poses, rng.integers(0, 4000, 50))
    turned = at[:, :3, :3] @ at[:, :3, :3].transpose(0, 2, 1)
    np.testing.assert_allclose(turned, np.tile(np.eye(3), (50, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(at[:, :3, :3]), 1)


@given(st.integers(-(10**18), 4 * 10**18))
def test_seconds_become_nanoseconds_exactly(value):
    text = str(Decimal(value).scaleb(-9))
    assert nanoseconds(Path("times.txt"), [text]).tolist() == [value]


def test_kitti_exponents_are_seconds_too():
    assert nanoseconds(Path("t"), ["1.500000e+00", "1.0e-1"]).tolist() == [1_500_000_000, 10**8]


@pytest.mark.parametrize("text", ["abc", "nan", "inf", "1e300", ""])
def test_a_stamp_that_is_no_number_names_the_file(text):
    with pytest.raises(D2RosError, match=r"times\.txt"):
        nanoseconds(Path("times.txt"), [text])


def test_zero_quaternion_is_refused():
    with pytest.raises(D2RosError, match="quaternion"):
        pose_matrices(np.zeros((1, 3)), np.zeros((1, 4)))


def test_tables(tmp_path):
    path = tmp_path / "table.txt"
    path.write_text("# head\n\n1 2 3 # note\n4 5 6\n")
    assert read_table(path) == [["1", "2", "3"], ["4", "5", "6"]]
    np.testing.assert_array_equal(numbers(path, read_table(path), 2), [[1, 2], [4, 5]])
    with pytest.raises(D2RosError, match=r"table\.txt has a row of 3 values; it must have 4"):
        numbers(path, read_table(path), 4)
    path.write_text("1 x\n")
    with pytest.raises(D2RosError, match=r"table\.txt is malformed"):
        numbers(path, read_table(path), 2)
    path.write_text("# nothing\n")
    with pytest.raises(D2RosError, match=r"table\.txt is empty"):
        read_table(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(D2RosError, match=r"table\.txt cannot be read"):
        read_table(path)


def test_next_to_a_pose_that_is_not_known_nothing_is():
    known = START + np.array([0, 100, 200, 300, 400])
    quaternions = Rotation.from_rotvec(np.outer([0, 0.1, 0.2, 0.3, 0.4], [0, 0, 1])).as_quat()
    positions = np.arange(15.0).reshape(5, 3)
    quaternions[2, 1] = np.nan
    at = interpolate(
        known,
        pose_matrices(positions, quaternions),
        START + np.array([0, 50, 100, 150, 200, 250, 300, 350]),
    )
    assert np.isfinite(at).all(axis=(1, 2)).tolist() == [True] * 3 + [False] * 3 + [True] * 2
    np.testing.assert_allclose(at[1], turning([0.05], [[1.5, 2.5, 3.5]])[0], atol=1e-12)
    np.testing.assert_allclose(at[7], turning([0.35], [[10.5, 11.5, 12.5]])[0], atol=1e-12)


@pytest.mark.parametrize("known", [[], [3]])
def test_of_rows_that_are_all_or_nearly_all_unknown_little_is_left(known):
    positions = np.full((5, 3), np.inf)
    positions[known] = 7.0
    poses = pose_matrices(positions, np.tile([0, 0, 0, 2.0], (5, 1)))
    at = interpolate(np.arange(5) * 10, poses, np.arange(0, 50, 5))
    assert np.flatnonzero(np.isfinite(at).all(axis=(1, 2))).tolist() == [6 for _ in known]


@given(st.integers(0, 2**32 - 1))
def test_a_quaternion_is_its_negative_and_of_any_length(seed):
    random = np.random.default_rng(seed)
    positions, quaternions = random.normal(size=(4, 3)), random.normal(size=(4, 4))
    known, stamps = np.arange(4) * 1000, random.integers(0, 3000, 20)
    expected = interpolate(known, pose_matrices(positions, quaternions), stamps)
    factors = random.choice([-1, 1], 4) * random.uniform(0.01, 100, 4)
    scaled = pose_matrices(positions, quaternions * factors[:, None])
    np.testing.assert_allclose(interpolate(known, scaled, stamps), expected, atol=1e-9)


def test_quaternions_of_any_length_are_normalised():
    ones = np.array([[1.0, 2.0, -3.0, 0.5]])
    lengths = np.array([[1.0], [1e-300], [1e300]])
    poses = pose_matrices(np.zeros((3, 3)), lengths * ones)
    np.testing.assert_allclose(poses[1:], poses[[0, 0]], atol=1e-12)
