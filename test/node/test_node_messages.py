from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from d2_ros import records
from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.node import messages
from d2_ros.node.recorder import type_name
from d2_ros.sources import messages as offline

STAMP = 1_403_636_579_763_555_584

# DESIGN section 3, written out again: name, struct code and PointField datatype.
FLOAT32, UINT32, INT32, UINT8 = ("f", 7), ("I", 6), ("i", 5), ("B", 2)
CONTRACT = {
    "features": [
        *((name, FLOAT32) for name in ["x", "y", "z", "u", "v", "u_detected", "v_detected"]),
        *((name, FLOAT32) for name in ["sigma_uu", "sigma_uv", "sigma_vv", "score"]),
        ("track_id", UINT32), ("track_length", UINT32), ("refined", UINT8),
    ],
    "matches": [
        ("index", UINT32), ("keyframe_sec", INT32), ("keyframe_nanosec", UINT32),
        ("keyframe_index", UINT32),
        *((name, FLOAT32) for name in ["u", "v", "keyframe_u", "keyframe_v", "similarity"]),
        ("inlier", UINT8),
    ],
    "tracks": [
        ("track_id", UINT32), ("sec", INT32), ("nanosec", UINT32), ("index", UINT32),
        *((name, FLOAT32) for name in ["x", "y", "z", "u", "v"]),
        *((name, FLOAT32) for name in ["sigma_uu", "sigma_uv", "sigma_vv"]),
    ],
}  # fmt: skip
CAMERA = Camera(64, 48, np.array([[50, 0, 31.5], [0, 51, 23.5], [0, 0, 1]]), np.arange(5) / 100)


@pytest.mark.parametrize("topic", CONTRACT)
def test_clouds_hold_the_contracts_fields_and_nothing_else(topic: str, result: Any) -> None:
    rows = getattr(result(STAMP, 11, True), topic)
    sent = messages.make_cloud(messages.make_header(STAMP, "left_optical"), rows)
    # What a reader with the message definition alone gets from the wire.
    wire = get_typestore(Stores.ROS2_HUMBLE).deserialize_cdr(
        serialize_message(sent), "sensor_msgs/msg/PointCloud2"
    )
    assert (wire.header.stamp.sec, wire.header.stamp.nanosec) == (1403636579, 763555584)
    assert wire.header.frame_id == "left_optical"
    assert (wire.height, wire.width, wire.is_bigendian) == (1, len(rows), False)
    assert [(f.name, f.datatype, f.count) for f in wire.fields] == [
        (name, datatype, 1) for name, (_, datatype) in CONTRACT[topic]
    ]
    layout = struct.Struct("<" + "".join(code for _, (code, _) in CONTRACT[topic]))
    assert (wire.point_step, wire.row_step) == (layout.size, layout.size * len(rows))
    offset = 0
    for field, (_, (code, _)) in zip(wire.fields, CONTRACT[topic], strict=True):
        assert field.offset == offset
        offset += struct.calcsize("<" + code)
    decoded = [layout.unpack_from(wire.data, n * layout.size) for n in range(len(rows))]
    assert decoded == [tuple(row) for row in rows.tolist()]


@pytest.mark.parametrize(("kind", "datatype"), [("uint8", 2), ("float32", 7)])
def test_descriptors_are_one_field_of_512(kind: str, datatype: int, result: Any) -> None:
    descriptors = result(STAMP, 7, True).descriptors
    cloud = messages.make_cloud(
        messages.make_header(STAMP, ""), records.pack_descriptors(descriptors, kind)
    )
    assert [(f.name, f.offset, f.datatype, f.count) for f in cloud.fields] == [
        ("descriptor", 0, datatype, 512)
    ]
    values = np.frombuffer(cloud.data, {2: np.uint8, 7: np.float32}[datatype]).reshape(7, 512)
    assert cloud.point_step == 512 * values.itemsize
    back = values / np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(back, descriptors, atol=5e-3 if kind == "uint8" else 1e-6)


def test_an_empty_cloud_keeps_its_fields(result: Any) -> None:
    cloud = messages.make_cloud(messages.make_header(1, ""), result(1, 0, True).features)
    assert (cloud.width, cloud.row_step, len(cloud.data), len(cloud.fields)) == (0, 0, 0, 14)
    serialize_message(cloud)


def test_a_cloud_without_calibration_says_that_it_is_not_dense(result: Any) -> None:
    rows = result(STAMP, 3, True).features
    assert messages.make_cloud(messages.make_header(1, ""), rows).is_dense
    rows["x"][1] = np.nan
    assert not messages.make_cloud(messages.make_header(1, ""), rows).is_dense


def test_the_node_and_the_offline_replay_send_the_same(result: Any) -> None:
    rows = result(STAMP, 5, True).features
    kind = "sensor_msgs/msg/PointCloud2"
    store = get_typestore(Stores.ROS2_HUMBLE)
    node = serialize_message(messages.make_cloud(messages.make_header(STAMP, "optical"), rows))
    replay = store.serialize_cdr(offline.cloud(STAMP, "optical", rows), kind)
    # Read and written anew, for Fast DDS leaves the padding between fields as it finds it.
    assert bytes(store.serialize_cdr(store.deserialize_cdr(node, kind), kind)) == bytes(replay)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_images_survive_the_wire(dtype: type, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    sent = messages.make_image(messages.make_header(STAMP, "optical"), image)
    received = deserialize_message(serialize_message(sent), Image)
    back = messages.read_image(received)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, image)
    assert messages.stamp_of(received.header) == STAMP


