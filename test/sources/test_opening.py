"""Folders and videos, made small here and read back, and the real recordings."""

import cv2
import numpy as np
import pytest
import yaml

from d2_ros.errors import D2RosError
from d2_ros.sources import open_source

K = [[50.0, 0, 15.5], [0, 51, 11.5], [0, 0, 1]]
CALIBRATION = {
    "image_width": 32,
    "image_height": 24,
    "camera_name": "camera",
    "camera_matrix": {"rows": 3, "cols": 3, "data": np.ravel(K).tolist()},
    "distortion_model": "plumb_bob",
    "distortion_coefficients": {"rows": 1, "cols": 5, "data": [0.1, -0.2, 0.001, 0.002, 0.3]},
}
SENSOR = """%YAML:1.0
# as OpenCV and the ASL write it
sensor_type: camera
T_BS: !!opencv-matrix
  cols: 4
  rows: 4
  data: [0, -1, 0, 0.5,
         1, 0, 0, 0,
         0, 0, 1, -0.25,
         0, 0, 0, 1]
rate_hz: 20
resolution: [32, 24]
camera_model: pinhole
intrinsics: [50.0, 51.0, 15.5, 11.5] #fu, fv, cu, cv
distortion_model: radial-tangential
distortion_coefficients: [0.1, -0.2, 0.001, 0.002]
"""
START = 1_403_715_273_262_142_976


def picture(number, shape=(24, 32)):
    return np.random.default_rng(number).integers(0, 256, shape, np.uint8)


