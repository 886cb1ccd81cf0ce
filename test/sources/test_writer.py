"""The writer, read back by rosbags and mcap, which know nothing of it."""

import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader

from d2_ros import records
from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.sources import messages as build
from d2_ros.sources.images import decode_image
from d2_ros.sources.writer import BagWriter

STAMP = 1_700_000_000_987_654_321


def write(path, message, topic="/topic"):
    with BagWriter(path) as bag:
        bag.write(topic, message)


def read(path):
    """All (topic, log time, message), by the definitions in the file alone."""
    with AnyReader([path]) as reader:
        return [
            (connection.topic, time, reader.deserialize(raw, connection.msgtype))
            for connection, time, raw in reader.messages()
        ]


def decode_cloud(message):
    """Rows of a PointCloud2 from its own description, as DESIGN section 3 tells."""
    kinds = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
    layout = np.dtype(
        {
            "names": [field.name for field in message.fields],
            "formats": [
                ("<" + kinds[field.datatype], (field.count,)) if field.count > 1
                else "<" + kinds[field.datatype]
                for field in message.fields
            ],
            "offsets": [field.offset for field in message.fields],
            "itemsize": message.point_step,
        }
    )  # fmt: skip
    return message.data.view(layout)


@pytest.mark.parametrize("name", ["FEATURES", "MATCHES", "TRACKS"])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_clouds_of_every_topic_come_back_field_by_field(tmp_path, name, count):
    dtype = getattr(records, name)
    rows = np.zeros(count, dtype)
    for index, field in enumerate(dtype.names):
        rows[field] = np.arange(count) + 10 * index
    write(tmp_path / "a.mcap", build.cloud(STAMP, "optical", rows))
    ((_, time, message),) = read(tmp_path / "a.mcap")
    assert time == build.stamp_of(message) == STAMP
    assert (message.header.frame_id, message.height, message.width) == ("optical", 1, count)
    assert (message.is_bigendian, message.is_dense) == (False, True)
    assert message.point_step * count == message.row_step == len(message.data)
    assert sum(np.dtype(dtype[field]).itemsize for field in dtype.names) == message.point_step
    assert message.data.tobytes() == rows.tobytes()
    found = decode_cloud(message)
    assert found.dtype.names == dtype.names
    for field in dtype.names:
        np.testing.assert_array_equal(found[field], rows[field])


def test_clouds_without_bearings_are_not_dense(tmp_path):
    rows = np.zeros(2, records.FEATURES)
    rows["x"][1] = np.nan
    assert not build.cloud(STAMP, "c", rows).is_dense
    assert build.cloud(STAMP, "c", rows[:1]).is_dense


@pytest.mark.parametrize(
    ("kind", "error"), [("float32", 0.0), ("uint8", 0.501 / records.DESCRIPTOR_SCALE)]
)
def test_descriptors(tmp_path, kind, error):
    descriptors = np.abs(np.random.default_rng(0).normal(size=(5, 512))).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    rows = records.pack_descriptors(descriptors, kind)
    write(tmp_path / "a.mcap", build.cloud(STAMP, "c", rows))
    ((_, _, message),) = read(tmp_path / "a.mcap")
    (field,) = message.fields
    assert (field.name, field.offset, field.count) == ("descriptor", 0, 512)
    assert field.datatype == {"float32": 7, "uint8": 2}[kind]
    scale = {"float32": 1, "uint8": records.DESCRIPTOR_SCALE}[kind]
    found = decode_cloud(message)["descriptor"] / scale
    np.testing.assert_allclose(found, descriptors, atol=error)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_images(tmp_path, shape, kind):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape, kind)
    write(tmp_path / "a.mcap", build.image(STAMP, "c", pixels[::-1]))  # not contiguous
    ((_, _, message),) = read(tmp_path / "a.mcap")
    depth = np.dtype(kind).itemsize * 8
    assert message.encoding == ("mono" if len(shape) == 2 else "bgr") + str(depth)
    found = decode_image(
        message.encoding, message.height, message.width, message.step, False, message.data
    )
    np.testing.assert_array_equal(found, pixels[::-1])


