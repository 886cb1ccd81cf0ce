"""The ground truth of the synthetic sequence: exact by itself, and true of the images."""

import cv2
import numpy as np
import pytest

from d2_ros.sources.synthetic import open_synthetic
from d2_ros.sources.synthetic.images import _MOMENTS, _SHUTTER
from d2_ros.sources.synthetic.render import prepare, radiance
from d2_ros.sources.synthetic.room import room
from d2_ros.sources.synthetic.world import Plane, hidden, trace

PAIRS = [(0, 1), (0, 12), (30, 45), (60, 75), (88, 89)]


@pytest.fixture(scope="module")
def source():
    return open_synthetic("size=320x240")


@pytest.fixture(scope="module")
def light(source):
    """Render frames without noise."""
    scene = prepare(room(), source.camera)

    def render(position):
        image = radiance(scene, source.options.pose(position))
        return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)

    return render


def grid(source, margin=0.0):
    columns = np.linspace(margin, source.camera.width - 1 - margin, 40)
    rows = np.linspace(margin, source.camera.height - 1 - margin, 30)
    return np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)


def test_every_pixel_of_every_frame_sees_something(source):
    for frame in range(0, len(source), 5):
        points, planes = source.surface(frame, grid(source, -0.5))
        assert np.isfinite(points).all()
        assert (planes >= 0).all()


def test_a_point_lies_where_it_is_seen(source):
    pixels = grid(source)
    there, visible = source.locate(17, pixels, 17)
    np.testing.assert_allclose(there, pixels, atol=1e-6)
    assert visible.all()


@pytest.mark.parametrize("pair", PAIRS)
def test_there_and_back_again(source, pair):
    pixels = grid(source)
    there, visible = source.locate(pair[0], pixels, pair[1])
    assert visible.mean() > 0.3
    back, seen = source.locate(pair[1], there[visible], pair[0])
    np.testing.assert_allclose(back, pixels[visible], atol=1e-6)
    assert seen.all()


def test_truth_obeys_the_poses(source):
    """Points triangulate onto the epipolar geometry of the stated poses and camera."""
    pixels = grid(source)
    there, visible = source.locate(3, pixels, 20)
    poses = source.poses()
    T_b_a = np.linalg.inv(poses[20]) @ poses[3]
    x, y, z = T_b_a[:3, 3]
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ T_b_a[:3, :3]
    rays_a = source.camera.bearings(pixels[visible])
    rays_b = source.camera.bearings(there[visible])
    assert np.abs(np.einsum("ni,ij,nj->n", rays_b, essential, rays_a)).max() < 1e-9


def test_what_stands_behind_a_board_is_hidden(source):
    """Look past nothing: a board covers the wall on the ray that meets it."""
    planes, eye = room(), source.poses()[0][:3, 3]
    board, wall = 7, 0  # the motorcycle before the front wall
    front = planes[board].points(np.array([planes[board].size]) * [0.2, 0.5])
    # The front wall is a plane x = const.
    behind = eye + (planes[wall].origin[0] - eye[0]) / (front[0, 0] - eye[0]) * (front - eye)
    place_front, visible_front = source.project(front, np.array([board]), 0)
    place_behind, visible_behind = source.project(behind, np.array([wall]), 0)
    np.testing.assert_allclose(place_behind, place_front, atol=1e-9)
    assert visible_front.all()
    assert not visible_behind.any()
    assert source.project(behind, np.array([wall]), 72)[1].all()  # no longer behind