def store(path, number, shape=(24, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture(number, shape))


@pytest.fixture
def euroc(tmp_path):
    camera = tmp_path / "sequence" / "mav0" / "cam0"
    rows = ["#timestamp [ns],filename"]
    for number in range(3):
        stamp = START + number * 50_000_000
        store(camera / "data" / f"{stamp}.png", number)
        rows.append(f"{stamp},{stamp}.png\r")
    (camera / "data.csv").write_text("\n".join(rows))
    (camera / "sensor.yaml").write_text(SENSOR)
    truth = camera.parent / "state_groundtruth_estimate0"
    truth.mkdir()
    # The body starts at (1, 2, 3), turned by 90 degrees about z, and moves by 1 m per second in x.
    half = np.sqrt(0.5)
    poses = [f"{START + t},{1 + t * 1e-9},2,3,{half},0,0,{half},0,0,0" for t in (0, 100_000_000)]
    (truth / "data.csv").write_text("\n".join(["#t,p,q", *poses]))
    return camera


@pytest.fixture
def tum(tmp_path):
    folder = tmp_path / "tum"
    rows = ["# timestamp filename"]
    for number in (2, 0, 1):  # not in order
        stamp = f"1311868169.{163498 + number}"
        store(folder / "rgb" / f"{stamp}.png", number, (24, 32, 3))
        rows.append(f"{stamp} rgb/{stamp}.png")
    (folder / "rgb.txt").write_text("\n".join(rows))
    (folder / "groundtruth.txt").write_text(
        "# t tx ty tz qx qy qz qw\n"
        "1311868169.163498 0 0 0 0 0 0 1\n1311868169.163499 1 2 3 0 0 0 -1\n"
    )
    (folder / "camera.yaml").write_text(yaml.safe_dump(CALIBRATION))
    return folder


@pytest.fixture
def kitti(tmp_path):
    folder = tmp_path / "kitti"
    for number in range(3):
        store(folder / "image_0" / f"{number:06}.png", number)
    (folder / "calib.txt").write_text(
        "P0: 50 0 15.5 0 0 51 11.5 0 0 0 1 0\nP1: 50 0 15.5 -25 0 51 11.5 0 0 0 1 0\n"
    )
    (folder / "times.txt").write_text("0.000000e+00\n1.036224e-01\n2.072e-01\n")
    (folder / "poses.txt").write_text(
        "".join(f"1 0 0 {number} 0 1 0 0 0 0 1 0\n" for number in range(3))
    )
    return folder


def assert_frames(source, shape=(24, 32)):
    """The frames are the pictures 0, 1, 2, and the second time too."""
    for _ in range(2):
        frames = list(source)
        assert len(frames) == len(source) == 3
        for number, frame in enumerate(frames):
            np.testing.assert_array_equal(frame.image, picture(number, shape))
    return [frame.stamp for frame in frames], frames[0].camera


@pytest.mark.parametrize("level", [0, 1, 2])
def test_euroc_from_the_camera_folder_and_its_parents(euroc, level):
    source = open_source([euroc, euroc.parent, euroc.parent.parent][level])
    stamps, camera = assert_frames(source)
    assert stamps == [START, START + 50_000_000, START + 100_000_000]
    np.testing.assert_array_equal(camera.matrix, K)
    np.testing.assert_array_equal(camera.distortion, [0.1, -0.2, 0.001, 0.002])
    assert (camera.width, camera.height, camera.model) == (32, 24, "plumb_bob")


def test_euroc_poses_are_the_camera_s_not_the_body_s(euroc):
    poses = open_source(euroc).poses()
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(poses[:, :3, :3], np.tile(turn @ turn, (3, 1, 1)), atol=1e-12)
    # p_world = R_world_body (0.5, 0, -0.25) + (1 + t, 2, 3)
    expected = [[1 + t, 2.5, 2.75] for t in (0, 0.05, 0.1)]
    np.testing.assert_allclose(poses[:, :3, 3], expected, atol=1e-9)


def test_tum_is_put_in_order_with_exact_stamps(tum):
    source = open_source(tum)
    stamps, camera = assert_frames(source, (24, 32, 3))
    assert stamps == [1311868169163498000 + 1000 * number for number in range(3)]
    np.testing.assert_array_equal(camera.distortion, [0.1, -0.2, 0.001, 0.002, 0.3])
    poses = source.poses()
    np.testing.assert_allclose(poses[1, :3], np.eye(3, 4) + np.outer([1, 2, 3], [0, 0, 0, 1]))
    assert np.isnan(poses[2]).all()  # after the last known one


def test_tum_without_calibration_and_ground_truth(tum):
    (tum / "camera.yaml").unlink()
    (tum / "groundtruth.txt").unlink()
    source = open_source(tum)
    assert source.poses() is None
    assert next(iter(source)).camera is None


def test_kitti(kitti):
    source = open_source(kitti)
    stamps, camera = assert_frames(source)
    assert stamps == [0, 103_622_400, 207_200_000]
    np.testing.assert_array_equal(camera.matrix, K)
    assert len(camera.distortion) == 0
    np.testing.assert_array_equal(source.poses()[:, 0, 3], [0, 1, 2])


def test_plain_folder_in_natural_order(tmp_path):
    for name, number in (("a10.png", 2), ("a2.png", 1), ("a1.png", 0)):
        store(tmp_path / name, number)
    (tmp_path / "notes.txt").write_text("not an image")
    source = open_source(tmp_path)
    stamps, camera = assert_frames(source)
    assert stamps == [100_000_000, 200_000_000, 300_000_000]
    assert camera is None
    assert source.poses() is None
    (tmp_path / "camera.yaml").write_text(yaml.safe_dump(CALIBRATION))
    assert assert_frames(open_source(tmp_path))[1].width == 32


def write_video(path, frames, rate=20):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 5 * number, np.uint8))
    writer.release()


def test_video(tmp_path):
    write_video(tmp_path / "clip.avi", 8)
    source = open_source(tmp_path / "clip.avi")
    frames = list(source)
    assert len(frames) == len(source) == 8
    assert [frame.stamp for frame in frames] == [50_000_000 * number for number in range(8)]
    levels = [frame.image.mean() for frame in frames]
    np.testing.assert_allclose(levels, 5 * np.arange(8), atol=2)
    assert source.poses() is None
    assert [frame.stamp for frame in source] == [frame.stamp for frame in frames]


