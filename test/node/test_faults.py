"""Faults of the input: each goes to the real node over DDS, which counts it and goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from d2_ros.node import camera_pipeline
from d2_ros.node.messages import byte_array, make_camera_info, make_header, make_image

SECOND = 1_000_000_000
NOISE = np.random.default_rng(0).integers(0, 256, (48, 64), np.uint8)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_pipeline, "CALIBRATION_PATIENCE", 0.3)


@pytest.fixture
def start(graph: Any, make_node: Any, make_driver: Any, fake: Any) -> Callable[..., Any]:
    """Return a function that makes an active node and a connected driver."""

    def begin(**parameters: Any) -> Any:
        node = make_node(**{"input__qos": "replay", **parameters})
        node.trigger_configure()
        node.trigger_activate()
        driver = make_driver()
        if not parameters.get("input__compressed"):
            graph.wait(driver.connected)
        return node, driver

    return begin


def image(stamp: int, **changes: Any) -> Image:
    message = make_image(make_header(stamp, "optical"), NOISE)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"encoding": "tiger32"}, id="unknown encoding"),
        pytest.param({"encoding": "x" * 1_000_000}, id="encoding of a megabyte"),
        pytest.param({"encoding": ""}, id="no encoding"),
        pytest.param({"height": 10**9}, id="a billion rows"),
        pytest.param({"height": 2**32 - 1, "width": 2**32 - 1, "step": 2**32 - 1}, id="exabytes"),
        pytest.param({"data": byte_array(NOISE[:40])}, id="truncated data"),
        pytest.param({"data": byte_array(NOISE[:0])}, id="no data"),
        pytest.param({"step": 63}, id="step shorter than a row"),
        pytest.param({"height": 0, "width": 0, "step": 0}, id="zero size"),
        pytest.param({"encoding": "yuv422", "width": 31, "step": 64}, id="odd width of yuv422"),
    ],
)
def test_a_bad_image_is_refused(graph: Any, start: Any, fake: Any, changes: Any) -> None:
    node, driver = start()
    driver.images.publish(image(SECOND, **changes))
    driver.images.publish(image(2 * SECOND))
    graph.wait(lambda: graph.status(node)["processed"] == 1)
    assert graph.status(node)["bad_image"] == graph.status(node)["dropped"] == 1
    assert fake[0].stamps == [2 * SECOND]
    _, values = node._pipelines["camera"].status.report()
    assert 10 < len(str(values["last_error"])) < 600


def bomb() -> bytes:
    content = bytearray(cv2.imencode(".png", NOISE)[1].tobytes())
    content[16:24] = (2**31 - 1).to_bytes(4, "big") * 2
    return bytes(content)


def damaged(ending: str) -> bytes:
    content = bytearray(cv2.imencode(ending, NOISE)[1].tobytes())
    content[60 : len(content) - 20] = bytes(len(content) - 80)
    return bytes(content)


@pytest.mark.parametrize(
    ("format", "content"),
    [
        pytest.param("jpeg", cv2.imencode(".jpg", NOISE)[1].tobytes()[:-200], id="JPEG cut short"),
        pytest.param("png", cv2.imencode(".png", NOISE)[1].tobytes()[:-200], id="PNG cut short"),
        pytest.param("png", bomb(), id="decompression bomb"),
        pytest.param("png", damaged(".png"), id="PNG damaged within"),
        pytest.param("h264", b"\0\0\0\1rubbish", id="neither JPEG nor PNG"),
        pytest.param("jpeg", b"", id="empty"),
    ],
)
def test_a_bad_compressed_image_is_refused(
    graph: Any, start: Any, fake: Any, format: str, content: bytes
) -> None:
    node, driver = start(input__compressed=True)
    publisher = driver.create_publisher(CompressedImage, "camera/image_raw/compressed", 10)
    graph.wait(lambda: publisher.get_subscription_count() == 1)
    good = cv2.imencode(".png", NOISE.astype(np.uint16) * 200)[1].tobytes()
    for stamp, (kind, data) in enumerate([(format, content), ("png", good)], 1):
        header = make_header(stamp * SECOND, "optical")
        bytes_of = byte_array(np.frombuffer(data, np.uint8))
        publisher.publish(CompressedImage(header=header, format=kind, data=bytes_of))
    graph.wait(lambda: graph.status(node)["processed"] == 1)
    assert graph.status(node)["bad_image"] == 1
    np.testing.assert_array_equal(fake[0].images[0], NOISE.astype(np.uint16) * 200)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"k": [float("nan")] * 9}, id="NaN"),
        pytest.param({"width": 128, "height": 96}, id="of another size"),
        pytest.param({"k": [1e308, 0, 1, 0, 1e308, 1, 0, 0, 1]}, id="absurd focal length"),
        pytest.param({"distortion_model": "m" * 1_000_000}, id="model of a megabyte"),
        pytest.param({"d": [0.0] * 1_000_000}, id="a million coefficients"),
        pytest.param({"binning_x": 2**32 - 1, "binning_y": 2**32 - 1}, id="absurd binning"),
    ],
)
def test_a_bad_calibration_is_refused_until_a_good_one_comes(
    graph: Any, start: Any, fake: Any, changes: Any
) -> None:
    node, driver = start()
    info = make_camera_info(make_header(0, ""), driver.calibration, 64, 48)
    for name, value in changes.items():
        setattr(info, name, value)
    driver.infos.publish(info)
    driver.send(SECOND)
    graph.wait(lambda: graph.status(node)["bad_calibration"] == 1)
    before = node._pipelines["camera"].calibration._message
    driver.send_info()
    graph.wait(lambda: node._pipelines["camera"].calibration._message is not before)
    driver.send(2 * SECOND)
    graph.wait(lambda: graph.status(node)["processed"] == 1)
    assert fake[0].cameras[0].width == 64


def test_calibration_that_changes_drops_the_window(graph: Any, start: Any, fake: Any) -> None:
    node, driver = start()
    info = make_camera_info(make_header(0, ""), driver.calibration, 64, 48)
    for number, focal in enumerate((50.0, 50.0, 60.0), 1):
        info.k[0] = focal
        driver.infos.publish(info)
        calibration = node._pipelines["camera"].calibration
        graph.wait(lambda c=calibration, f=focal: c._message is not None and c._message.k[0] == f)
        driver.send(number * SECOND)
        graph.wait(lambda n=number: graph.status(node)["processed"] == n)
    assert graph.status(node)["resets"] == fake[0].resets == 1


def test_images_of_another_size_drop_the_window_and_another_encoding_does_not(
    graph: Any, start: Any, fake: Any
) -> None:
    node, driver = start()
    driver.infos.publish(CameraInfo(width=64, height=48))  # not calibrated: any size goes
    for number, shape in enumerate([(48, 64), (48, 64, 3), (96, 128), (96, 128, 3)], 1):
        driver.send(number * SECOND, shape)
    graph.wait(lambda: graph.status(node)["processed"] == 4)
    assert graph.status(node)["resets"] == fake[0].resets == 1


@pytest.mark.parametrize(
    ("seconds", "kept"),
    [
        pytest.param((5, 5, 6), 2, id="duplicated"),
        pytest.param((5, 4.5, 6), 2, id="unordered"),
        pytest.param((0, 0, 0), 1, id="all zero"),
    ],
)
def test_stamps_that_do_not_increase_are_skipped(
    graph: Any, start: Any, seconds: Any, kept: int
) -> None:
    node, driver = start()
    for second in seconds:
        driver.send(int(second * SECOND))
    graph.wait(lambda: graph.status(node)["received"] == 3 and not graph.status(node)["waiting"])
    assert graph.status(node)["processed"] == kept
    assert graph.status(node)["out_of_order"] == 3 - kept


def test_frames_older_than_max_age_are_dropped(graph: Any, start: Any, fake: Any) -> None:
    node, driver = start(input__max_age=5.0)
    now = node.get_clock().now().nanoseconds
    for stamp in (now - 60 * SECOND, now, now + 60 * SECOND):
        driver.send(stamp)
    graph.wait(lambda: graph.status(node)["processed"] == 2)
    assert graph.status(node)["too_old"] == 1
    assert node.set_parameters([Parameter("input.max_age", value=0.0)])[0].successful
    driver.send(now + 61 * SECOND)
    graph.wait(lambda: graph.status(node)["processed"] == 3)


def test_sim_time_without_a_clock_stops_nothing(graph: Any, start: Any) -> None:
    node, driver = start(use_sim_time=True, input__max_age=1.0)
    said = driver.listen(DiagnosticArray, "/diagnostics")
    driver.send(SECOND)
    graph.wait(lambda: graph.status(node)["processed"] == 1 and said)
    clock = driver.create_publisher(Clock, "/clock", 10)
    graph.wait(lambda: clock.get_subscription_count() == 1)
    clock.publish(Clock(clock=make_header(10 * SECOND, "").stamp))
    graph.wait(lambda: node.get_clock().now().nanoseconds == 10 * SECOND)
    driver.send(2 * SECOND)
    driver.send(9_500_000_000)
    graph.wait(lambda: graph.status(node)["processed"] == 2)
    assert graph.status(node)["too_old"] == 1


def test_a_camera_that_restarts_is_heard_again(
    graph: Any, start: Any, make_driver: Any, fake: Any
) -> None:
    node, driver = start()
    driver.send(SECOND)
    graph.wait(lambda: graph.status(node)["processed"] == 1)
    graph.executor.remove_node(driver)
    driver.destroy_node()
    graph.nodes.remove(driver)
    graph.wait(lambda: node.count_publishers("camera/image_raw") == 0)
    again = make_driver()
    graph.wait(again.connected)
    again.send_info()
    again.send(2 * SECOND)
    graph.wait(lambda: graph.status(node)["processed"] == 2)
    assert graph.status(node)["dropped"] == 0


def test_a_reader_that_does_not_read_holds_nobody_up(graph: Any, start: Any) -> None:
    node, driver = start()
    # Never spun: its queue is full after ten messages.
    from rclpy.node import Node

    deaf = Node("deaf", use_global_arguments=False)
    deaf.create_subscription(
        PointCloud2, "/d2_frontend/camera/features", print, QoSProfile(depth=10)
    )
    features = driver.listen(PointCloud2, "features")
    graph.wait(lambda: node.count_subscribers("/d2_frontend/camera/features") == 2)
    for number in range(60):
        driver.send(SECOND + number)
        graph.wait(lambda n=number: graph.status(node)["processed"] == n + 1)
    graph.wait(lambda: len(features) == 60)
    deaf.destroy_node()


def test_diagnostics_tell_how_the_node_does(graph: Any, start: Any) -> None:
    _, driver = start()
    said = driver.listen(DiagnosticArray, "/diagnostics")
    driver.send_info()
    for number in range(5):
        driver.send(SECOND + number)

    def values(entry: int) -> dict[str, str]:
        return {pair.key: pair.value for pair in said[-1].status[entry].values}

    graph.wait(lambda: said and len(said[-1].status) == 2 and values(1)["processed"] == "5")
    camera, node_values = values(1), values(0)
    assert float(camera["rate_in_hz"]) >= float(camera["rate_out_hz"]) > 0
    assert camera["received"] == "5"
    assert camera["dropped"] == camera["waiting"] == "0"
    assert int(camera["tracks"]) <= int(camera["keypoints"]) == 8
    for key in ("track_length_median", "inlier_share", "refinement_move_median_px",
                "latency_p50_ms", "latency_p99_ms", "queueing_p99_ms", "age_at_publication_p50_ms",
                "total_mean_ms", "network_mean_ms"):  # fmt: skip
        assert float(camera[key]) >= 0, key
    assert float(camera["latency_p50_ms"]) >= float(camera["queueing_p50_ms"])
    assert node_values["device_memory_mb"] == "0"
    assert int(node_values["process_memory_mb"]) > 50