def test_a_wall_hides_and_an_edge_does_not():
    x, y, z = np.eye(3)
    far = Plane(np.array([-2.0, -2.0, 4.0]), x, y, (4.0, 4.0), "brick", 1.0)
    near = Plane(np.array([0.5, -1.0, 2.0]), x, y, (1.0, 2.0), "brick", 1.0)
    side = Plane(np.array([-2.0, -2.0, 4.0]), -z, y, (4.0, 4.0), "brick", 1.0)
    planes = (far, near, side)
    bearings = np.array([[0.0, 0, 1], [0.3, 0, 1], [-1.0, 0, 1], [0, 5.0, 1], [0.3, 0, -1]])
    index, coordinates = trace(planes, np.eye(4), bearings)
    assert index.tolist()[:2] == [0, 1]
    assert index[2] in (0, 2)
    assert index.tolist()[3:] == [-1, -1]
    np.testing.assert_allclose(coordinates[:2], [[2, 2], [0.1, 1]])
    assert np.isnan(coordinates[3:]).all()
    points = np.array([[0.0, 0, 4], [1.2, 0, 4], [-2.0, 0, 4]])
    assert hidden(planes, np.eye(4), points, np.zeros(3, int)).tolist() == [False, True, False]


def test_what_lies_behind_the_camera_has_no_place(source):
    points = source.poses()[0] @ [0.0, 0.0, -1.0, 1.0]
    place, visible = source.project(points[None, :3], np.array([0]), 0)
    assert np.isnan(place).all()
    assert not visible.any()


@pytest.mark.parametrize("pair", PAIRS)
def test_images_show_what_the_truth_says(source, light, pair):
    """Warped by the truth, one image lies on the other without a shift."""
    shift, spread = shifts(source, light(pair[0]), light(pair[1]), *pair)
    assert np.abs(shift).max() < 0.01
    assert spread < 0.03


def test_the_measure_of_the_shift_would_notice_one(source, light):
    shift, _ = shifts(source, light(0), light(1), 0, 1, error=(0.2, -0.1))
    np.testing.assert_allclose(shift, [-0.2, 0.1], atol=0.03)


def test_motion_blur_is_centred_on_the_stamp(source, light):
    moments = ((np.arange(_MOMENTS) + 0.5) / _MOMENTS - 0.5) * _SHUTTER
    blurred = np.mean([light(36 + moment) for moment in moments], axis=0)
    shift, _ = shifts(source, blurred.astype(np.float32), light(33), 36, 33)
    assert np.abs(shift).max() < 0.01


def shifts(source, image_a, image_b, a, b, error=(0.0, 0.0)):
    """Mean shift (2,) and median length of the shifts of patches of b, warped to a by truth.

    One least-squares step per patch of 17x17 px that sees one plane and has enough gradient.
    """
    width, height = source.camera.width, source.camera.height
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 2)
    there, visible = source.locate(a, pixels, b)
    maps = (there + error).astype(np.float32).reshape(height, width, 2)
    warped = cv2.remap(image_b, maps, None, cv2.INTER_LANCZOS4)
    planes = source.surface(a, pixels)[1].reshape(height, width).astype(np.int16)
    alone = cv2.erode(planes, np.ones((5, 5))) == cv2.dilate(planes, np.ones((5, 5)))
    valid = visible.reshape(height, width) & alone
    image_a, warped = (cv2.GaussianBlur(image, (0, 0), 1.0) for image in (image_a, warped))
    gradient_v, gradient_u = np.gradient((image_a + warped) / 2)
    difference = warped - image_a
    products = [
        cv2.boxFilter(np.where(valid, product, 0).astype(np.float64), -1, (17, 17))
        for product in (
            gradient_u**2,
            gradient_u * gradient_v,
            gradient_v**2,
            gradient_u * difference,
            gradient_v * difference,
        )
    ]
    whole = cv2.erode(valid.astype(np.uint8), np.ones((17, 17)), borderValue=0) > 0
    uu, uv, vv, ud, vd = (product[whole] for product in products)
    weakest = (uu + vv) / 2 - np.hypot((uu - vv) / 2, uv)
    uu, uv, vv, ud, vd = (item[weakest > 10] for item in (uu, uv, vv, ud, vd))
    determinant = uu * vv - uv**2
    moved = np.stack([uv * vd - vv * ud, uv * ud - uu * vd], -1) / determinant[:, None]
    assert len(moved) > 1000
    return moved.mean(axis=0), np.median(np.linalg.norm(moved, axis=1))
