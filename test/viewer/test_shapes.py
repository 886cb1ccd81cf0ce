"""Shapes by hand."""

import numpy as np
import pytest

from d2_ros.records import FEATURES
from d2_ros.viewer.recording import up
from d2_ros.viewer.shapes import CHI2_95, colours, ellipses, trails


def rows(ids, us=None, lengths=1):
    out = np.zeros(len(ids), FEATURES)
    out["track_id"], out["track_length"] = ids, lengths
    out["u"] = np.arange(len(ids)) if us is None else us
    return out


def test_an_ellipse_holds_its_share_of_the_errors_and_touches_it():
    one = rows([1], [20])
    one["v"] = 10
    one["sigma_uu"], one["sigma_uv"], one["sigma_vv"] = 2, 0.7, 0.5
    (outline,) = ellipses(one, 1)
    off = outline - [20, 10]
    inverse = np.linalg.inv([[2, 0.7], [0.7, 0.5]])
    # Every corner is as many standard deviations away.
    np.testing.assert_allclose(np.einsum("ni,ij,nj->n", off, inverse, off), CHI2_95, rtol=1e-5)
    np.testing.assert_allclose(outline[0], outline[-1], atol=1e-9)
    np.testing.assert_allclose(ellipses(one, 3)[0] - [20, 10], 3 * off, atol=1e-9)


def test_covariances_that_are_none_are_points():
    one = rows([1], [5])
    one["sigma_uu"] = one["sigma_vv"] = -1e-9
    np.testing.assert_allclose(ellipses(one, 1)[0], np.tile([5.0, 0.0], (17, 1)), atol=1e-4)
    assert ellipses(rows([]), 1).shape == (0, 17, 2)


def test_a_trail_is_where_the_newest_tracks_have_been():
    frames = [rows([7, 3, 0]), rows([0, 9, 7], [4, 5, 6]), rows([3, 0, 7, 8], [10, 11, 12, 13])]
    found = [trail[:, 0].tolist() for trail in trails(frames)]
    assert found == [[1, 10], [0, 6, 12], [13]]
    assert trails([rows([0, 0])]) == []


def test_longer_tracks_are_redder():
    shades = colours(np.array([1, 8, 64, 500], np.uint32)).astype(int)
    assert shades[0, 2] > shades[0, 0]
    assert shades[2, 0] > shades[2, 2]
    assert shades[2].tolist() == shades[3].tolist()


@pytest.mark.parametrize(
    ("turn", "axis"),
    [
        (np.eye(3), "Y_DOWN"),  # a camera's own frame, and KITTI's world
        ([[1, 0, 0], [0, 0, 1], [0, -1, 0]], "Z_UP"),
        ([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], "X_DOWN"),
    ],
)
def test_up_is_away_from_the_cameras_down(turn, axis):
    pose = np.eye(4)
    pose[:3, :3] = turn
    assert up(np.stack([pose, pose])) == axis
