from __future__ import annotations

import signal
import threading
import time
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
from processes import starting_nodes
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from d2_ros.errors import D2RosError
from d2_ros.node import camera_pipeline
from d2_ros.node.messages import make_camera_info, make_header, make_image

SECOND = 1_000_000_000


def activate(node: Any) -> None:
    node.trigger_configure()
    node.trigger_activate()


def status(node: Any, camera: str = "camera") -> dict[str, int]:
    return node._pipelines[camera].status.counts()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_pipeline, "CALIBRATION_PATIENCE", 0.3)


def test_lifecycle_through_its_services(graph: Any, make_node: Any, fake: Any) -> None:
    node = make_node()
    client_node = graph.add(Node("manager", use_global_arguments=False))
    change = client_node.create_client(ChangeState, "/d2_frontend/change_state")
    get = client_node.create_client(GetState, "/d2_frontend/get_state")
    seen = []
    for label in ("configure", "activate", "deactivate", "activate", "deactivate", "cleanup",
                  "configure", "activate", "shutdown"):  # fmt: skip
        request = ChangeState.Request()
        request.transition.label = label
        assert graph.call(change, request).success, label
        seen.append(graph.call(get, GetState.Request()).current_state.label)
    assert seen == ["inactive", "active", "inactive", "active", "inactive", "unconfigured",
                    "inactive", "active", "finalized"]  # fmt: skip
    assert len(fake) == 2
    assert node._pipelines == {}


def test_replay_mode_processes_every_frame_in_order(
    graph: Any, make_driver: Any, make_node: Any, fake: Any
) -> None:
    activate(make_node(input__qos="replay"))
    driver = make_driver()
    features = driver.listen(PointCloud2, "features")
    graph.wait(
        lambda: driver.connected() and driver.count_publishers("/d2_frontend/camera/features")
    )
    fake[0].gate.clear()
    driver.send_info()
    stamps = [10 * SECOND + n for n in range(40)]
    for stamp in stamps:
        driver.send(stamp)
    time.sleep(0.3)
    fake[0].gate.set()
    graph.wait(lambda: len(features) == len(stamps))
    assert fake[0].stamps == stamps
    assert [m.header.stamp.nanosec for m in features] == list(range(40))
    assert all(camera is not None for camera in fake[0].cameras)


def test_executor_is_free_while_replay_waits(
    graph: Any, make_driver: Any, make_node: Any, fake: Any
) -> None:
    node = make_node(input__qos="replay")
    activate(node)
    driver = make_driver()
    reset = driver.create_client(Trigger, "/d2_frontend/reset")
    graph.wait(driver.connected)
    fake[0].gate.clear()
    driver.send_info()
    for n in range(10):
        driver.send(SECOND + n)
    graph.wait(lambda: status(node)["received"] == 2)  # one at work, one in the slot
    used = time.process_time()
    assert graph.call(reset, Trigger.Request()).success
    time.sleep(0.5)
    assert time.process_time() - used < 0.4, "the executor polls instead of waiting"
    assert status(node)["received"] == 2
    fake[0].gate.set()
    graph.wait(lambda: len(fake[0].stamps) == 10)
    assert fake[0].resets == 1
    assert status(node)["overwritten"] == 0


def test_live_mode_keeps_the_newest_frame(
    graph: Any, make_driver: Any, make_node: Any, fake: Any
) -> None:
    node = make_node()
    activate(node)
    driver = make_driver()
    graph.wait(driver.connected)
    fake[0].gate.clear()
    driver.send_info()
    sent = 0
    while status(node)["overwritten"] < 3:
        sent += 1
        driver.send(SECOND + sent)
        time.sleep(0.02)
        assert sent < 500
    fake[0].gate.set()
    graph.wait(lambda: len(fake[0].stamps) == 2)
    assert fake[0].stamps[1] == SECOND + sent


