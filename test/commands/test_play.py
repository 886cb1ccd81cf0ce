from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import start_command

from d2_ros.node.messages import read_camera, read_image, stamp_of
from d2_ros.sources import messages as build
from d2_ros.sources.writer import BagWriter

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")

ROOT = Path(__file__).resolve().parents[2]
START = 5_000_000_000
STEP = 100_000_000


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return lists of what is heard on the topics of the camera ``left`` and on /clock."""
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.node import Node
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import CameraInfo, Image

    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + (os.getpid() + 50) % 100))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node = Node("listener", context=context, use_global_arguments=False)
    heard: dict[str, list[Any]] = {"image": [], "arrival": [], "info": [], "clock": []}

    def hear_image(message: Image) -> None:
        heard["arrival"].append(time.monotonic())
        heard["image"].append(message)

    node.create_subscription(Image, "/left/image_raw", hear_image, 100)
    node.create_subscription(CameraInfo, "/left/camera_info", heard["info"].append, 100)
    node.create_subscription(Clock, "/clock", heard["clock"].append, 1000)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin() -> None:
        with suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    yield heard
    executor.shutdown()
    thread.join()
    node.destroy_node()
    rclpy.try_shutdown(context=context)


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """Return a bag of six numbered images without calibration, a tenth of a second apart."""
    with BagWriter(tmp_path / "six.mcap") as writer:
        for number in range(6):
            image = np.full((24, 32, 3), number, np.uint8)
            message = build.image(START + number * STEP, "optical", image)
            writer.write("/camera/image_raw", message)
    return tmp_path / "six.mcap"


def test_frames_calibration_and_clock_arrive_at_the_recorded_pace(listener: Any, bag: Path) -> None:
    player = start_command(
        "play", str(bag), "--camera", "left", "--rate", "0.5", "--wait-for-subscribers"
    )
    _, errors = player.communicate(timeout=60)
    assert player.returncode == 0, errors
    stamps = [START + number * STEP for number in range(6)]
    assert [stamp_of(message.header) for message in listener["image"]] == stamps
    assert [stamp_of(message.header) for message in listener["info"]] == stamps
    for number, message in enumerate(listener["image"]):
        np.testing.assert_array_equal(read_image(message), np.full((24, 32, 3), number))
        assert message.header.frame_id == "optical"
    assert all(read_camera(message, False) is None for message in listener["info"])
    first, last = listener["arrival"][0], listener["arrival"][-1]
    assert 0.9 < last - first < 5  # five tenths of a second at half the speed, or a bit more
    clock = [message.clock.sec * 10**9 + message.clock.nanosec for message in listener["clock"]]
    assert clock == sorted(clock)
    assert clock[-1] == stamps[-1]
    assert len(set(clock) - set(stamps)) > 5  # it goes on between two frames


def test_looping_goes_back_in_time_and_ends_with_ctrl_c(listener: Any, bag: Path) -> None:
    player = start_command(
        "play", str(bag), "--camera", "left", "--rate", "10", "--wait-for-subscribers", "--loop"
    )
    deadline = time.monotonic() + 60
    while len(listener["image"]) < 14:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    player.send_signal(2)
    _, errors = player.communicate(timeout=30)
    assert player.returncode == 130
    assert "Traceback" not in errors
    stamps = [(stamp_of(message.header) - START) // STEP for message in listener["image"][:14]]
    assert stamps == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0, 1]


def test_a_first_stamp_of_zero_is_paced_by_the_time_of_recording(
    listener: Any, tmp_path: Path
) -> None:
    now = 1_700_000_000_000_000_000
    with BagWriter(tmp_path / "zero.mcap") as writer:
        for number in range(6):
            stamp = now + number * STEP if number else 0
            message = build.image(stamp, "optical", np.full((24, 32), number, np.uint8))
            data = bytes(build.TYPES.serialize_cdr(message, message.__msgtype__))
            recorded = now + number * STEP + 3_000_000
            writer.write_serialized("/camera/image_raw", message.__msgtype__, data, recorded)
    arguments = ("--camera", "left", "--rate", "0.5", "--wait-for-subscribers")
    player = start_command("play", str(tmp_path / "zero.mcap"), *arguments)
    _, errors = player.communicate(timeout=60)
    assert player.returncode == 0, errors
    stamps = [0, *(now + number * STEP for number in range(1, 6))]
    assert [stamp_of(message.header) for message in listener["image"]] == stamps
    assert 0.9 < listener["arrival"][-1] - listener["arrival"][0] < 5
    assert "no frame for" not in errors


def test_huge_gaps_are_cut_and_told(listener: Any, tmp_path: Path) -> None:
    """As where no time of recording is known either: converted from a folder, say."""
    now = 1_700_000_000_000_000_000
    with BagWriter(tmp_path / "gap.mcap") as writer:
        for stamp in (0, now, now + 3600 * 10**9):
            writer.write("/camera/image_raw", build.image(stamp, "c", np.zeros((24, 32), np.uint8)))
    arguments = ("--camera", "left", "--rate", "10", "--wait-for-subscribers")
    player = start_command("play", str(tmp_path / "gap.mcap"), *arguments)
    _, errors = player.communicate(timeout=60)
    assert player.returncode == 0, errors
    assert 1.8 < listener["arrival"][-1] - listener["arrival"][0] < 8
    assert "no frame for 1700000000 s of the recording, after 0 ns: cut to 1 s" in errors
    assert f"no frame for 3600 s of the recording, after {now} ns: cut to 1 s" in errors
    clock = [message.clock.sec * 10**9 + message.clock.nanosec for message in listener["clock"]]
    assert clock == sorted(clock)
    assert clock[-1] == now + 3600 * 10**9


def test_a_frame_that_cannot_be_used_is_left_out(listener: Any, tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bad.mcap") as writer:
        for number in range(3):
            image = build.image(START + number, "c", np.zeros((24, 32), np.uint8))
            image.encoding = "mono8" if number != 1 else "h265"
            writer.write("/camera/image_raw", image)
    player = start_command(
        "play", str(tmp_path / "bad.mcap"), "--camera", "left", "--wait-for-subscribers"
    )
    _, errors = player.communicate(timeout=60)
    assert player.returncode == 2
    assert "1 of 3 frames were left out: /camera/image_raw at 5000000001 ns" in errors
    assert [stamp_of(message.header) for message in listener["image"]] == [START, START + 2]


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf"])
def test_rate_must_be_positive(rate: str, bag: Path, d2_ros: Any) -> None:
    outcome = d2_ros("play", bag, "--rate", rate)
    assert outcome.code == 2
    assert "--rate" in outcome.err


def test_a_source_that_is_not_there_is_refused(d2_ros: Any) -> None:
    outcome = d2_ros("play", "/nowhere")
    assert outcome.code == 2
    assert "/nowhere does not exist" in outcome.err


@pytest.mark.parametrize("camera", ["0cam", "a b", "a//b", "é", "{x}", "a" * 300, "\udcff"])
def test_a_camera_that_cannot_name_topics_is_refused(camera: str, bag: Path, d2_ros: Any) -> None:
    outcome = d2_ros("play", bag, "--camera", camera)
    assert outcome.code == 2
    assert "--camera is" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not rclpy.ok()
