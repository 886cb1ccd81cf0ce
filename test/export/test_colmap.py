"""COLMAP reads back what was written, and triangulates it to where it truly lies."""

import shutil
import sqlite3
import subprocess

import numpy as np
import pytest

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.export.colmap import CORNER, colmap_camera, triangulate, write_database
from d2_ros.export.view_graph import View, ViewGraph, track_pairs

pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed (extra mapping)")

MATRIX = [[90, 0, 79.2], [0, 91, 59.7], [0, 0, 1]]
LENSES = {
    "pinhole": ("plumb_bob", [], "OPENCV"),
    "plumb_bob 4": ("plumb_bob", [-0.2, 0.05, 1e-3, -2e-3], "OPENCV"),
    "plumb_bob 5, k3 zero": ("plumb_bob", [-0.2, 0.05, 1e-3, -2e-3, 0], "OPENCV"),
    "plumb_bob 5": ("plumb_bob", [0.23, -0.78, -3e-3, -1e-4, 0.92], "FULL_OPENCV"),
    "rational": (
        "rational_polynomial",
        [0.3, 0.1, 1e-3, -2e-3, 0.02, 0.4, 0.15, 0.03],
        "FULL_OPENCV",
    ),
    "rational 12, padded": (
        "rational_polynomial",
        [0.3, 0.1, 1e-3, -2e-3, 0.02, 0.4, 0.15, 0.03, 0, 0, 0, 0],
        "FULL_OPENCV",
    ),
    "equidistant": ("equidistant", [-0.01, 0.02, -0.003, 0.001], "OPENCV_FISHEYE"),
}


def camera(model="plumb_bob", distortion=(), matrix=MATRIX):
    return Camera(160, 120, matrix, distortion, model)


@pytest.mark.parametrize("lens", LENSES)
def test_a_point_is_seen_half_a_pixel_further_and_nowhere_else(lens):
    model, distortion, name = LENSES[lens]
    ours = camera(model, distortion)
    theirs = colmap_camera(ours, (160, 120))
    assert theirs.model_name == name
    assert (theirs.width, theirs.height) == (160, 120)
    assert theirs.has_prior_focal_length
    points = np.random.default_rng(0).uniform([-0.7, -0.5, 1], [0.7, 0.5, 1], (200, 3)) * 3
    expected = ours.project(points) + CORNER
    got = np.array([theirs.img_from_cam(point) for point in points])
    np.testing.assert_allclose(got, expected, atol=1e-9)


def test_without_a_calibration_the_focal_length_is_a_guess():
    theirs = colmap_camera(None, (200, 100))
    assert theirs.model_name == "SIMPLE_RADIAL"
    assert not theirs.has_prior_focal_length
    assert theirs.params.tolist() == [240, 100, 50, 0]


def test_what_no_model_of_colmap_has_is_refused():
    prism = camera("rational_polynomial", [0.1] * 8 + [0.01] * 4)
    with pytest.raises(D2RosError, match="thin prism"):
        colmap_camera(prism, (160, 120))
    skewed = camera(matrix=[[90, 0.5, 79.2], [0, 91, 59.7], [0, 0, 1]])
    with pytest.raises(D2RosError, match=r"skew of 0\.5 px"):
        colmap_camera(skewed, (160, 120))


def seen(count=60, views=5, lens="plumb_bob 4", seed=0):
    """Graph and poses of cameras that walk past points at 2 to 4 m, all seen exactly."""
    model, distortion, _ = LENSES[lens]
    ours = camera(model, distortion)
    rng = np.random.default_rng(seed)
    points = rng.uniform([-0.8, -0.8, 2], [0.8, 0.8, 4], (count, 3))
    poses = np.tile(np.eye(4), (views, 1, 1))
    poses[:, 0, 3] = np.linspace(-0.5, 0.5, views)
    poses[:, 1, 3] = rng.uniform(-0.1, 0.1, views)
    pixels = [ours.project(points - pose[:3, 3]) for pose in poses]
    graph = ViewGraph(
        tuple(View(10**9 + n, (160, 120), ours, here) for n, here in enumerate(pixels)),
        track_pairs([1 + np.arange(count)] * views),
    )
    return graph, poses, points


@pytest.mark.parametrize("lens", ["plumb_bob 5", "rational", "equidistant"])
def test_true_observations_give_the_true_points(tmp_path, lens):
    graph, poses, points = seen(lens=lens)
    database = tmp_path / "database.db"
    images = write_database(database, graph, poses)
    model = triangulate(graph, database, images, poses, tmp_path)
    read = pycolmap.Reconstruction(tmp_path)
    assert read.num_points3D() == model.num_points3D() == len(points)
    assert read.compute_num_observations() == len(points) * len(poses)
    assert read.compute_mean_reprojection_error() < 1e-4  # keypoints are float32
    for point in read.points3D.values():
        row = point.track.elements[0].point2D_idx
        np.testing.assert_allclose(point.xyz, points[row], atol=2e-4)
    for image in read.images.values():
        number = int(image.name[:-4]) - 10**9
        np.testing.assert_allclose(image.projection_center(), poses[number][:3, 3], atol=1e-9)


