"""Bags of every storage, written here by rosbags, and damaged ones."""

import cv2
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.sources import messages as build
from d2_ros.sources import open_source
from d2_ros.sources.writer import BagWriter

START = 1_700_000_000_123_456_789
CAMERA = Camera(32, 24, [[50, 0, 15.5], [0, 51, 11.5], [0, 0, 1]], [0.1, -0.2, 0.001, 0.002, 0.3])
ROS1 = get_typestore(Stores.ROS1_NOETIC)


def picture(number):
    return np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)


def stamp(number):
    return START + 100_000_000 * number


def recording(frames=3):
    """(topic, message) in the order of recording; the calibration comes once, like latched."""
    yield "/camera/camera_info", build.camera_info(stamp(0), "optical", CAMERA, 32, 24)
    for number in range(frames):
        yield "/camera/image_raw", build.image(stamp(number), "optical", picture(number))


def write_mcap(path, items):
    with BagWriter(path) as bag:
        for topic, message in items:
            bag.write(topic, message)
    return path


def write_rosbag2(path, items, storage):
    with Writer2(path, version=8, storage_plugin=storage) as bag:
        connections = {}
        for topic, message in items:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = bag.add_connection(topic, kind, typestore=build.TYPES)
            raw = build.TYPES.serialize_cdr(message, kind)
            bag.write(connections[topic], build.stamp_of(message), raw)
    return path


def as_ros1(message):
    """The same message in ROS 1's definitions: a header with seq, capitals in CameraInfo."""
    kind = message.__msgtype__
    header = ROS1.types["std_msgs/msg/Header"](0, message.header.stamp, message.header.frame_id)
    fields = {key: getattr(message, key) for key in message.__dataclass_fields__}
    fields["header"] = header
    if kind.endswith("CameraInfo"):
        for key in "dkrp":
            fields[key.upper()] = fields.pop(key)
    fields.pop("__msgtype__", None)
    return ROS1.types[kind](**fields)


def write_rosbag1(path, items):
    with Writer1(path) as bag:
        connections = {}
        for topic, message in items:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = bag.add_connection(topic, kind, typestore=ROS1)
            raw = ROS1.serialize_ros1(as_ros1(message), kind)
            bag.write(connections[topic], build.stamp_of(message), raw)
    return path


def make(storage, folder, items):
    if storage == "bare mcap":
        return write_mcap(folder / "bag.mcap", items)
    if storage == "rosbag1":
        return write_rosbag1(folder / "bag.bag", items)
    kind = StoragePlugin.MCAP if "mcap" in storage else StoragePlugin.SQLITE3
    path = write_rosbag2(folder / "bag", items, kind)
    return path / "bag.db3" if storage == "bare sqlite3" else path


STORAGES = ["bare mcap", "mcap folder", "sqlite3 folder", "bare sqlite3", "rosbag1"]


@pytest.mark.parametrize("storage", STORAGES)
def test_every_storage_gives_the_frames_back(tmp_path, storage):
    source = open_source(make(storage, tmp_path, recording()))
    for _ in range(2):
        frames = list(source)
        assert len(frames) == len(source) == 3
        for number, frame in enumerate(frames):
            assert frame.stamp == stamp(number)
            assert frame.frame_id == "optical"
            np.testing.assert_array_equal(frame.image, picture(number))
            np.testing.assert_array_equal(frame.camera.matrix, CAMERA.matrix)
            np.testing.assert_array_equal(frame.camera.distortion, CAMERA.distortion)
    assert source.poses() is None


def test_folder_without_metadata_is_read_file_by_file(tmp_path):
    path = make("mcap folder", tmp_path, recording())
    (path / "metadata.yaml").unlink()
    assert len(list(open_source(path))) == 3


def compressed(number, ending, text):
    content = cv2.imencode(ending, picture(number))[1]
    return build.TYPES.types["sensor_msgs/msg/CompressedImage"](
        header=build.header(stamp(number), "optical"), format=text, data=content
    )


