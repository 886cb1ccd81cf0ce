"""A device that fails: injected errors in the front-end of the real node, driven over DDS."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import TransitionCallbackReturn

from d2_ros.node import camera_pipeline
from d2_ros.node import device as device_module
from d2_ros.node.device import is_device_error

SECOND = 1_000_000_000
LOST = RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be ...")
FULL = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.fixture
def run(
    graph: Any,
    make_node: Any,
    make_driver: Any,
    fake: Any,
    fail_first: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Return a function that sends frames 1, 2, 3 while `errors` are raised one after another."""
    monkeypatch.setattr(camera_pipeline, "CALIBRATION_PATIENCE", 0.0)

    def go(errors: list[Exception], **parameters: Any) -> Any:
        node = make_node(
            **{"input__qos": "replay", "device": "cuda", "cameras": ["left", "right"], **parameters}
        )
        node.trigger_configure()
        node.trigger_activate()
        driver = make_driver("left")
        driver.said = driver.listen(DiagnosticArray, "/diagnostics")
        fail_first(fake[0], "process", errors)
        graph.wait(driver.connected)
        for number in (1, 2, 3):
            driver.send(number * SECOND)
        graph.wait(
            lambda: (
                graph.status(node, "left")["received"] == 3
                and not graph.status(node, "left")["waiting"]
            )
        )
        return node, driver

    return go


def node_entry(graph: Any, driver: Any, level: bytes) -> dict[str, str]:
    """Wait for diagnostics of this level; return the node's values."""
    graph.wait(lambda: driver.said and driver.said[-1].status[0].level == level)
    return {pair.key: pair.value for pair in driver.said[-1].status[0].values}


def test_out_of_memory_once_is_tried_again(graph: Any, run: Any, fake: Any, capfd: Any) -> None:
    node, driver = run([FULL])
    assert fake[0].stamps == [SECOND, 2 * SECOND, 3 * SECOND]
    assert graph.status(node, "left")["dropped"] == 0
    assert "trying again" in capfd.readouterr().err
    assert node_entry(graph, driver, b"\0")["device"] == "cuda"


@pytest.mark.parametrize("errors", [[FULL, FULL], [LOST], [FULL, LOST]])
def test_a_device_that_goes_on_failing_gives_way_to_the_cpu(
    graph: Any, run: Any, fake: Any, capfd: Any, errors: list[Exception]
) -> None:
    node, driver = run(list(errors), precision="fp16")
    assert fake[0].stamps == [SECOND, 2 * SECOND, 3 * SECOND]
    assert graph.status(node, "left")["dropped"] == 0
    values = node_entry(graph, driver, b"\1")
    assert values["device"] == "cpu"
    assert "going on with the CPU" in values["last_error"]
    assert "\n" not in values["last_error"]
    assert capfd.readouterr().err.count("going on with the CPU") == 1
    assert [front.extractor.device for front in fake] == ["cpu", "cpu"]  # of both cameras
    assert {front.extractor.config.runtime for front in fake} == {"torch"}
    assert [front.resets for front in fake] == [1, 1]
    for transition in (node.trigger_deactivate, node.trigger_cleanup, node.trigger_configure):
        graph.run(transition)
    graph.wait(lambda: node_entry(graph, driver, b"\0")["device"] == "cuda")  # it is tried again


@pytest.mark.parametrize("errors", [[FULL, FULL], [LOST]])
def test_without_fallback_frames_are_refused_and_the_node_lives(
    graph: Any, run: Any, fake: Any, errors: list[Exception]
) -> None:
    node, driver = run(list(errors), fallback="none")
    assert fake[0].stamps == [2 * SECOND, 3 * SECOND]
    assert graph.status(node, "left")["device_failed"] == 1
    _, values = node._pipelines["left"].status.report()
    assert "set fallback to cpu" in str(values["last_error"])
    assert node_entry(graph, driver, b"\0")["device"] == "cuda"


def test_where_the_cpu_cannot_take_over_the_frame_is_refused(
    graph: Any, run: Any, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = device_module.Extractor

    def extractor(config: Any) -> Any:
        if config.device == "cpu":
            raise device_module.D2RosError("weights off_the_shelf have vanished")
        return real(config)

    monkeypatch.setattr(device_module, "Extractor", extractor)
    node, _ = run([LOST, LOST])
    assert fake[0].stamps == [3 * SECOND]
    assert graph.status(node, "left")["refused"] == 2


def test_a_lost_device_does_not_keep_the_node_from_cleaning_up(
    graph: Any, run: Any, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, _ = run([LOST], fallback="none")
    asked = []

    def empty_cache() -> None:
        asked.append(1)
        raise LOST

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", empty_cache)
    assert graph.run(node.trigger_deactivate) == TransitionCallbackReturn.SUCCESS
    assert graph.run(node.trigger_cleanup) == TransitionCallbackReturn.SUCCESS
    assert asked
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_a_bug_is_no_fault_of_the_device(graph: Any, run: Any, fake: Any) -> None:
    node, _ = run([RuntimeError("shapes cannot be broadcast")])
    assert graph.status(node, "left")["failed"] == 1
    assert not hasattr(fake[0], "extractor") or fake[0].extractor.device == "cuda"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FULL, True),
        (LOST, True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("size mismatch"), False),
        (ValueError("CUDA"), False),
        (MemoryError(), False),
    ],
)
def test_errors_of_the_device_are_told_from_others(error: Exception, expected: bool) -> None:
    assert is_device_error(error) == expected
