"""Folders and calibration files as people have them, on the real command."""

import cv2
import numpy as np
import pytest
import yaml

from d2_ros.sources import open_source

MATRIX = [[50.0, 0, 15.5], [0, 51, 11.5], [0, 0, 1]]
FLAT = np.ravel(MATRIX).tolist()
D = [0.1, -0.2, 0.001, 0.00002, 0.3]
BOM = "\ufeff"


def store(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(number).integers(0, 255, (24, 32), np.uint8)
    cv2.imwrite(str(path), image)


@pytest.fixture
def converted(tmp_path, d2_ros):
    """Convert a source and return its frames as the bag has them."""

    def run(source):
        out = tmp_path / "converted.mcap"
        outcome = d2_ros("convert", source, out)
        assert outcome.code == 0, outcome.err
        opened = open_source(out)
        return list(opened), opened.poses()

    return run


def assert_images(frames, numbers):
    assert len(frames) == len(numbers)
    for frame, number in zip(frames, numbers, strict=True):
        expected = np.random.default_rng(number).integers(0, 255, (24, 32), np.uint8)
        np.testing.assert_array_equal(frame.image, expected)


@pytest.mark.parametrize("start", ["", BOM])
def test_tum_with_a_byte_order_mark_spaces_and_windows_line_ends(tmp_path, start, converted):
    folder = tmp_path / "my sequence"
    names = ["rgb/left eye 1.png", "rgb/b#2.PNG", "rgb/ä.png"]
    for number, name in enumerate(names):
        store(folder / name, number)
    rows = [f"{number + 1}.5 {name}" for number, name in enumerate(names)]
    text = "\r\n".join([f"{start}# time file", *rows, "  # the end", ""])
    (folder / "rgb.txt").write_text(text, encoding="utf-8")
    (folder / "camera.yaml").write_text(start + calibration_of_ros(), encoding="utf-8")
    frames, _ = converted(folder)
    assert_images(frames, range(3))
    assert [frame.stamp for frame in frames] == [1_500_000_000, 2_500_000_000, 3_500_000_000]
    assert frames[0].camera is not None


def test_tum_associations_as_the_list_of_images(tmp_path, converted):
    for number in range(3):
        store(tmp_path / "s" / "rgb" / f"{number}.png", number)
    rows = [f"{n + 1}.0 rgb/{n}.png {n + 1}.1 depth/{n}.png" for n in range(3)]
    (tmp_path / "s" / "rgb.txt").write_text("\n".join(rows))
    frames, _ = converted(tmp_path / "s")
    assert_images(frames, range(3))


def kitti(folder, camera="image_2", numbers=range(4), times=4):
    for number in numbers:
        store(folder / camera / f"{number:06}.png", number)
    (folder / "calib.txt").write_text(
        "P0: 50 0 15.5 0 0 51 11.5 0 0 0 1 0\nP2: 50 0 15.5 5 0 51 11.5 5.1 0 0 1 0\n"
    )
    (folder / "times.txt").write_text("".join(f"{number + 1}\n" for number in range(times)))


def test_kitti_with_the_colour_camera_only(tmp_path, converted):
    folder = tmp_path / "dataset" / "sequences" / "00"
    kitti(folder)
    (tmp_path / "dataset" / "poses").mkdir()
    turn = "0 0 1 0 0 1 0 0 -1 0 0 0\n"  # z of the camera along x of the world
    (tmp_path / "dataset" / "poses" / "00.txt").write_text(turn * 4)
    frames, poses = converted(folder)
    assert_images(frames, range(4))
    np.testing.assert_array_equal(frames[0].camera.matrix, MATRIX)
    # The camera is where x + K^-1 p = 0: at (-0.1, -0.1, 0) of the gray one, turned.
    np.testing.assert_allclose(poses[0, :3, 3], [0, -0.1, 0.1], atol=1e-12)


@pytest.mark.parametrize("numbers", [[0, 1], [1, 3]])
def test_kitti_with_fewer_images_than_times(tmp_path, numbers, converted):
    kitti(tmp_path / "k", "image_0", numbers)
    rows = "".join(f"1 0 0 {number} 0 1 0 0 0 0 1 0\n" for number in range(4))
    (tmp_path / "k" / "poses.txt").write_text(rows)
    frames, poses = converted(tmp_path / "k")
    assert_images(frames, numbers)
    assert [frame.stamp // 10**9 - 1 for frame in frames] == numbers
    np.testing.assert_array_equal(poses[:, 0, 3], numbers)


@pytest.mark.parametrize("level", ["drive", "camera", "data"])
@pytest.mark.parametrize("rectified", [True, False])
def test_kitti_raw(tmp_path, level, rectified, converted):
    date = tmp_path / "2011_09_26"
    drive = date / "2011_09_26_drive_0001_sync"
    for number in range(3):
        store(drive / "image_02" / "data" / f"{number:010}.png", number)
    times = [f"2011-09-26 13:02:{25 + n}.964389445\n" for n in range(5)]
    (drive / "image_02" / "timestamps.txt").write_text("".join(times))
    sizes = ("4.0e+01 3.0e+01", "3.2e+01 2.4e+01")
    (date / "calib_cam_to_cam.txt").write_text(
        f"calib_time: 09-Jan-2012 13:57:47\nS_02: {sizes[not rectified]}\n"
        f"K_02: 60 0 15 0 61 11 0 0 1\nD_02: 0.1 -0.2 0.001 0.002 0.3\n"
        f"S_rect_02: {sizes[rectified]}\nP_rect_02: 50 0 15.5 5 0 51 11.5 0 0 0 1 0\n"
    )
    places = {"drive": drive, "camera": drive / "image_02", "data": drive / "image_02" / "data"}
    frames, poses = converted(places[level])
    assert_images(frames, range(3))
    # 2011-09-26 13:02:25 UTC
    assert [frame.stamp for frame in frames] == [1317042145964389445 + n * 10**9 for n in range(3)]
    assert frames[0].camera.matrix[0, 0] == (50 if rectified else 60)
    assert frames[0].camera.distortion.any() != rectified
    assert poses is None


@pytest.mark.parametrize("missing", ["sensor.yaml", "data.csv"])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_euroc_names_the_file_that_is_missing(tmp_path, missing, level, d2_ros):
    camera = tmp_path / "e" / "mav0" / "cam0"
    store(camera / "data" / "100.png", 0)
    (camera / "data.csv").write_text("#t,name\n100,100.png\n")
    (camera / "sensor.yaml").write_text("resolution: [32, 24]\n")
    (camera / missing).unlink()
    source = [camera, camera.parent, camera.parent.parent][level]
    outcome = d2_ros("convert", source, tmp_path / "out.mcap")
    assert outcome.code == 2
    assert f"EuRoC folder {camera} lacks {missing}" in outcome.err


def test_upper_case_suffixes_and_spaces_in_an_image_folder(tmp_path, converted):
    for number, name in enumerate(("a 1.PNG", "a 2.Png", "a 10.BMP")):
        store(tmp_path / "my images" / name, number)
    frames, _ = converted(tmp_path / "my images")
    assert_images(frames, range(3))


def calibration_of_ros():
    return yaml.safe_dump(
        {
            "image_width": 32,
            "image_height": 24,
            "camera_name": "camera",
            "camera_matrix": {"rows": 3, "cols": 3, "data": FLAT},
            "distortion_model": "plumb_bob",
            "distortion_coefficients": {"rows": 1, "cols": 5, "data": D},
        }
    )


def topic_echo(flow, ros1=False):
    keys = ("D", "K", "R", "P") if ros1 else ("d", "k", "r", "p")
    values = (D, FLAT, np.eye(3).ravel().tolist(), [*FLAT[:3], 0, *FLAT[3:6], 0, *FLAT[6:], 0])
    stamp = {"secs": 1, "nsecs": 2} if ros1 else {"sec": 1, "nanosec": 2}
    roi = {"x_offset": 0, "y_offset": 0, "height": 0, "width": 0, "do_rectify": False}
    tree = {
        "header": {"stamp": stamp, "frame_id": "optical"},
        "height": 24,
        "width": 32,
        "distortion_model": "plumb_bob",
        **dict(zip(keys, values, strict=True)),
        "binning_x": 0,
        "binning_y": 0,
        "roi": roi,
    }
    text = yaml.safe_dump(tree, sort_keys=False, default_flow_style=None if flow else False)
    return f"{text}---\n{text}---\n"


def opencv(path, matrix, distortion, **others):
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write(matrix, np.array(MATRIX))
    storage.write(distortion, np.array([D if not others.get("fisheye_model") else D[:4]]).T)
    for key, value in others.items():
        storage.write(key, value)
    storage.release()


CALIBRATIONS = {
    "ROS": lambda path: path.write_text(calibration_of_ros()),
    "ROS with a byte order mark": lambda path: path.write_text(BOM + calibration_of_ros()),
    "ros2 topic echo": lambda path: path.write_text(topic_echo(False)),
    "ros2 topic echo --flow-style": lambda path: path.write_text(topic_echo(True)),
    "rostopic echo": lambda path: path.write_text(topic_echo(True, ros1=True)),
    "OpenCV": lambda path: opencv(
        path, "camera_matrix", "distortion_coefficients", image_width=32, image_height=24
    ),
    "OpenCV without a size": lambda path: opencv(path, "cameraMatrix", "distCoeffs"),
    "OpenCV of a chessboard tutorial": lambda path: opencv(path, "K", "D"),
    "OpenCV, interactive": lambda path: opencv(
        path, "cameraMatrix", "dist_coeffs", cameraResolution=np.array([[32.0], [24.0]])
    ),
}


@pytest.mark.parametrize("kind", CALIBRATIONS)
def test_calibrations_as_users_have_them(tmp_path, kind, converted):
    store(tmp_path / "images" / "1.png", 0)
    CALIBRATIONS[kind](tmp_path / "images" / "camera.yaml")
    frames, _ = converted(tmp_path / "images")
    camera = frames[0].camera
    np.testing.assert_array_equal(camera.matrix, MATRIX)
    np.testing.assert_array_equal(camera.distortion, D)
    assert (camera.width, camera.height, camera.model) == (32, 24, "plumb_bob")


def test_opencv_says_fisheye_by_a_flag_and_may_be_xml(tmp_path, converted):
    store(tmp_path / "images" / "1.png", 0)
    path = tmp_path / "images" / "camera.xml"
    opencv(path, "camera_matrix", "distortion_coefficients", fisheye_model=1)
    frames, _ = converted(tmp_path / "images")
    assert frames[0].camera.model == "equidistant"
    np.testing.assert_array_equal(frames[0].camera.distortion, D[:4])


@pytest.mark.parametrize(
    "text",
    ["", "- 1", "k: [1, 2]\nd: []", "k: {a: 1}\nd: 3", "k: [a]\nd: [b]", "camera_matrix:\nD: []",
     "k: [50, 0, 15, 0, 50, 12, 0, 0, 1]\nd: []\nwidth: x\nheight: 1",
     "k: [50, 0, 15, 0, 50, 12, 0, 0, 1]\nd: []\nroi: 7", "%YAML:1.0\n---\nK: !!opencv-matrix\n",
     "k: [50, 0, 15, 0, 50, 12, 0, 0, 1]\nd: [1, 2, 3]", "a: 2001-99-99", "<?xml version='1'?>"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["camera.yaml", "camera.xml"])
def test_spoiled_calibrations_are_one_sentence(tmp_path, text, name, d2_ros):
    store(tmp_path / "images" / "1.png", 0)
    (tmp_path / "images" / name).write_text(text)
    outcome = d2_ros("convert", tmp_path / "images", tmp_path / "out.mcap")
    assert outcome.code == 2
    assert name in outcome.err
    assert "Traceback" not in outcome.err