def test_compressed_images_are_decoded_and_rubbish_is_refused() -> None:
    import cv2

    image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    data = cv2.imencode(".png", image)[1]
    message = CompressedImage(format="png", data=messages.byte_array(data))
    np.testing.assert_array_equal(messages.read_image(message), image)
    with pytest.raises(D2RosError, match="neither JPEG nor PNG"):
        messages.read_image(CompressedImage(format="jpeg", data=b"rubbish"))


def test_a_compressed_bayer_mosaic_is_that_of_the_raw_message() -> None:
    import cv2

    mosaic = np.random.default_rng(0).integers(0, 256, (8, 10), np.uint8)
    raw = messages.make_image(messages.make_header(STAMP, "optical"), mosaic)
    raw.encoding = "bayer_rggb8"
    data = messages.byte_array(cv2.imencode(".png", mosaic)[1])
    message = CompressedImage(format="bayer_rggb8; png compressed ", data=data)
    image = messages.read_image(message)
    assert image.shape == (8, 10, 3)
    np.testing.assert_array_equal(image, messages.read_image(raw))


def test_unknown_encodings_are_named() -> None:
    message = messages.make_image(messages.make_header(1, ""), np.zeros((4, 4), np.uint8))
    message.encoding = "tiger32"
    with pytest.raises(D2RosError, match="tiger32"):
        messages.read_image(message)


@pytest.mark.parametrize(
    ("model", "count"), [("plumb_bob", 5), ("rational_polynomial", 8), ("equidistant", 4)]
)
def test_cameras_survive_the_wire(model: str, count: int) -> None:
    camera = Camera(64, 48, CAMERA.matrix, np.arange(count) / 1000, model)
    sent = messages.make_camera_info(messages.make_header(STAMP, ""), camera, 64, 48)
    received = deserialize_message(serialize_message(sent), CameraInfo)
    back = messages.read_camera(received, rectified=False)
    assert back is not None
    assert (back.width, back.height, back.model) == (64, 48, model)
    np.testing.assert_array_equal(back.matrix, camera.matrix)
    np.testing.assert_array_equal(back.distortion, camera.distortion)


def test_rectified_images_use_the_projection_matrix_without_distortion() -> None:
    message = messages.make_camera_info(messages.make_header(1, ""), CAMERA, 64, 48)
    message.p[0] = 40.0
    back = messages.read_camera(message, rectified=True)
    assert back is not None
    assert back.matrix[0, 0] == 40.0
    assert len(back.distortion) == 0


def test_zero_calibration_means_none_and_nan_is_refused() -> None:
    header = messages.make_header(1, "")
    assert messages.read_camera(messages.make_camera_info(header, None, 64, 48), False) is None
    message = messages.make_camera_info(header, CAMERA, 64, 48)
    message.k[4] = float("nan")
    with pytest.raises(D2RosError, match="camera_info is unusable: calibration holds NaN"):
        messages.read_camera(message, False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": [1e308, 0, 1, 0, 1e308, 1, 0, 0, 1]}, "focal lengths"),
        ({"k": [1e-310, 0, 1, 0, 50, 1, 0, 0, 1]}, "focal lengths"),
        ({"k": [-50.0, 0, 1, 0, 50, 1, 0, 0, 1]}, "focal lengths"),
        ({"k": [float("inf"), 0, 1, 0, 50, 1, 0, 0, 1]}, "NaN or infinity"),
        ({"d": [0.0] * 1_000_000}, "1000000 coefficients"),
        ({"d": [float("nan")] * 5}, "NaN or infinity"),
        ({"distortion_model": "m" * 1_000_000}, "is unknown"),
        ({"binning_x": 2**32 - 1}, "binning 4294967295x1 leaves nothing"),
    ],
)
def test_malicious_calibrations_are_refused_in_a_short_sentence(
    changes: dict[str, Any], words: str
) -> None:
    message = messages.make_camera_info(messages.make_header(1, ""), CAMERA, 64, 48)
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(D2RosError, match=words) as caught:
        messages.read_camera(message, False)
    assert len(str(caught.value)) < 300


def test_rectified_without_a_projection_matrix_is_refused() -> None:
    message = messages.make_camera_info(messages.make_header(1, ""), CAMERA, 64, 48)
    message.p = [0.0] * 12
    with pytest.raises(D2RosError, match="focal lengths"):
        messages.read_camera(message, True)


def test_type_names_are_those_of_bags() -> None:
    assert type_name(PointCloud2) == "sensor_msgs/msg/PointCloud2"


def test_the_python_example_of_the_documentation_decodes_every_topic(result: Any) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "topics.md").read_text(encoding="utf-8")
    example = page.split("```python\n")[1].split("\nrclpy.init()")[0]
    names: dict[str, Any] = {}
    exec(example, names)
    frame = result(STAMP, 6, True)
    header = messages.make_header(STAMP, "")
    for table in (frame.features, frame.matches, frame.tracks):
        decoded = names["rows"](messages.make_cloud(header, table))
        assert decoded.dtype.names == table.dtype.names
        assert decoded.tolist() == table.tolist()
    packed = records.pack_descriptors(frame.descriptors, "float32")
    decoded = names["rows"](messages.make_cloud(header, packed))
    np.testing.assert_array_equal(decoded["descriptor"], frame.descriptors)


@pytest.mark.parametrize("topic", CONTRACT)
def test_the_documentation_lists_the_fields_in_order(topic: str) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "topics.md").read_text(encoding="utf-8")
    section = page.split(f"\n### {topic}\n")[1].split("\n### ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    listed = [(name, kind.strip()) for names, kind in rows for name in names.strip(" `").split()]
    words = {7: "FLOAT32", 6: "UINT32", 5: "INT32", 2: "UINT8"}
    assert listed == [(name, words[datatype]) for name, (_, datatype) in CONTRACT[topic]]