def test_camera_info(tmp_path):
    matrix = np.array([[50, 0, 15.5], [0, 51, 11.5], [0, 0, 1]])
    camera = Camera(32, 24, matrix, [0.1, 0.2, 0.3, 0.4], "equidistant")
    write(tmp_path / "a.mcap", build.camera_info(STAMP, "c", camera, 32, 24))
    ((_, _, message),) = read(tmp_path / "a.mcap")
    assert (message.width, message.height) == (32, 24)
    assert message.distortion_model == "equidistant"
    np.testing.assert_array_equal(message.k.reshape(3, 3), matrix)
    np.testing.assert_array_equal(message.d, camera.distortion)
    np.testing.assert_array_equal(message.r.reshape(3, 3), np.eye(3))
    np.testing.assert_array_equal(message.p.reshape(3, 4)[:, :3], matrix)
    assert not build.camera_info(STAMP, "c", None, 32, 24).k.any()


def test_file_is_a_rosbag2_recording(tmp_path):
    path = tmp_path / "a.mcap"
    with BagWriter(path) as bag:
        for number in range(3):
            bag.write("/a", build.camera_info(STAMP + number, "c", None, 32, 24))
            bag.write("/b", build.camera_info(STAMP + number, "c", None, 32, 24))
    with path.open("rb") as stream:
        reader = make_reader(stream)
        assert reader.get_header().profile == "ros2"
        summary = reader.get_summary()
    assert summary.statistics.message_count == 6
    assert len(summary.schemas) == 1
    for channel in summary.channels.values():
        assert channel.message_encoding == "cdr"
        (profile,) = yaml.safe_load(channel.metadata["offered_qos_profiles"])
        assert (profile["history"], profile["depth"]) == (1, 10)
        assert (profile["reliability"], profile["durability"]) == (1, 2)
    for schema in summary.schemas.values():
        assert (schema.encoding, schema.name) == ("ros2msg", "sensor_msgs/msg/CameraInfo")
    with Reader(path) as bag:
        assert bag.message_count == 6
        assert bag.connections[0].ext.offered_qos_profiles[0].reliability.name == "RELIABLE"


def test_same_messages_make_the_same_file(tmp_path):
    for name in ("a.mcap", "b.mcap"):
        write(tmp_path / name, build.cloud(STAMP, "c", np.ones(3, records.TRACKS)))
    assert (tmp_path / "a.mcap").read_bytes() == (tmp_path / "b.mcap").read_bytes()


def test_an_exception_loses_nothing_that_was_written(tmp_path):
    path = tmp_path / "a.mcap"

    def interrupted():
        with BagWriter(path) as bag:
            bag.write("/a", build.camera_info(STAMP, "c", None, 32, 24))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [topic for topic, _, _ in read(path)] == ["/a"]


def test_serialised_messages_of_others(tmp_path):
    message = build.pose(STAMP, "world", np.eye(4))
    data = bytes(build.TYPES.serialize_cdr(message, message.__msgtype__))
    with BagWriter(tmp_path / "a.mcap") as bag:
        bag.write_serialized("/pose", message.__msgtype__, data, 7)
        with pytest.raises(D2RosError, match="my_msgs/msg/Own is unknown"):
            bag.write_serialized("/own", "my_msgs/msg/Own", b"", 7)
    ((topic, time, found),) = read(tmp_path / "a.mcap")
    assert (topic, time, found.pose.orientation.w) == ("/pose", 7, 1)


def test_existing_file_is_overwritten(tmp_path):
    path = tmp_path / "a.mcap"
    path.write_bytes(b"x" * 100_000)
    write(path, build.camera_info(STAMP, "c", None, 32, 24))
    assert len(read(path)) == 1


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "folder.mcap").mkdir()
    with pytest.raises(D2RosError, match=r"cannot write .*folder\.mcap: Is a directory"):
        BagWriter(tmp_path / "folder.mcap")
    with pytest.raises(D2RosError, match=r"cannot write .*a\.mcap: No such file"):
        BagWriter(tmp_path / "missing" / "a.mcap")
    with pytest.raises(D2RosError, match=r"ends in \.mcap"):
        BagWriter(tmp_path / "a.bag")


@pytest.mark.skipif("not __import__('os').path.exists('/dev/full')", reason="needs /dev/full")
def test_full_disk_is_one_clear_error(tmp_path):
    (tmp_path / "full.mcap").symlink_to("/dev/full")
    message = build.image(STAMP, "c", np.zeros((1000, 1000), np.uint8))
    with pytest.raises(D2RosError, match="No space left"):
        write(tmp_path / "full.mcap", message)