def test_compressed_images(tmp_path):
    topic = "/camera/image_raw/compressed"
    items = [next(recording())] + [(topic, compressed(n, ".png", "bgr8; png ")) for n in range(2)]
    source = open_source(write_mcap(tmp_path / "a.mcap", items))
    for number, frame in enumerate(source):
        np.testing.assert_array_equal(frame.image, picture(number))
        assert frame.camera is not None  # from /camera/camera_info


def test_image_topic_must_be_chosen_where_there_are_several(tmp_path):
    items = list(recording(2)) + [
        ("/right/image_raw", build.image(stamp(n), "right", picture(5))) for n in range(2)
    ]
    path = write_mcap(tmp_path / "a.mcap", items)
    words = "2 image topics; choose with --image-topic: /camera/image_raw, /right/image_raw"
    with pytest.raises(D2RosError, match=words):
        open_source(path)
    with pytest.raises(D2RosError, match=r"no images on /left; choose .*/right/image_raw"):
        open_source(path, "/left")
    frames = list(open_source(path, "/right/image_raw"))
    assert [frame.frame_id for frame in frames] == ["right", "right"]
    assert frames[0].camera is None  # the other camera's calibration is not taken
    assert next(iter(open_source(path, "/camera/image_raw"))).camera is not None


def test_bag_without_images_is_refused(tmp_path):
    path = write_mcap(tmp_path / "a.mcap", [next(recording())])
    with pytest.raises(D2RosError, match="has no images"):
        open_source(path)


def test_calibration_may_come_late_and_change(tmp_path):
    other = Camera(32, 24, [[70, 0, 15.5], [0, 71, 11.5], [0, 0, 1]], [])
    items = [
        ("/camera/image_raw", build.image(stamp(0), "c", picture(0))),
        ("/camera/camera_info", build.camera_info(stamp(1), "c", CAMERA, 32, 24)),
        ("/camera/image_raw", build.image(stamp(2), "c", picture(2))),
        ("/camera/camera_info", build.camera_info(stamp(3), "c", other, 32, 24)),
        ("/camera/image_raw", build.image(stamp(4), "c", picture(4))),
    ]
    frames = list(open_source(write_mcap(tmp_path / "a.mcap", items)))
    assert [frame.camera.matrix[0, 0] for frame in frames] == [50, 50, 70]


def info(**changes):
    message = build.camera_info(stamp(0), "c", CAMERA, 32, 24)
    for key, value in changes.items():
        setattr(message, key, value)
    return message


@pytest.mark.parametrize(
    ("topic", "changes", "focal", "centre", "distorted"),
    [
        ("/camera/image_raw", {}, 50, 15.5, True),
        ("/camera/image_rect", {"p": np.array([60.0, 0, 14, 0, 0, 61, 11, 0, 0, 0, 1, 0])}, 60,
         14, False),
        ("/camera/image_raw", {"width": 64, "height": 48, "binning_x": 2, "binning_y": 2}, 25,
         7.5, True),
        ("/camera/image_raw", {"width": 0, "height": 0}, 50, 15.5, True),
    ],
)  # fmt: skip
def test_calibration_is_that_of_the_image(tmp_path, topic, changes, focal, centre, distorted):
    items = [
        ("/camera/camera_info", info(**changes)),
        (topic, build.image(stamp(0), "c", picture(0))),
    ]
    camera = next(iter(open_source(write_mcap(tmp_path / "a.mcap", items)))).camera
    assert camera.matrix[0, 0] == focal
    assert camera.matrix[0, 2] == centre
    assert camera.distortion.any() == distorted


def test_uncalibrated_driver_sends_zeros(tmp_path):
    zero = build.camera_info(stamp(0), "c", None, 32, 24)
    items = [("/camera/camera_info", zero), *list(recording(1))[1:]]
    assert next(iter(open_source(write_mcap(tmp_path / "a.mcap", items)))).camera is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 64}, "image .* is 32x24 but its calibration is for 64x24"),
        ({"distortion_model": "magic"}, "/camera/camera_info is unusable: .*'magic'"),
        ({"k": np.full(9, np.nan)}, "/camera/camera_info is unusable: .*NaN"),
    ],
)
def test_unusable_calibration_is_named(tmp_path, changes, words):
    items = [("/camera/camera_info", info(**changes)), *list(recording(1))[1:]]
    with pytest.raises(D2RosError, match=words):
        list(open_source(write_mcap(tmp_path / "a.mcap", items)))