def test_video_cut_short_gives_its_frames_and_then_says_so(tmp_path):
    write_video(tmp_path / "clip.avi", 40)
    content = (tmp_path / "clip.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    frames = []
    with pytest.raises(D2RosError, match=r"cut\.avi"):
        frames.extend(open_source(tmp_path / "cut.avi"))
    assert 0 < len(frames) < 40


def test_synthetic_is_handed_on(monkeypatch):
    import d2_ros.sources.synthetic as synthetic

    monkeypatch.setattr(synthetic, "open_synthetic", lambda spec: ("opened", spec), raising=False)
    assert open_source("synthetic:size=320x240,frames=4") == ("opened", "size=320x240,frames=4")
    assert open_source("synthetic") == ("opened", "")


def test_what_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no video")
    for name, words in (
        ("nowhere", "does not exist"),
        ("empty", "neither a bag"),
        ("notes.txt", "neither a bag"),
    ):
        with pytest.raises(D2RosError, match=f"{name} .*{words}|{name} is {words}"):
            open_source(tmp_path / name)
    store(tmp_path / "empty" / "1.png", 0)
    with pytest.raises(D2RosError, match="not a bag, so it has no image topic /camera"):
        open_source(tmp_path / "empty", "/camera")


def test_calibration_of_another_size_is_refused(tum):
    wrong = {**CALIBRATION, "image_width": 64}
    (tum / "camera.yaml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(D2RosError, match="is 32x24 but its calibration is for 64x24"):
        list(open_source(tum))


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "image_width: 32", "camera_matrix: {", "image_width: {a: 1}"]
)
def test_malformed_calibration_names_the_file(tum, text):
    (tum / "camera.yaml").write_text(text)
    with pytest.raises(D2RosError, match=r"camera\.yaml"):
        open_source(tum)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("sensor.yaml", "resolution: [32, 24]", r"sensor\.yaml"),
        ("data.csv", "a,b.png", r"data\.csv"),
        ("data.csv", "17", r"data\.csv must have two columns"),
        ("data.csv", "#nothing", r"data\.csv is empty"),
    ],
)
def test_malformed_euroc_names_the_file(euroc, name, text, words):
    (euroc / name).write_text(text)
    with pytest.raises(D2RosError, match=words):
        open_source(euroc)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("calib.txt", "P1: 1 2 3", "no row P0"),
        ("calib.txt", "P0: 1 2 3", "must have 12"),
        ("calib.txt", "P0: 50 0 15 0 0 inf 11 0 0 0 1 0", "NaN or infinity"),
        ("calib.txt", "P0: 50 0 15 0 0 0 11 0 0 0 1 0", "focal lengths"),
        ("times.txt", "0\n1\n", "times.txt has 2 rows for 3 images up to 000002.png"),
        (
            "poses.txt",
            "1 0 0 0 0 1 0 0 0 0 1 0\n",
            "poses.txt has 1 rows for 3 images up to 000002.png",
        ),
    ],
)
def test_malformed_kitti_names_the_trouble(kitti, name, text, words):
    (kitti / name).write_text(text)
    with pytest.raises(D2RosError, match=words):
        open_source(kitti)


def test_missing_image_is_named_when_its_turn_comes(kitti):
    source = open_source(kitti)
    (kitti / "image_0" / "000001.png").unlink()
    frames = iter(source)
    next(frames)
    with pytest.raises(D2RosError, match=r"000001\.png"):
        next(frames)


@pytest.mark.parametrize(
    ("name", "frames", "size", "step"),
    [
        ("kitti_1", 51, (1226, 370), 1.3),
        ("tum_fr2_desk", 20, (640, 480), 0.1),
        ("sevenscenes_redkitchen_a", 250, (640, 480), 0.1),
        ("euroc_v101_static", 95, (752, 480), 0.003),
        ("tum_fr3_office_sparse", 19, (640, 480), 0.7),
    ],
)
def test_real_recordings(real_data, name, frames, size, step):
    """All have a calibration, and poses that move by at most `step` metres between frames."""
    source = open_source(real_data(name))
    assert len(source) == frames
    frame = next(iter(source))
    assert frame.image.shape[1::-1] == (frame.camera.width, frame.camera.height) == size
    poses = source.poses()
    assert np.isfinite(poses).all()
    assert np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).max() < step


@pytest.mark.parametrize("second", ["-0.5", "2147483648", "9e9"])
def test_stamps_that_ros_cannot_say_are_refused(tum, second):
    index = tum / "rgb.txt"
    rows = [line for line in index.read_text().splitlines() if not line.startswith("#")]
    index.write_text(f"{second} {rows[0].split()[1]}\n")
    with pytest.raises(D2RosError, match="ROS can say 0 to"):
        list(open_source(tum))


@pytest.mark.parametrize("row", ["1 0 0 0 0 1 0 0 0 0 -1 0", "1 0 0 0 0 2 0 0 0 0 1 0"])
def test_poses_that_are_no_motion_are_refused(kitti, row):
    poses = kitti / "poses.txt"
    poses.write_text("\n".join([row] * len(poses.read_text().splitlines())))
    with pytest.raises(D2RosError, match="no rotation and translation"):
        open_source(kitti)