def test_the_database_reads_back(tmp_path):
    graph, poses, _ = seen()
    images = write_database(tmp_path / "database.db", graph, poses)
    with pycolmap.Database.open(tmp_path / "database.db") as database:
        assert database.num_cameras() == database.num_rigs() == 1
        assert database.num_images() == database.num_frames() == len(graph.views)
        assert database.num_keypoints() == sum(len(view.keypoints) for view in graph.views)
        assert database.num_matched_image_pairs() == len(graph.pairs)
        assert database.num_verified_image_pairs() == len(graph.pairs)
        matches = sum(len(rows) for rows in graph.pairs.values())
        assert database.num_matches() == database.num_inlier_matches() == matches
        for number, view in enumerate(graph.views):
            image = database.read_image(images[number])
            assert image.name == view.name == f"000000000100000000{number}.png"
            keypoints = database.read_keypoints(images[number])
            np.testing.assert_allclose(keypoints, view.keypoints + 0.5, atol=1e-5)
        for (a, b), rows in graph.pairs.items():
            found = database.read_two_view_geometry(images[a], images[b])
            assert found.config == pycolmap.TwoViewGeometryConfiguration.CALIBRATED
            assert np.array_equal(found.inlier_matches, rows)
            # The essential matrix is that of the poses: true matches fulfil it.
            near, far = (graph.views[n].camera.bearings(graph.views[n].keypoints) for n in (a, b))
            np.testing.assert_allclose(np.sum(far * (near @ found.E.T), axis=1), 0, atol=1e-9)


def test_views_without_a_pose_or_a_calibration_are_in_the_database_only(tmp_path):
    graph, poses, points = seen()
    poses[1] = np.nan
    views = list(graph.views)
    views[2] = View(views[2].stamp, views[2].size, None, views[2].keypoints)
    graph = ViewGraph(tuple(views), graph.pairs)
    database = tmp_path / "database.db"
    images = write_database(database, graph, poses)
    model = triangulate(graph, database, images, poses, tmp_path)
    assert {image.name for image in model.images.values() if image.has_pose} == {
        views[number].name for number in (0, 3, 4)
    }
    assert model.num_points3D() == len(points)
    with pycolmap.Database.open(database) as content:
        assert (content.num_images(), content.num_cameras()) == (5, 2)


def test_one_pose_is_too_few(tmp_path):
    graph, poses, _ = seen()
    poses[1:] = np.nan
    images = write_database(tmp_path / "database.db", graph)
    with pytest.raises(D2RosError, match="1 of 5 images have a calibration and a known pose"):
        triangulate(graph, tmp_path / "database.db", images, poses, tmp_path)


def test_colmap_s_own_mapper_finds_the_cameras(tmp_path):
    from evo.core.geometry import umeyama_alignment

    graph, poses, _ = seen(count=150, views=6)
    write_database(tmp_path / "database.db", graph)
    options = pycolmap.IncrementalPipelineOptions()
    options.extract_colors, options.random_seed = False, 0
    options.num_threads, options.min_model_size = 1, 3
    options.mapper.init_min_tri_angle = 4
    models = pycolmap.incremental_mapping(tmp_path / "database.db", tmp_path, tmp_path, options)
    (model,) = models.values()
    assert model.num_reg_images() == len(poses)
    images = sorted(model.images.values(), key=lambda image: image.name)
    places = np.array([image.projection_center() for image in images])
    turn, shift, scale = umeyama_alignment(places.T, poses[:, :3, 3].T, with_scale=True)
    off = np.linalg.norm(scale * places @ turn.T + shift - poses[:, :3, 3], axis=1)
    assert off.max() < 0.01


def test_an_image_has_the_columns_that_colmap_3_asks_for(tmp_path):
    write_database(tmp_path / "database.db", seen()[0])
    with sqlite3.connect(tmp_path / "database.db") as tables:
        columns = [row[1] for row in tables.execute("PRAGMA table_info(images)")]
    numbers = ["qw", "qx", "qy", "qz", "tx", "ty", "tz"]
    assert columns == ["image_id", "name", "camera_id", *(f"prior_{name}" for name in numbers)]


@pytest.mark.skipif(shutil.which("colmap") is None, reason="the program colmap is not installed")
def test_the_program_colmap_opens_the_database(tmp_path):
    graph, poses, _ = seen(count=150, views=6)
    write_database(tmp_path / "database.db", graph)
    paths = ["--database_path", "database.db", "--image_path", ".", "--output_path", "."]
    numbers = {"extract_colors": 0, "num_threads": 1, "min_model_size": 3, "init_min_tri_angle": 4}
    options = [word for name, n in numbers.items() for word in (f"--Mapper.{name}", str(n))]
    subprocess.run(["colmap", "mapper", *paths, *options], cwd=tmp_path, check=True, timeout=100)
    assert pycolmap.Reconstruction(tmp_path / "0").num_reg_images() == len(poses)
