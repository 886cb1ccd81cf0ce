"""A stereo pair through the real node over DDS, recorded to a bag, read by the rules of VINS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import CameraInfo, Image, PointCloud, PointCloud2

from d2_ros import records
from d2_ros.camera import Camera
from d2_ros.node import camera_pipeline
from d2_ros.node.messages import make_camera_info, make_header, make_image
from d2_ros.node.recorder import Recorder
from d2_ros.node.source_publisher import IMAGE_QOS
from d2_ros.sources import open_source
from d2_ros.sources.writer import BagWriter

TOPIC = "/d2_frontend/left/feature_tracks"
FEATURES = "/d2_frontend/right/features"
DISPARITY = 6.3
LATE = 2_000_000  # ns, the right camera's stamps
STEREO = {
    "cameras": ["left", "right"],
    "input__qos": "replay",
    "input__sync_tolerance": 0.005,
    "input__stereo": True,
    "threads": 1,
}


@pytest.fixture(scope="module")
def frames() -> list[Any]:
    return list(open_source("synthetic:size=160x120,frames=4,seed=0"))


@pytest.fixture(scope="module")
def right_camera(frames: list[Any]) -> Camera:
    """Another calibration than the left one, distorted, so that a mistaken one shows."""
    matrix = frames[0].camera.matrix + np.array([[3, 0, 2], [0, 4, -1], [0, 0, 0]])
    return Camera(160, 120, matrix, [-0.1, 0.02, 0.001, 0, 0])


def shifted(image: Any) -> Any:
    """The right image: all of the scene at one disparity."""
    warp = np.array([[1.0, 0.0, -DISPARITY], [0.0, 1.0, 0.0]])
    flags, border = cv2.INTER_LANCZOS4, cv2.BORDER_REFLECT
    return cv2.warpAffine(image, warp, (160, 120), flags=flags, borderMode=border)


def make_driver() -> Any:
    from rclpy.node import Node

    class Driver(Node):
        """Publishes pairs of images with their calibrations reliably."""

        def __init__(self) -> None:
            super().__init__("driver", use_global_arguments=False)
            self.images, self.infos = (
                [self.create_publisher(kind, f"{camera}/{topic}", IMAGE_QOS)
                 for camera in ("left", "right")]
                for kind, topic in ((Image, "image_raw"), (CameraInfo, "camera_info"))
            )  # fmt: skip

        def ready(self) -> bool:
            return all(p.get_subscription_count() > 0 for p in (*self.images, *self.infos))

        def send(self, stamp: int, left: Any, right: Any, cameras: Any) -> None:
            for number, (image, camera) in enumerate(zip((left, right), cameras, strict=True)):
                header = make_header(stamp + number * LATE, f"optical_{number}")
                self.infos[number].publish(make_camera_info(header, camera, 160, 120))
                self.images[number].publish(make_image(header, image))

    return Driver()


@pytest.fixture
def heard_pair(graph: Any, make_node: Any) -> Any:
    """Return a function that starts the node; it returns it, a driver and what will be heard."""

    def start() -> tuple[Any, Any, list[PointCloud]]:
        node = make_node(**STEREO, output__vins_format="fusion", features__max_edge=96)
        node.trigger_configure()
        node.trigger_activate()
        driver = graph.add(make_driver())
        heard: list[PointCloud] = []
        driver.create_subscription(PointCloud, TOPIC, heard.append, 10)
        graph.wait(lambda: driver.ready() and node.count_subscribers(TOPIC) == 1)
        return node, driver, heard

    return start


@pytest.mark.parametrize("layout", ["fusion", pytest.param("mono", marks=pytest.mark.slow)])
def test_a_recorded_pair_holds_every_rule_and_the_true_disparity(
    graph: Any,
    make_node: Any,
    estimator: Any,
    tmp_path: Path,
    frames: list[Any],
    right_camera: Camera,
    layout: str,
) -> None:
    node = make_node(**STEREO, output__vins_format=layout)
    node.trigger_configure()
    node.trigger_activate()
    driver = graph.add(make_driver())
    with BagWriter(tmp_path / "out.mcap") as bag:
        recorder = graph.add(Recorder(bag, {TOPIC: PointCloud, FEATURES: PointCloud2}))
        graph.wait(lambda: driver.ready() and recorder.connected())
        graph.wait(lambda: node.count_subscribers(TOPIC) == 1)
        for shift in (2, 0):  # the clock jumps back
            for frame in frames:
                cameras = (frame.camera, right_camera)
                stamp = frame.stamp + shift * 10**9
                driver.send(stamp, frame.image, shifted(frame.image), cameras)
        graph.wait(lambda: recorder.counts[TOPIC] == recorder.counts[FEATURES] == 8)
    assert node.count_publishers("/d2_frontend/right/feature_tracks") == 0
    reader = estimator(layout, frames[0].camera, right=right_camera)
    errors, features, number = [], 0, 0
    with AnyReader([tmp_path / "out.mcap"]) as recording:
        for connection, _, raw in recording.messages():
            message = recording.deserialize(raw, connection.msgtype)
            if connection.topic != TOPIC:
                assert message.header.frame_id == "optical_1"
                continue
            assert message.header.frame_id == "optical_0"
            if number == 4:
                reader.restart()
            number += 1
            reader.feature_callback(message)
            seen, (u, v, *_) = reader.parse(message)
            places = {key: np.array([u[row], v[row]]) for row, key in enumerate(seen)}
            features += sum(camera == 0 for _, camera in seen)
            errors += [
                np.linalg.norm(place - (places[track, 0] - [DISPARITY, 0]))
                for (track, camera), place in places.items()
                if camera == 1
            ]
    assert number == 8
    assert reader.longest == 4
    assert len(errors) == reader.pairs > 0.4 * features > 100
    assert np.median(errors) < 0.2
    assert np.percentile(errors, 95) < 1.0
    _, values = node._pipelines["left"].status.report()
    assert 0 < int(str(values["stereo_matches"])) <= len(errors)
    assert float(str(values["stereo_mean_ms"])) > 0


def test_the_topic_stereo_lists_the_left_features_in_the_right_image(
    graph: Any, make_node: Any, frames: list[Any], right_camera: Camera
) -> None:
    node = make_node(**STEREO)
    node.trigger_configure()
    node.trigger_activate()
    driver = graph.add(make_driver())
    heard: dict[str, list[PointCloud2]] = {"features": [], "stereo": []}
    for topic, messages in heard.items():
        driver.create_subscription(PointCloud2, f"/d2_frontend/left/{topic}", messages.append, 10)
    graph.wait(lambda: driver.ready() and node.count_subscribers("/d2_frontend/left/stereo") == 1)
    frame = frames[0]
    driver.send(frame.stamp, frame.image, shifted(frame.image), (frame.camera, right_camera))
    graph.wait(lambda: all(len(messages) == 1 for messages in heard.values()))
    assert node.count_publishers("/d2_frontend/right/stereo") == 0
    features, stereo = (
        np.frombuffer(heard[name][0].data.tobytes(), layout)
        for name, layout in (("features", records.FEATURES), ("stereo", records.STEREO))
    )
    message = heard["stereo"][0]
    assert message.header == heard["features"][0].header
    fields = [(f.name, f.offset, f.datatype, f.count) for f in message.fields]
    assert fields == records.point_fields(records.STEREO)
    left = features[stereo["index"]]
    assert len(stereo) > 0.4 * (features["track_id"] > 0).sum() > 20
    assert (left["track_id"] > 0).all()
    disparity = left["u"] - stereo["u"]
    assert abs(np.median(disparity) - DISPARITY) < 0.1
    assert np.percentile(abs(disparity - DISPARITY), 95) < 1.0
    bearings = right_camera.bearings(records.columns(stereo, "u", "v"))
    np.testing.assert_allclose(records.columns(stereo, "x", "y", "z"), bearings, atol=1e-5)


def test_without_the_right_calibration_the_left_camera_goes_on_alone(
    graph: Any,
    heard_pair: Any,
    estimator: Any,
    frames: list[Any],
    capfd: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(camera_pipeline, "CALIBRATION_PATIENCE", 0.3)
    _, driver, heard = heard_pair()
    for frame in frames[:2]:
        driver.send(frame.stamp, frame.image, shifted(frame.image), (frame.camera, None))
    graph.wait(lambda: len(heard) == 2)
    reader = estimator("fusion", frames[0].camera, cameras=2)
    for message in heard:
        reader.feature_callback(message)
    assert reader.pairs == 0
    assert len(heard[1].points) > 10
    assert capfd.readouterr().err.count("right: the driver is not calibrated") == 1


def test_a_right_camera_that_sees_nothing_costs_its_observations_only(
    graph: Any, heard_pair: Any, estimator: Any, frames: list[Any], right_camera: Camera
) -> None:
    _, driver, heard = heard_pair()
    cameras = (frames[0].camera, right_camera)
    for number, frame in enumerate(frames[:3]):
        right = np.zeros_like(frame.image) if number == 1 else shifted(frame.image)
        driver.send(frame.stamp, frame.image, right, cameras)
    graph.wait(lambda: len(heard) == 3)
    reader, pairs = estimator("fusion", frames[0].camera, right=right_camera), []
    for message in heard:
        before = reader.pairs
        reader.feature_callback(message)
        pairs.append(reader.pairs - before)
    assert pairs[1] == 0 < min(pairs[0], pairs[2])
    assert reader.longest == 3


def test_a_fault_in_the_stereo_matching_costs_the_right_observations_only(
    graph: Any,
    heard_pair: Any,
    frames: list[Any],
    right_camera: Camera,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from d2_ros.node import multi_camera

    def broken(*given: Any) -> Any:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(multi_camera, "find_right", broken)
    node, driver, heard = heard_pair()
    frame = frames[0]
    driver.send(frame.stamp, frame.image, shifted(frame.image), (frame.camera, right_camera))
    graph.wait(lambda: len(heard) == 1)
    assert not any(heard[0].channels[1].values)
    for camera in ("left", "right"):
        graph.wait(lambda c=camera: graph.status(node, c)["processed"] == 1)
