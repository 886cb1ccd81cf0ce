"""Synchronised cameras: one batch per group, every image accounted for, over DDS."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CameraInfo, PointCloud2
from std_srvs.srv import Trigger

from d2_ros.node import camera_pipeline
from d2_ros.node import inputs as inputs_module
from d2_ros.node.messages import make_header, make_image

SECOND = 1_000_000_000
MS = 1_000_000
PAIR = ("left", "right")
FULL = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
LOST = RuntimeError("CUDA error: unspecified launch failure")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_pipeline, "CALIBRATION_PATIENCE", 0.0)


@pytest.fixture
def start(graph: Any, make_node: Any, make_driver: Any, fake: Any) -> Callable[..., Any]:
    """Return a function that makes an active node and a driver per camera."""

    def begin(cameras: tuple[str, ...] = PAIR, **parameters: Any) -> Any:
        given = {"input__qos": "replay", "input__sync_tolerance": 0.01, "cameras": list(cameras)}
        node = make_node(**{**given, **parameters})
        node.trigger_configure()
        node.trigger_activate()
        drivers = [make_driver(camera) for camera in cameras]
        graph.wait(lambda: all(driver.connected() for driver in drivers))
        return node, drivers

    return begin


def settled(graph: Any, node: Any, received: int, *cameras: str) -> None:
    """Wait until the cameras have received so much and nothing of it waits."""
    counts = [lambda c=camera: graph.status(node, c) for camera in cameras or PAIR]
    graph.wait(lambda: all(c()["received"] == received and not c()["waiting"] for c in counts))


def test_every_group_is_processed_in_order_in_one_batch(graph: Any, start: Any, fake: Any) -> None:
    node, (left, right) = start()
    features = [driver.listen(PointCloud2, "features") for driver in (left, right)]
    fake[0].gate.clear()
    for number in range(20):  # the right camera's stamps are 4 ms late
        left.send(number * SECOND, value=10)
        right.send(number * SECOND + 4 * MS, value=20)
    time.sleep(0.2)
    fake[0].gate.set()
    settled(graph, node, 20)
    assert fake[0].stamps == [number * SECOND for number in range(20)]
    assert fake[1].stamps == [number * SECOND + 4 * MS for number in range(20)]
    assert node._device._extractor.batches == [2] * 20
    for front, value in zip(fake, (10, 20), strict=True):
        assert {batched.response for batched in front.batched} == {f"response to {value}"}
    for camera in PAIR:
        assert graph.status(node, camera)["processed"] == 20
    graph.wait(lambda: all(len(messages) == 20 for messages in features))


def test_without_a_tolerance_each_camera_is_on_its_own(graph: Any, start: Any, fake: Any) -> None:
    node, (left, _) = start(input__sync_tolerance=0.0)
    left.send(SECOND)
    settled(graph, node, 1, "left")
    assert fake[0].batched == [None]
    assert not hasattr(node._device._extractor, "batches")


def test_an_image_without_a_partner_is_counted_as_unmatched(
    graph: Any, start: Any, fake: Any
) -> None:
    node, (left, right) = start()
    said = left.listen(DiagnosticArray, "/diagnostics")
    for number in (1, 2, 3):
        left.send(number * SECOND)
        if number != 2:
            right.send(number * SECOND)
    settled(graph, node, 3, "left")
    settled(graph, node, 2, "right")
    assert fake[0].stamps == fake[1].stamps == [SECOND, 3 * SECOND]
    assert graph.status(node, "left")["unmatched"] == graph.status(node, "left")["dropped"] == 1
    assert graph.status(node, "right")["dropped"] == 0
    graph.wait(lambda: any("1 unmatched" in entry.message for m in said for entry in m.status))
    _, values = node._pipelines["left"].status.report()
    assert "no partner of right within 0.01 s" in str(values["last_error"])


def test_stamps_further_apart_than_the_tolerance_make_no_group(
    graph: Any, start: Any, fake: Any
) -> None:
    node, (left, right) = start()
    for number in (1, 2):
        left.send(number * SECOND)
        right.send(number * SECOND + 11 * MS)
    left.send(3 * SECOND)
    right.send(3 * SECOND)
    settled(graph, node, 3)
    assert fake[0].stamps == fake[1].stamps == [3 * SECOND]
    for camera in PAIR:
        assert graph.status(node, camera)["unmatched"] == 2


def test_a_camera_that_stops_holds_the_others_up_for_a_while_only(
    graph: Any, start: Any, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs_module, "SILENCE", 1.0)
    node, (left, right) = start()
    said = left.listen(DiagnosticArray, "/diagnostics")
    reset = left.create_client(Trigger, "/d2_frontend/reset")
    left.send(SECOND)
    right.send(SECOND)
    settled(graph, node, 1)
    for number in range(2, 12):
        left.send(number * SECOND)
    graph.wait(lambda: graph.status(node, "left")["received"] == 2)  # the others wait outside
    assert graph.call(reset, Trigger.Request()).success
    graph.wait(lambda: graph.status(node, "left")["received"] == 11)
    assert graph.status(node, "left")["unmatched"] == 8
    graph.wait(lambda: any("unmatched" in entry.message for m in said for entry in m.status))
    right.send(11 * SECOND)  # and when it comes back they meet again
    graph.wait(lambda: fake[1].stamps == [SECOND, 11 * SECOND])
    settled(graph, node, 11, "left")
    counts = graph.status(node, "left")
    assert counts["received"] == counts["processed"] + counts["dropped"]
    assert counts["unmatched"] == 9


def test_live_the_newest_group_wins_and_every_drop_is_counted(
    graph: Any, start: Any, fake: Any
) -> None:
    node, drivers = start(input__qos="live")
    fake[0].gate.clear()
    sent = 0
    while graph.status(node, "left")["overwritten"] < 3:
        sent += 1
        for driver in drivers:
            driver.send(SECOND + sent * 100 * MS)
        time.sleep(0.03)
        assert sent < 300
    time.sleep(0.3)
    fake[0].gate.set()
    graph.wait(lambda: len(fake[1].stamps) == 2)
    assert fake[0].stamps == fake[1].stamps
    assert fake[0].stamps[1] >= SECOND + (sent - 1) * 100 * MS
    for camera in PAIR:
        graph.wait(lambda c=camera: graph.status(node, c)["processed"] == 2)
        counts = graph.status(node, camera)
        held = node._inputs._groups.waits(camera)
        assert counts["received"] == counts["processed"] + counts["dropped"] + held
        assert counts["overwritten"] == graph.status(node, "left")["overwritten"]


def test_after_a_jump_back_in_time_groups_go_on(graph: Any, start: Any, fake: Any) -> None:
    node, drivers = start()
    for second in (100, 101, 3, 4):
        for driver in drivers:
            driver.send(second * SECOND)
    settled(graph, node, 4)
    for camera, front in zip(PAIR, fake, strict=True):
        assert [stamp // SECOND for stamp in front.stamps] == [100, 101, 3, 4]
        assert graph.status(node, camera)["resets"] == 1


def test_a_bad_image_spoils_its_own_camera_only(graph: Any, start: Any, fake: Any) -> None:
    node, (left, right) = start()
    bad = make_image(make_header(SECOND, ""), np.zeros((48, 64), np.uint8))
    bad.encoding = "tiger32"
    left.send(SECOND)
    right.images.publish(bad)
    settled(graph, node, 1)
    assert fake[0].stamps == [SECOND]
    assert graph.status(node, "right")["bad_image"] == 1


def test_deactivating_counts_what_still_waits_for_a_partner(
    graph: Any, start: Any, fake: Any
) -> None:
    node, (left, right) = start()
    fake[0].gate.clear()
    for number in (1, 2):
        left.send(number * SECOND)
        right.send(number * SECOND)
    left.send(3 * SECOND)
    graph.wait(lambda: graph.status(node, "right")["received"] == 2)
    node.trigger_deactivate()  # one group at work, one in the slot, perhaps an image that waits
    fake[0].gate.set()
    for camera in PAIR:
        graph.wait(lambda c=camera: not graph.status(node, c)["waiting"])
        counts = graph.status(node, camera)
        assert counts["stopped"] == counts["received"] >= 2
    node.trigger_activate()
    graph.wait(lambda: left.connected() and right.connected())
    for driver in (left, right):
        driver.send(9 * SECOND)
    graph.wait(lambda: fake[1].stamps[-1:] == [9 * SECOND])


def test_a_batch_that_does_not_fit_gives_way_to_single_images(
    graph: Any, start: Any, fake: Any, fail_first: Any, capfd: Any
) -> None:
    node, drivers = start(device="cuda")
    fail_first(node._device._extractor, "respond", [FULL])
    for number in (1, 2):
        for driver in drivers:
            driver.send(number * SECOND)
    settled(graph, node, 2)
    for camera, front in zip(PAIR, fake, strict=True):
        assert front.batched == [None, None]
        assert graph.status(node, camera)["processed"] == 2
    assert node._device.name == "cuda"
    assert capfd.readouterr().err.count("going on with one image at a time") == 1


@pytest.mark.parametrize("image_errors", [[FULL, FULL], [LOST]])
def test_where_single_images_fail_as_well_the_cpu_takes_over(
    graph: Any, start: Any, fake: Any, fail_first: Any, image_errors: list[Exception]
) -> None:
    node, drivers = start(device="cuda")
    lost = list(image_errors)
    fail_first(node._device._extractor, "respond", [lost[0]])
    fail_first(fake[0], "process", lost)
    for number in (1, 2):
        for driver in drivers:
            driver.send(number * SECOND)
    settled(graph, node, 2)
    assert node._device.name == "cpu"
    assert [front.stamps for front in fake] == [[SECOND, 2 * SECOND]] * 2
    assert "going on with the CPU" in node._device.complaint


def test_a_device_lost_after_the_batch_leaves_no_share_of_it_in_use(
    graph: Any, start: Any, fake: Any, fail_first: Any
) -> None:
    """Batch results name the network they are of; the front-end takes none of another one."""
    node, drivers = start(device="cuda")
    fail_first(fake[0], "process", [LOST])
    for driver in drivers:
        driver.send(SECOND)
    settled(graph, node, 1)
    assert fake[0].batched == [None]
    assert fake[1].batched[0].extractor is not node._device._extractor


def test_one_uncalibrated_camera_does_not_disturb_the_others(
    graph: Any, start: Any, fake: Any
) -> None:
    node, (left, right) = start()
    left.send_info()
    right.infos.publish(CameraInfo(width=64, height=48))
    graph.wait(lambda: all(node._pipelines[camera].calibration.arrived for camera in PAIR))
    left.send(SECOND)
    right.send(SECOND)
    settled(graph, node, 1)
    assert fake[0].cameras[0] is not None
    assert fake[1].cameras == [None]
