"""The node as a process of its own: killed, ended, started twice, in a namespace."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import starting_nodes
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import PointCloud2

from d2_ros.node.recorder import Recorder
from d2_ros.sources.messages import stamp_of
from d2_ros.sources.writer import BagWriter

ROOT = Path(__file__).resolve().parents[2]
SECOND = 1_000_000_000
FEATURES = "/d2_frontend/camera/features"
TEXTURE = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8).repeat(8, 0).repeat(8, 1)


@pytest.fixture
def spawn() -> Iterator[Any]:
    """Return a function that starts the executable and waits until it says that it is active."""
    given = ("-p", "autostart:=true", "-p", "input.qos:=replay", "-p", "threads:=1")
    with starting_nodes("d2_ros.node.frontend_node") as start:
        yield partial(start, *given, until="active, replay")


def listeners(driver: Any) -> set[tuple[str, tuple[int, ...]]]:
    """Return who subscribes to the images: type and identity."""
    infos = driver.get_subscriptions_info_by_topic("/camera/image_raw")
    return {(info.topic_type.split("/")[-1], tuple(info.endpoint_gid)) for info in infos}


def test_a_node_that_is_killed_loses_no_recorded_message_and_can_be_started_again(
    graph: Any, make_driver: Any, spawn: Any, tmp_path: Path
) -> None:
    driver = make_driver()
    with BagWriter(tmp_path / "out.mcap") as bag:
        recorder = graph.add(Recorder(bag, {FEATURES: PointCloud2}))

        def play(seconds: range) -> None:
            before = recorder.counts[FEATURES]
            for second in seconds:
                driver.send_image(second * SECOND, TEXTURE)
            graph.wait(lambda: recorder.counts[FEATURES] == before + len(seconds))

        first = spawn()
        graph.wait(lambda: driver.connected() and recorder.connected())
        play(range(1, 4))
        ghosts = listeners(driver)  # DDS takes 20 s to notice that they are gone
        first.kill()
        first.wait()
        second = spawn()
        graph.wait(lambda: {kind for kind, _ in listeners(driver) - ghosts} == {"Image"})
        time.sleep(1.0)  # what one side has discovered the other may not have yet
        play(range(4, 7))
        second.terminate()
        assert second.wait(10) == 0
    with AnyReader([tmp_path / "out.mcap"]) as reader:
        stamps = [stamp_of(reader.deserialize(r, c.msgtype)) for c, _, r in reader.messages()]
    assert [stamp // SECOND for stamp in stamps] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_two_nodes_side_by_side_each_with_names_of_its_own(
    graph: Any, make_driver: Any, spawn: Any
) -> None:
    spawn("-r", "__ns:=/left_arm")
    spawn("-r", "__node:=eyes", "-r", "camera/image_raw:=/left_arm/camera/image_raw",
          "-r", "camera/camera_info:=/left_arm/camera/camera_info")  # fmt: skip
    driver = make_driver("/left_arm/camera")
    first = driver.listen(PointCloud2, "/left_arm/d2_frontend/camera/features")
    second = driver.listen(PointCloud2, "/eyes/camera/features")
    graph.wait(lambda: driver.images.get_subscription_count() == 2)
    graph.wait(lambda: all(driver.count_publishers(topic) for topic in driver.heard))
    driver.send_image(SECOND, TEXTURE)
    graph.wait(lambda: first and second)
    assert first[0].data == second[0].data
    names = {f"{space}/{name}" for name, space in driver.get_node_names_and_namespaces()}
    assert {"/left_arm/d2_frontend", "//eyes"} <= names


@pytest.mark.slow
def test_sigterm_ends_the_node_in_the_middle_of_its_work(
    graph: Any, make_driver: Any, spawn: Any
) -> None:
    process = spawn()
    driver = make_driver()
    graph.wait(driver.connected)
    for stamp in range(1, 30):
        driver.send_image(stamp * SECOND, TEXTURE)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in rest
    assert "terminate called" not in rest