def test_stamps_back_by_little_are_skipped_and_by_much_reset(
    graph: Any, make_driver: Any, make_node: Any, fake: Any
) -> None:
    node = make_node(input__qos="replay")
    activate(node)
    driver = make_driver()
    graph.wait(driver.connected)
    driver.send_info()
    for seconds in (100, 101, 100.5, 101, 102, 3, 4):
        driver.send(int(seconds * SECOND))
    graph.wait(lambda: status(node)["received"] == 7 and len(fake[0].stamps) == 5)
    assert [stamp // SECOND for stamp in fake[0].stamps] == [100, 101, 102, 3, 4]
    assert status(node)["out_of_order"] == 2
    assert fake[0].resets == status(node)["resets"] == 1


@pytest.mark.parametrize("latched", [False, True])
def test_a_camera_info_sent_once_is_kept(
    graph: Any, make_driver: Any, make_node: Any, fake: Any, latched: bool
) -> None:
    driver = make_driver(latched=latched)
    node = make_node(input__qos="replay")
    if latched:
        driver.send_info()
    activate(node)
    graph.wait(driver.connected)
    if not latched:
        driver.send_info()
    driver.send(SECOND)
    driver.send(2 * SECOND)
    graph.wait(lambda: len(fake[0].stamps) == 2)
    assert [camera.width for camera in fake[0].cameras] == [64, 64]


def test_bad_input_is_counted_and_the_node_lives_on(
    graph: Any, make_driver: Any, make_node: Any, fake: Any
) -> None:
    node = make_node(input__qos="replay")
    activate(node)
    driver = make_driver()
    graph.wait(driver.connected)
    driver.send_info()
    driver.send(1 * SECOND)
    odd = make_image(make_header(2 * SECOND, ""), np.zeros((48, 64), np.uint8))
    odd.encoding = "tiger32"
    driver.images.publish(odd)
    short = make_image(make_header(3 * SECOND, ""), np.zeros((48, 64), np.uint8))
    short.height = 49
    driver.images.publish(short)
    driver.send(4 * SECOND, shape=(24, 32))
    graph.wait(lambda: status(node)["received"] == 4 and status(node)["bad_calibration"] == 1)
    broken = make_camera_info(Header(), driver.calibration, 64, 48)
    broken.k[0] = float("nan")
    driver.infos.publish(broken)
    graph.wait(lambda: np.isnan(node._pipelines["camera"].calibration._message.k[0]))
    driver.send(5 * SECOND)
    graph.wait(lambda: status(node)["bad_calibration"] == 2)
    driver.send_info()
    graph.wait(lambda: not np.isnan(node._pipelines["camera"].calibration._message.k[0]))
    driver.send(6 * SECOND, shape=(48, 64, 3))
    graph.wait(lambda: len(fake[0].stamps) == 2)
    assert status(node)["bad_image"] == 2
    assert fake[0].images[1].shape == (48, 64, 3)


def test_uncalibrated_driver_gives_pixels_only(
    graph: Any, make_driver: Any, make_node: Any, fake: Any
) -> None:
    activate(make_node(input__qos="replay"))
    driver = make_driver()
    graph.wait(driver.connected)
    driver.infos.publish(CameraInfo(width=64, height=48))
    driver.send(SECOND)
    graph.wait(lambda: len(fake[0].stamps) == 1)
    assert fake[0].cameras == [None]


def test_an_error_or_a_bug_in_the_front_end_does_not_stop_the_node(
    graph: Any, make_driver: Any, make_node: Any, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(input__qos="replay")
    activate(node)
    real = fake[0].process

    def process(image: Any, stamp: int, camera: Any = None, batched: Any = None) -> Any:
        if stamp == SECOND:
            raise D2RosError("no")
        if stamp == 2 * SECOND:
            raise ZeroDivisionError("bug")
        return real(image, stamp, camera)

    monkeypatch.setattr(fake[0], "process", process)
    driver = make_driver()
    graph.wait(driver.connected)
    for n in (1, 2, 3):
        driver.send(n * SECOND)
    graph.wait(lambda: fake[0].stamps == [3 * SECOND])
    assert (status(node)["refused"], status(node)["failed"]) == (1, 1)


def test_overlay_is_drawn_only_for_subscribers(
    graph: Any, make_driver: Any, make_node: Any, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from d2_ros.node import outputs

    drawn = []
    real = outputs.draw_overlay
    monkeypatch.setattr(outputs, "draw_overlay", lambda *given: drawn.append(1) or real(*given))
    node = make_node(input__qos="replay")
    activate(node)
    driver = make_driver()
    graph.wait(driver.connected)
    driver.send_info()
    driver.send(SECOND)
    graph.wait(lambda: status(node)["processed"] == 1)
    assert drawn == []
    overlays = driver.listen(Image, "overlay")
    jpegs = driver.listen(CompressedImage, "overlay/compressed")
    graph.wait(lambda: node._pipelines["camera"].outputs._overlay.get_subscription_count() == 1)
    graph.wait(
        lambda: node._pipelines["camera"].outputs._overlay_jpeg.get_subscription_count() == 1
    )
    driver.send(2 * SECOND)
    graph.wait(lambda: overlays and jpegs)
    assert drawn == [1]
    assert overlays[0].encoding == "bgr8"
    assert overlays[0].header.frame_id == jpegs[0].header.frame_id == "left_optical"
    assert overlays[0].header.stamp == jpegs[0].header.stamp == Time(sec=2)


def test_several_cameras_have_state_and_topics_of_their_own(
    graph: Any, make_driver: Any, make_node: Any, fake: Any
) -> None:
    activate(make_node(input__qos="replay", cameras=["left", "right"]))
    drivers = [make_driver("left"), make_driver("right")]
    features = [driver.listen(PointCloud2, "features") for driver in drivers]
    graph.wait(lambda: all(driver.connected() for driver in drivers))
    for number, driver in enumerate(drivers):
        driver.send_info()
        for n in range(5):
            driver.send(SECOND + n, value=100 * number)
    graph.wait(lambda: all(len(front.stamps) == 5 for front in fake))
    graph.wait(lambda: all(len(messages) == 5 for messages in features))
    assert [front.images[0][0, 0] for front in fake] == [0, 100]


def test_live_parameters_apply_from_the_next_frame_on(
    graph: Any, make_driver: Any, make_node: Any, fake: Any
) -> None:
    node = make_node(input__qos="replay")
    activate(node)
    driver = make_driver()
    graph.wait(driver.connected)
    driver.send(SECOND)
    graph.wait(lambda: len(fake[0].stamps) == 1)
    changed = node.set_parameters([Parameter("features.max_keypoints", value=77)])
    assert changed[0].successful
    driver.send(2 * SECOND)
    graph.wait(lambda: len(fake[0].stamps) == 2)
    assert [config.features.max_keypoints for config in fake[0].configs] == [1000, 77]


def test_diagnostics_and_reset_speak_in_every_state(
    graph: Any, make_driver: Any, make_node: Any, fake: Any
) -> None:
    node = make_node(input__qos="replay", weights="off_the_shelf")
    driver = make_driver()
    reset = driver.create_client(Trigger, "/d2_frontend/reset")
    said = driver.listen(DiagnosticArray, "/diagnostics")

    def value(message: DiagnosticArray, entry: int, key: str) -> str:
        return {pair.key: pair.value for pair in message.status[entry].values}[key]

    assert not graph.call(reset, Trigger.Request()).success
    graph.wait(lambda: said and value(said[-1], 0, "state") == "unconfigured")
    activate(node)
    graph.wait(lambda: value(said[-1], 0, "state") == "active")
    assert value(said[-1], 0, "device") == "cpu"
    graph.wait(driver.connected)
    bad = make_image(make_header(SECOND, ""), np.zeros((48, 64), np.uint8))
    bad.encoding = "tiger32"
    driver.images.publish(bad)
    driver.send(2 * SECOND)
    graph.wait(lambda: len(said[-1].status) == 2 and value(said[-1], 1, "processed") == "1")
    assert value(said[-1], 1, "bad_image") == "1"
    assert "tiger32" in value(said[-1], 1, "last_error")
    assert float(value(said[-1], 1, "network_mean_ms")) == 1.0
    warned = [
        message for message in said if len(message.status) == 2 and message.status[1].level != b"\0"
    ]
    assert "1 bad_image" in warned[0].status[1].message


def test_failing_to_configure_leaves_the_node_alive_and_says_why(
    graph: Any, make_driver: Any, make_node: Any, fake: Any
) -> None:
    node = make_node(autostart=True, weights="nowhere.pth")
    driver = make_driver()
    said = driver.listen(DiagnosticArray, "/diagnostics")
    graph.wait(lambda: said and said[-1].status[0].level == b"\x02")
    assert said[-1].status[0].message == "weights nowhere.pth not found"
    assert node._pipelines == {}
    get = driver.create_client(GetState, "/d2_frontend/get_state")
    assert graph.call(get, GetState.Request()).current_state.label == "unconfigured"


def test_autostart_activates(graph: Any, make_driver: Any, make_node: Any, fake: Any) -> None:
    make_node(autostart=True)
    driver = make_driver()
    graph.wait(driver.connected)


def test_quality_of_service_can_be_overridden(graph: Any, make_driver: Any, fake: Any) -> None:
    from d2_ros.node.frontend_node import FrontEndNode

    overrides = [
        Parameter("qos_overrides./camera/image_raw.subscription.reliability", value="reliable")
    ]
    node = graph.add(FrontEndNode(parameter_overrides=overrides, use_global_arguments=False))
    activate(node)
    driver = make_driver()
    graph.wait(driver.connected)
    info = driver.get_subscriptions_info_by_topic("/camera/image_raw")[0]
    assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE


def test_the_executable_ends_cleanly_however_often_it_is_interrupted() -> None:
    with starting_nodes("d2_ros.node.frontend_node") as start:
        process = start("-p", "autostart:=true")
        watchdog = threading.Timer(90, process.kill)
        watchdog.start()
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "active, live: /camera/camera_info, /camera/image_raw" in line:
                break
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        _, rest = process.communicate(timeout=30)
        watchdog.cancel()
    assert process.returncode == 0, rest
    assert "Traceback" not in "".join(lines) + rest
    assert sum("off_the_shelf weights on" in line for line in lines) == 1
