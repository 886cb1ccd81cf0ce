"""Transitions at bad moments and with bad ends; the node is driven by its services."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import PointCloud2

from d2_ros.errors import D2RosError
from d2_ros.node import camera_pipeline, frontend_node
from d2_ros.node import device as device_module

SECOND = 1_000_000_000


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_pipeline, "CALIBRATION_PATIENCE", 0.0)


@pytest.fixture
def manager(graph: Any) -> Any:
    return graph.add(Node("manager", use_global_arguments=False))


def state(graph: Any, manager: Any) -> str:
    client = manager.create_client(GetState, "/d2_frontend/get_state")
    label: str = graph.call(client, GetState.Request()).current_state.label
    return label


def test_deactivating_during_work_neither_waits_for_long_nor_publishes(
    graph: Any, make_node: Any, make_driver: Any, manager: Any, fake: Any
) -> None:
    node = make_node()
    node.trigger_configure()
    node.trigger_activate()
    driver = make_driver()
    features = driver.listen(PointCloud2, "features")
    graph.wait(driver.connected)
    fake[0].gate.clear()
    driver.send(SECOND)
    graph.wait(lambda: graph.status(node)["received"] == 1)
    time.sleep(0.1)  # until the worker has taken it
    driver.send(2 * SECOND)
    graph.wait(lambda: graph.status(node)["received"] == 2)
    status, pipeline = node._pipelines["camera"].status, node._pipelines["camera"]
    before = time.monotonic()
    assert graph.change(node, manager, "deactivate")
    assert time.monotonic() - before < 2
    assert status.counts()["stopped"] == 1  # the one that waited; the other is still at work
    assert graph.change(node, manager, "activate")
    graph.wait(driver.connected)
    fake[0].gate.set()
    graph.wait(lambda: status.counts()["stopped"] == 2)
    driver.send(3 * SECOND)
    graph.wait(lambda: status.counts()["processed"] == 1 and features)
    assert [message.header.stamp.sec for message in features] == [3]
    assert status.counts()["received"] == 3
    assert pipeline is node._pipelines["camera"]


def test_cleaning_up_during_work_is_survived(
    graph: Any, make_node: Any, make_driver: Any, manager: Any, fake: Any
) -> None:
    node = make_node()
    node.trigger_configure()
    node.trigger_activate()
    driver = make_driver()
    graph.wait(driver.connected)
    fake[0].gate.clear()
    driver.send(SECOND)
    graph.wait(lambda: graph.status(node)["received"] == 1)
    time.sleep(0.1)
    for transition in ("deactivate", "cleanup", "configure", "activate"):
        assert graph.change(node, manager, transition)
    graph.wait(driver.connected)
    fake[0].gate.set()
    driver.send(2 * SECOND)
    graph.wait(lambda: graph.status(node)["processed"] == 1)
    assert fake[1].stamps == [2 * SECOND]


@pytest.mark.parametrize("before", ["", "configure", "configure activate"])
def test_shutdown_from_every_state(
    graph: Any, make_node: Any, manager: Any, fake: Any, before: str
) -> None:
    node = make_node()
    for transition in before.split():
        assert graph.change(node, manager, transition)
    assert graph.change(node, manager, "shutdown")
    assert state(graph, manager) == "finalized"
    assert node._pipelines == {}


def test_a_transition_that_does_not_exist_here_is_denied(
    graph: Any, make_node: Any, manager: Any, fake: Any
) -> None:
    node = make_node()
    assert not graph.change(node, manager, "activate")
    assert not graph.change(node, manager, "deactivate")
    assert graph.change(node, manager, "configure")
    assert not graph.change(node, manager, "configure")
    assert state(graph, manager) == "inactive"


@pytest.mark.parametrize("error", [D2RosError("no such weights"), RuntimeError("CUDA error: ...")])
def test_a_configuration_that_fails_can_be_tried_again(
    graph: Any, make_node: Any, manager: Any, fake: Any, monkeypatch: Any, error: Exception
) -> None:
    node = make_node()
    real = device_module.Extractor

    def failing(config: Any) -> Any:
        raise error

    monkeypatch.setattr(device_module, "Extractor", failing)
    assert not graph.change(node, manager, "configure")
    assert state(graph, manager) == "unconfigured"
    assert str(error) in node._last_error
    monkeypatch.setattr(device_module, "Extractor", real)
    assert graph.change(node, manager, "configure")
    assert node._last_error == ""


def test_an_activation_that_fails_can_be_tried_again(
    graph: Any, make_node: Any, manager: Any, fake: Any, monkeypatch: Any
) -> None:
    node = make_node()
    assert graph.change(node, manager, "configure")
    real = frontend_node.Inputs

    def failing(*given: Any) -> Any:
        raise RuntimeError("no more memory for subscriptions")

    monkeypatch.setattr(frontend_node, "Inputs", failing)
    assert not graph.change(node, manager, "activate")
    assert state(graph, manager) == "inactive"
    assert not any(thread.name == "d2_frontend_worker" for thread in threading.enumerate())
    monkeypatch.setattr(frontend_node, "Inputs", real)
    assert graph.change(node, manager, "activate")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        pytest.param({"weights": "FOLDER/missing.pth"}, "missing.pth", id="missing"),
        pytest.param({"weights": "FOLDER/rubbish.pth"}, "rubbish.pth", id="rubbish"),
        pytest.param({"weights": "FOLDER/cut.safetensors"}, "cut.safetensors", id="cut short"),
        pytest.param({"device": "cuda"}, "torch sees no GPU", id="no GPU"),
    ],
)
def test_weights_or_a_device_that_cannot_be_used(
    graph: Any, make_node: Any, manager: Any, tmp_path: Path, parameters: Any, words: str
) -> None:
    (tmp_path / "rubbish.pth").write_bytes(b"\x80\x02rubbish" * 100)
    (tmp_path / "cut.safetensors").write_bytes((10**9).to_bytes(8, "little") + b'{"conv"')
    if parameters.get("device") == "cuda" and device_module.torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    values = {key: value.replace("FOLDER", str(tmp_path)) for key, value in parameters.items()}
    node = make_node(**values)
    assert not graph.change(node, manager, "configure")
    assert state(graph, manager) == "unconfigured"
    assert words in node._last_error
    assert "Traceback" not in node._last_error


def test_parameters_over_their_service_while_images_come(
    graph: Any, make_node: Any, make_driver: Any, manager: Any, fake: Any
) -> None:
    node = make_node(input__qos="replay")
    node.trigger_configure()
    node.trigger_activate()
    driver = make_driver()
    graph.wait(driver.connected)
    client = manager.create_client(SetParameters, "/d2_frontend/set_parameters")

    def set_one(name: str, value: Any) -> Any:
        given = [Parameter(name, value=value).to_parameter_msg()]
        return graph.call(client, SetParameters.Request(parameters=given)).results[0]

    for number, (name, value, accepted) in enumerate(
        [
            ("features.max_keypoints", 55, True),
            ("features.max_keypoints", 5, False),
            ("features.max_keypoints", "many", False),
            ("weights", "other", False),
            ("window.sise", 3, False),
            ("fallback", "none", True),
            ("fallback", "toaster", False),
        ],
        1,
    ):
        answer = set_one(name, value)
        assert answer.successful == accepted, name
        assert accepted or answer.reason
        driver.send(number * SECOND)
        graph.wait(lambda n=number: graph.status(node)["processed"] == n)
    assert {config.features.max_keypoints for config in fake[0].configs} == {55}
    assert fake[0].configs[-1].fallback == "none"


def test_descriptors_of_parameters_are_visible_over_their_service(
    graph: Any, make_node: Any, manager: Any, fake: Any
) -> None:
    make_node()
    client = manager.create_client(DescribeParameters, "/d2_frontend/describe_parameters")
    request = DescribeParameters.Request(names=["input.max_age", "fallback"])
    age, fallback = graph.call(client, request).descriptors
    assert "[s]" in age.description
    assert age.floating_point_range[0].to_value == 3600.0
    assert "cpu, none" in fallback.additional_constraints
    assert not age.read_only
