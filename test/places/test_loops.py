"""Rows and pose of a revisit, as they are published."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from d2_ros.config import Config
from d2_ros.places.loops import UNKNOWN, loop_pose, loop_rows
from d2_ros.places.revisit import revisit


@pytest.fixture
def pair(make_world):
    """Two places of one world, and the true ``T_now_then``."""

    def make(position, turn_deg, **given):
        world = make_world()
        (known, first), (place, second) = (
            world.place(3, session=1, **given),
            world.place(70, position, turn_deg, session=3, **given),
        )
        return revisit(place, known, Config()), np.linalg.inv(second) @ first

    return make


def test_rows_name_both_keyframes_and_what_matches(pair):
    found, _ = pair((0.8, 0, 0.1), 4)
    rows = loop_rows(found)
    assert len(rows) == len(found.index) > 100
    assert set(zip(rows["keyframe_sec"], rows["keyframe_nanosec"], strict=True)) == {(3, 0)}
    assert set(rows["session"]) == {2}  # runs ago
    np.testing.assert_allclose(rows["u"], found.place.pixels[rows["index"], 0], atol=1e-3)
    np.testing.assert_allclose(
        rows["keyframe_v"], found.known.pixels[rows["keyframe_index"], 1], atol=1e-3
    )
    assert (rows["sigma_uu"] * rows["sigma_vv"] > rows["sigma_uv"] ** 2).all()
    assert (rows["similarity"] > 0.5).all()


def test_the_pose_is_that_of_the_earlier_camera_within_its_covariance(pair):
    found, true = pair((0.8, 0, 0.1), 4)
    pose, covariance = loop_pose(found)
    assert np.linalg.norm(pose[:3, 3]) == pytest.approx(1)
    direction = true[:3, 3] / np.linalg.norm(true[:3, 3])
    turned = Rotation.from_matrix(true[:3, :3] @ pose[:3, :3].T).as_rotvec()
    assert np.abs(direction - pose[:3, 3]).max() < 0.02
    assert np.abs(turned).max() < 0.005
    np.testing.assert_allclose(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > -1e-12
    assert 1e-5 < np.sqrt(covariance[3, 3]) < 0.02


def test_a_turn_tells_no_translation(pair):
    found, true = pair((0, 0, 0), 6)
    pose, covariance = loop_pose(found)
    assert (pose[:3, 3] == 0).all()
    assert (np.diag(covariance)[:3] == UNKNOWN).all()
    turned = Rotation.from_matrix(true[:3, :3] @ pose[:3, :3].T).as_rotvec()
    assert np.abs(turned).max() < 0.002


def test_without_a_calibration_there_is_no_pose(pair):
    found, _ = pair((0.8, 0, 0.1), 4, camera=None)
    assert loop_pose(found) is None
    assert len(loop_rows(found)) > 100
