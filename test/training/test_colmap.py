"""(b) Sparse points and depth maps of a COLMAP reconstruction, written here and read back."""

import cv2
import numpy as np
import pytest

from d2_ros.errors import D2RosError
from d2_ros.training.config import TrainingConfig
from d2_ros.training.opening import open_pairs

pycolmap = pytest.importorskip("pycolmap", reason="pycolmap reads COLMAP's reconstructions")

FOCAL, CENTRE = 90.0, (48.0, 36.0)  # COLMAP's convention: the image's corner is (0, 0)
SHIFTS = (0.0, 0.3, 0.6)  # of the cameras along x, before a wall at z = 3
POINTS = np.random.default_rng(0).uniform((-1, -0.8, 3), (1.4, 0.8, 3), (60, 3))


def project(shift):
    return FOCAL * (POINTS[:, :2] - (shift, 0)) / 3 + CENTRE


def camera_model(kind="PINHOLE"):
    numbers = {"PINHOLE": [FOCAL, FOCAL, *CENTRE], "SIMPLE_RADIAL": [FOCAL, *CENTRE, 0.1]}
    return pycolmap.Camera(model=kind, width=96, height=72, params=numbers[kind], camera_id=1)


@pytest.fixture
def workspace(tmp_path):
    """Three views of one wall: images, model and depth maps."""
    write(tmp_path, camera_model())
    return tmp_path


def write(folder, camera):
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(camera)
    (folder / "images").mkdir()
    (folder / "sparse").mkdir()
    for number, shift in enumerate(SHIFTS, start=1):
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([-shift, 0, 0]))
        image = pycolmap.Image(
            name=f"{number}.png", camera_id=1, image_id=number, keypoints=project(shift)
        )
        model.add_image_with_trivial_frame(image, pose)
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 255, (72, 96, 3), np.uint8)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), pixels)
    for row, point in enumerate(POINTS):
        seen = pycolmap.Track()
        for number, shift in enumerate(SHIFTS, start=1):
            if ((project(shift)[row] >= 0) & (project(shift)[row] < (96, 72))).all():
                seen.add_element(number, row)
        model.add_point3D(point, seen)
    model.write(folder / "sparse")


def config(**data):
    settings = TrainingConfig().data.__class__(**{"max_overlap": 1.0, **data})
    return TrainingConfig(data=settings)


def test_sparse_points_link_the_images_half_a_pixel_off_colmaps(workspace):
    pairs = open_pairs(f"colmap:{workspace}", "all", config())
    assert pairs.pairs == [(0, 1), (0, 2), (1, 2)]
    pair = pairs.draw(1, np.random.default_rng(0))
    first, second = project(SHIFTS[0]) - 0.5, project(SHIFTS[2]) - 0.5
    both = ((first >= 0) & (first <= (95, 71)) & (second >= 0) & (second <= (95, 71))).all(axis=1)
    assert 20 < len(pair.pixels) == both.sum()
    order, wanted = np.lexsort(pair.pixels.T), np.lexsort(first[both].T)
    np.testing.assert_allclose(pair.pixels[order], first[both][wanted], atol=1e-6)
    np.testing.assert_allclose(pair.pixels_second[order], second[both][wanted], atol=1e-6)
    assert pair.first.shape == (72, 96, 3)


def test_the_last_images_are_held_back(workspace):
    held_back = config(held_back=2 / 3)
    assert open_pairs(f"colmap:{workspace}", "validation", held_back).pairs == [(0, 1)]
    with pytest.raises(D2RosError, match=r"no pairs for training; check data\.held_back"):
        open_pairs(f"colmap:{workspace}", "training", held_back)


def test_depth_maps_link_any_pixel(workspace):
    h5py = pytest.importorskip("h5py", reason="h5py reads MegaDepth's depth maps")
    with pytest.raises(D2RosError, match="no depth map"):
        open_pairs(f"megadepth:{workspace}", "all", config())
    (workspace / "depths").mkdir()
    for number in (1, 2, 3):
        with h5py.File(workspace / "depths" / f"{number}.h5", "w") as file:
            file["depth"] = np.full((72, 96), 3.0, np.float32)
    pairs = open_pairs(f"megadepth:{workspace}", "all", config())
    pair = pairs.draw(0, np.random.default_rng(0))
    assert len(pair.pixels) > 300
    moved = pair.pixels_second - pair.pixels
    np.testing.assert_allclose(moved, [[-FOCAL * 0.3 / 3, 0]] * len(moved), atol=1e-5)


def test_what_cannot_be_used_is_named(tmp_path):
    with pytest.raises(D2RosError, match="holds no COLMAP model"):
        open_pairs(f"colmap:{tmp_path}", "all", config())
    write(tmp_path, camera_model("SIMPLE_RADIAL"))
    with pytest.raises(D2RosError, match="distortion; run `colmap image_undistorter`"):
        open_pairs(f"megadepth:{tmp_path}", "all", config())
    assert len(open_pairs(f"colmap:{tmp_path}", "all", config())) == 3
