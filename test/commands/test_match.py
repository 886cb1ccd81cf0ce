import json

import cv2
import numpy as np
import pytest
import yaml

ARRAYS = {
    "a": (2,), "b": (2,), "a_detected": (2,), "b_detected": (2,),
    "covariance": (2, 2), "similarity": (), "inlier": (),
}  # fmt: skip


@pytest.fixture
def images(tmp_path):
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((24, 32), np.uint8))
    return tmp_path / "a.png", tmp_path / "b.png"


def test_arrays_pair_the_right_rows(tmp_path, images, d2_ros, fake_frontend):
    out, figures = tmp_path / "new" / "result", tmp_path / "m.json"
    outcome = d2_ros("match", *images, "--out", out, "--json", figures)
    assert outcome.code == 0, outcome.err
    found = np.load(out)
    # The fake's frame 0 lies at (row, 0), frame 1 at (10 + row, 1); rows 1 and 0 match.
    np.testing.assert_array_equal(found["a"], [[1, 0], [0, 0]])
    np.testing.assert_array_equal(found["b"], [[11, 1], [10, 1]])
    np.testing.assert_array_equal(found["a_detected"], [[1.5, -0.5], [0.5, -0.5]])
    np.testing.assert_array_equal(found["b_detected"], [[11.5, 0.5], [10.5, 0.5]])
    np.testing.assert_array_equal(found["covariance"], np.float32([[[0.4, 0.1], [0.1, 0.2]]] * 2))
    np.testing.assert_array_equal(found["similarity"], np.float32([0.9, 0.8]))
    np.testing.assert_array_equal(found["inlier"], [True, False])
    told = json.loads(figures.read_text())
    assert (told["matches"], told["inlier_matches"]) == (2, 1)
    assert "2 matches, 1 inliers" in outcome.out


def test_camera_is_given_to_the_front_end(tmp_path, images, d2_ros, fake_frontend):
    calibration = {
        "image_width": 32,
        "image_height": 24,
        "camera_matrix": {"data": [50, 0, 15, 0, 50, 11, 0, 0, 1]},
        "distortion_model": "plumb_bob",
        "distortion_coefficients": {"data": [0, 0, 0, 0, 0]},
    }
    (tmp_path / "camera.yaml").write_text(yaml.safe_dump(calibration))
    arguments = ["--out", tmp_path / "m.npz", "--camera", tmp_path / "camera.yaml"]
    assert d2_ros("match", *images, *arguments).code == 0
    assert np.isfinite(fake_frontend[0].last.features["x"]).all()


def test_what_is_wrong_is_named_with_exit_code_2(tmp_path, images, d2_ros, fake_frontend):
    first, second = images
    missing = tmp_path / "none.png"
    for arguments, words in (
        ([missing, second, "--out", tmp_path / "m.npz"], "none.png cannot be read"),
        ([first, second, "--out", first], "is the input itself"),
        ([first, second, "--out", first / "m.npz"], "cannot write"),
        ([first, second, "--out", tmp_path], "cannot write"),
        ([first, second, "--out", tmp_path / "m.npz", "--camera", missing], "none.png"),
        ([first, second, "--out", tmp_path / "m.npz", "-p", "a:=1"], "unknown parameter a"),
    ):
        outcome = d2_ros("match", *arguments)
        assert outcome.code == 2, arguments
        assert words in outcome.err
    assert not (tmp_path / "m.npz").exists()


def test_images_of_different_sizes_with_the_real_front_end(tmp_path, d2_ros):
    """A known affine map: b is a, 1.15 times as large and shifted by (6.5, -4)."""
    skimage = pytest.importorskip("skimage.data")
    photo = cv2.cvtColor(skimage.astronaut(), cv2.COLOR_RGB2GRAY)
    photo = cv2.resize(photo, (200, 200), interpolation=cv2.INTER_AREA)
    warp = np.array([[1.15, 0, 6.5], [0, 1.15, -4]])
    cv2.imwrite(str(tmp_path / "a.png"), photo)
    warped = cv2.warpAffine(photo, warp, (240, 224), flags=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "b.png"), warped)
    arguments = ["--out", tmp_path / "m.npz", "-p", "threads:=1"]
    outcome = d2_ros("match", tmp_path / "a.png", tmp_path / "b.png", *arguments)
    assert outcome.code == 0, outcome.err
    found = np.load(tmp_path / "m.npz")
    count = len(found["inlier"])
    assert {name: found[name].shape[1:] for name in found} == ARRAYS
    assert {len(found[name]) for name in found} == {count}

    def median_error(a, b):
        away = found[a] @ warp[:, :2].T + warp[:, 2] - found[b]
        return np.median(np.linalg.norm(away[found["inlier"]], axis=1))

    assert found["inlier"].sum() > 50
    assert median_error("a", "b") < 0.2
    assert median_error("a", "b") < 0.25 * median_error("a_detected", "b_detected")


def test_real_pair(tmp_path, d2_ros, real_data):
    scene = real_data("homography/oxford_graf")
    homography = np.loadtxt(scene / "H_1_2")
    out = tmp_path / "m.npz"
    options = ["-p", "features.max_edge:=400", "-p", "threads:=1"]
    assert d2_ros("match", scene / "1.png", scene / "2.png", "--out", out, *options).code == 0
    found = np.load(out)

    def median_error(a, b):
        there = np.c_[found[a], np.ones(len(found[a]))] @ homography.T
        away = there[:, :2] / there[:, 2:] - found[b]
        return np.median(np.linalg.norm(away[found["inlier"]], axis=1))

    assert found["inlier"].sum() > 50
    assert median_error("a", "b") < 0.5 * median_error("a_detected", "b_detected")