def test_unusable_image_names_topic_and_time(tmp_path):
    message = build.image(stamp(1), "c", picture(1))
    message.encoding = "32FC2"
    path = write_mcap(tmp_path / "a.mcap", [*recording(1), ("/camera/image_raw", message)])
    frames = iter(open_source(path))
    next(frames)
    with pytest.raises(D2RosError, match=f"/camera/image_raw at {stamp(1)} ns: .*'32FC2'"):
        next(frames)


def test_ground_truth_is_read_back(tmp_path):
    poses = [np.eye(4), np.eye(4)]
    poses[1][:3, :3] = cv2.Rodrigues(np.array([0.1, -0.2, 0.3]))[0]
    poses[1][:3, 3] = [1, 2, 3]
    truth = [("/ground_truth/pose", build.pose(stamp(n), "world", poses[n])) for n in range(2)]
    source = open_source(write_mcap(tmp_path / "a.mcap", [*recording(3), *truth]))
    found = source.poses()
    np.testing.assert_allclose(found[:2], poses, atol=1e-12)
    assert np.isnan(found[2]).all()


def read_to_the_end(path):
    """The frames up to the one clear error, and the error."""
    frames = []
    with pytest.raises(D2RosError) as caught:
        frames.extend(open_source(path))
    return frames, str(caught.value)


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.999])
def test_mcap_cut_short_gives_its_frames_and_then_says_so(tmp_path, share, folder):
    # Chunks are closed after a mebibyte, which is 455 of these images.
    if folder:
        bag = write_rosbag2(tmp_path / "bag", recording(1000), StoragePlugin.MCAP)
        path = bag / "bag.mcap"
    else:
        bag = path = write_mcap(tmp_path / "a.mcap", recording(1000))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    frames, error = read_to_the_end(bag)
    assert len(frames) == len(open_source(bag)) >= 400
    for number, frame in enumerate(frames):
        assert frame.stamp == stamp(number)
    assert frames[0].camera is not None
    np.testing.assert_array_equal(frames[-1].image, picture(len(frames) - 1))
    assert path.name in error
    assert "cut short or damaged" in error
    assert "mcap recover" in error


def test_mcap_with_a_flipped_byte_gives_the_frames_before_it(tmp_path):
    path = write_mcap(tmp_path / "a.mcap", recording(1000))
    content = bytearray(path.read_bytes())
    content[int(0.6 * len(content))] ^= 1
    path.write_bytes(content)
    frames, error = read_to_the_end(path)
    assert len(frames) >= 400
    assert "checksum" in error


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_damaged_bags_end_in_the_one_error(tmp_path, storage, share):
    bag = make(storage, tmp_path, recording(20))
    path = next(bag.glob("bag.*")) if bag.is_dir() else bag
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    frames, error = read_to_the_end(bag)
    assert len(frames) <= 20
    assert str(tmp_path) in error
    assert "\n" not in error


def test_random_bytes_and_wrong_kinds_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.mcap", "a.db3", "a.bag"):
        (tmp_path / name).write_bytes(rng.bytes(5000))
        with pytest.raises(D2RosError, match=name):
            open_source(tmp_path / name)
    folder = tmp_path / "bag"
    folder.mkdir()
    for text in ("", "no: bag", "rosbag2_bagfile_information: {version: 5}"):
        (folder / "metadata.yaml").write_text(text)
        with pytest.raises(D2RosError, match="bag"):
            open_source(folder)


def test_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = write_mcap(tmp_path / "a.mcap", recording())

    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(D2RosError, match=r"a\.mcap.* Permission denied"):
        open_source(path)
