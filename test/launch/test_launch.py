"""What the launch files would start; nothing is started here."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("launch_ros", reason="launch_ros is not on PyPI; install a ROS distribution")

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch_ros.actions import Node

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
ARGUMENTS = {
    "namespace", "params_file", "image_topic", "camera_info_topic", "weights", "device",
    "use_sim_time", "rviz", "autostart", "log_level",
}  # fmt: skip


def describe(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, LAUNCH / f"{name}.launch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


def opened(description: Any, **given: str) -> Any:
    """Return what the description's function starts, with defaults for what is not given."""
    context = LaunchContext()
    context.launch_configurations.update(params_file="params.yaml", **given)
    for entity in description.entities:
        if isinstance(entity, DeclareLaunchArgument):
            entity.execute(context)  # sets the default of what is not given
    (function,) = (e for e in description.entities if isinstance(e, OpaqueFunction))
    (action,) = function.execute(context)
    return action, context


def declared(description: Any) -> set[str]:
    return {e.name for e in description.entities if isinstance(e, DeclareLaunchArgument)}


def values(node: Any, context: LaunchContext) -> dict[str, Any]:
    """Return the parameters that are set after the file."""
    from launch_ros.utilities import evaluate_parameters

    file, given = evaluate_parameters(context, node._Node__parameters)
    assert str(file) == "params.yaml"
    return dict(given)


def test_frontend_has_the_documented_arguments() -> None:
    assert declared(describe("frontend")) >= ARGUMENTS


def test_empty_arguments_leave_the_parameter_file_alone() -> None:
    node, context = opened(describe("frontend"))
    assert isinstance(node, Node)
    assert values(node, context) == {"use_sim_time": False, "autostart": True}


def test_arguments_win_over_the_parameter_file() -> None:
    given = {"weights": "mine", "device": "cpu", "qos": "replay", "autostart": "false"}
    node, context = opened(describe("frontend"), **given, use_sim_time="true")
    assert values(node, context) == {
        "weights": "mine",
        "device": "cpu",
        "input.qos": "replay",
        "use_sim_time": True,
        "autostart": False,
    }


def test_replay_adds_bag_and_rate_and_plays_the_bag() -> None:
    description = describe("replay")
    assert {"bag", "rate"} <= declared(description)
    player, context = opened(description, bag="some.mcap", rate="0.5", image_topic="/left")
    assert isinstance(player, ExecuteProcess)
    words = ["".join(part.perform(context) for part in word) for word in player.cmd[1:]]
    assert words == [
        "play", "some.mcap", "--rate", "0.5", "--wait-for-subscribers", "--image-topic", "/left",
    ]  # fmt: skip
