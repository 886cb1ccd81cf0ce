"""The real node over DDS, recorded to a bag, read by the estimators' rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import CameraInfo, Image, PointCloud

from d2_ros.node.messages import make_camera_info, make_header, make_image
from d2_ros.node.recorder import Recorder
from d2_ros.node.source_publisher import IMAGE_QOS
from d2_ros.sources import open_source
from d2_ros.sources.writer import BagWriter

TOPIC = "/d2_frontend/camera/feature_tracks"


@pytest.mark.parametrize("layout", ["fusion", "mono"])
def test_a_recording_with_a_clock_jump_holds_every_rule(
    graph: Any, make_node: Any, estimator: Any, tmp_path: Path, layout: str
) -> None:
    node = make_node(input__qos="replay", output__vins_format=layout, threads=1)
    node.trigger_configure()
    node.trigger_activate()
    driver = graph.add(make_driver())
    with BagWriter(tmp_path / "out.mcap") as bag:
        recorder = graph.add(Recorder(bag, {TOPIC: PointCloud}))
        graph.wait(lambda: driver.ready() and recorder.connected())
        graph.wait(lambda: node.count_subscribers(TOPIC) == 1)
        frames = list(open_source("synthetic:size=160x120,frames=4,seed=0"))
        for shift in (2, 0):
            for frame in frames:
                driver.send(frame, frame.stamp + shift * 10**9)
        graph.wait(lambda: recorder.counts[TOPIC] == 8)
    reader = estimator(layout, frames[0].camera)
    with AnyReader([tmp_path / "out.mcap"]) as recording:
        for number, (connection, _, raw) in enumerate(recording.messages()):
            message = recording.deserialize(raw, connection.msgtype)
            assert message.header.frame_id == "optical"
            if number == 4:
                reader.restart()
            reader.feature_callback(message)
    assert reader.longest == 4


def test_without_calibration_nothing_is_sent_and_that_is_said_once(
    graph: Any, make_node: Any, fake: Any, caplog: Any, capfd: Any
) -> None:
    node = make_node(input__qos="replay", output__vins_format="fusion")
    node.trigger_configure()
    node.trigger_activate()
    driver = graph.add(make_driver())
    heard: list[PointCloud] = []
    driver.create_subscription(PointCloud, TOPIC, heard.append, 10)
    graph.wait(driver.ready)
    driver.infos.publish(CameraInfo(width=64, height=48))
    for number in range(3):
        driver.images.publish(
            make_image(make_header(10**9 + number, "optical"), np.zeros((48, 64), np.uint8))
        )
    graph.wait(lambda: len(fake[0].stamps) == 3)
    assert heard == []
    assert capfd.readouterr().err.count("nothing of it in feature_tracks") == 1


def make_driver() -> Any:
    from rclpy.node import Node

    class Driver(Node):
        """Publishes calibrated frames reliably."""

        def __init__(self) -> None:
            super().__init__("driver", use_global_arguments=False)
            self.images = self.create_publisher(Image, "camera/image_raw", IMAGE_QOS)
            self.infos = self.create_publisher(CameraInfo, "camera/camera_info", IMAGE_QOS)

        def ready(self) -> bool:
            publishers = (self.images, self.infos)
            return all(publisher.get_subscription_count() > 0 for publisher in publishers)

        def send(self, frame: Any, stamp: int) -> None:
            header = make_header(stamp, "optical")
            height, width = frame.image.shape[:2]
            self.infos.publish(make_camera_info(header, frame.camera, width, height))
            self.images.publish(make_image(header, frame.image))

    return Driver()
