"""(b) Depth maps: two cameras before a wall, with a board that hides a part of it."""

import numpy as np
import pytest

from d2_ros.errors import D2RosError
from d2_ros.training.depth import locate_by_depth, read_depth, sample_depth

MATRIX = np.array([[80.0, 0, 31.5], [0, 82, 23.5], [0, 0, 1]])
MOVED = np.eye(4)
MOVED[:3, 3] = [-0.5, 0.1, 0.2]  # T_second_first


def wall(T_camera_world, distance=4.0, tilt=0.3):
    """Depth map of the plane z = distance + tilt x of the world, 64x48."""
    u, v = np.meshgrid(np.arange(64.0), np.arange(48.0))
    rays = np.dstack([u, v, np.ones_like(u)]) @ np.linalg.inv(MATRIX).T
    T_world_camera = np.linalg.inv(T_camera_world)
    normal = np.array([-tilt, 0, 1.0])
    along = rays @ T_world_camera[:3, :3].T @ normal
    return ((distance - normal @ T_world_camera[:3, 3]) / along).astype(np.float32)


def expected(pixels):
    depth = sample_depth(wall(np.eye(4)), pixels)
    points = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(MATRIX).T
    points = points * depth[:, None] + MOVED[:3, 3]
    projected = points @ MATRIX.T
    return projected[:, :2] / projected[:, 2:]


PIXELS = np.array([[40.0, 20.0], [45.25, 30.5], [60.0, 40.0], [2.0, 2.0]])


def test_pixels_land_where_the_plane_says():
    there = locate_by_depth(PIXELS, (wall(np.eye(4)), wall(MOVED)), (MATRIX, MATRIX), MOVED)
    np.testing.assert_allclose(there[:3], expected(PIXELS)[:3], atol=1e-6)
    assert np.isnan(there[3]).all()  # leaves the second image


def test_hidden_points_and_unknown_depths_are_nowhere():
    first, second = wall(np.eye(4)), wall(MOVED)
    place = np.rint(expected(PIXELS)[0]).astype(int)
    second[place[1] - 2 : place[1] + 3, place[0] - 2 : place[0] + 3] = 2.0  # a board before it
    first[30:32, 45:47] = 0
    there = locate_by_depth(PIXELS, (first, second), (MATRIX, MATRIX), MOVED)
    assert np.isnan(there[:2]).all()
    assert np.isfinite(there[2]).all()
    slight = wall(MOVED) * 1.04
    kept = locate_by_depth(PIXELS, (wall(np.eye(4)), slight), (MATRIX, MATRIX), MOVED)
    assert np.isfinite(kept[:3]).all()
    kept = locate_by_depth(PIXELS, (wall(np.eye(4)), slight), (MATRIX, MATRIX), MOVED, 0.03)
    assert np.isnan(kept).all()


def test_points_behind_the_second_camera_are_nowhere():
    behind = np.eye(4)
    behind[2, 3] = -10
    depth = wall(np.eye(4))
    assert np.isnan(locate_by_depth(PIXELS, (depth, depth), (MATRIX, MATRIX), behind)).all()


def test_depth_is_bilinear():
    depth = np.array([[1, 2], [3, 4]], np.float32)
    pixels = np.array([[0.5, 0.5], [1, 1], [0.25, 0], [1.1, 0]])
    np.testing.assert_allclose(sample_depth(depth, pixels), [2.5, 4, 1.25, np.nan])


def test_files_are_read_and_bad_ones_named(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py reads MegaDepth's depth maps")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["depth"] = np.array([[1, np.nan], [0, 2]], np.float64)
    np.testing.assert_array_equal(read_depth(tmp_path / "a.h5"), [[1, 0], [0, 2]])
    (tmp_path / "b.h5").write_bytes(b"no depth")
    with pytest.raises(D2RosError, match=r"b\.h5 cannot be read"):
        read_depth(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["depth"] = np.zeros(3)
    with pytest.raises(D2RosError, match=r"shape \(3,\)"):
        read_depth(tmp_path / "c.h5")
