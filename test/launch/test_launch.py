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
    "use_sim_time", "rviz", "autostart", "log_level", "stereo", "right_image_topic",
    "right_camera_info_topic", "sync_tolerance", "mapper", "loops",
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
    files = {"params_file": "params.yaml", "mapper_params_file": "params.yaml"}
    context.launch_configurations.update(**files, **given)
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


def remapped(node: Any, context: LaunchContext) -> dict[str, str]:
    """Return the topics that a node takes for its own."""
    from launch.utilities import perform_substitutions

    pairs = node._Node__remappings
    return {
        perform_substitutions(context, own): perform_substitutions(context, other)
        for own, other in pairs
    }


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


def test_a_stereo_pair_is_two_cameras_that_are_synchronised() -> None:
    topics = {"image_topic": "/l/image", "camera_info_topic": "/l/info"}
    right = {"right_image_topic": "/r/image", "right_camera_info_topic": "/r/info"}
    node, context = opened(describe("frontend"), stereo="true", **topics, **right)
    told = values(node, context)
    assert list(told.pop("cameras")) == ["camera", "right"]
    assert told == {
        "use_sim_time": False,
        "autostart": True,
        "input.stereo": True,
        "input.sync_tolerance": 0.003,
    }
    assert remapped(node, context) == {
        "camera/image_raw": "/l/image",
        "camera/image_raw/compressed": "/l/image/compressed",
        "camera/camera_info": "/l/info",
        "right/image_raw": "/r/image",
        "right/image_raw/compressed": "/r/image/compressed",
        "right/camera_info": "/r/info",
    }


def test_without_stereo_there_is_one_camera() -> None:
    node, context = opened(describe("frontend"))
    assert "cameras" not in values(node, context)
    assert not [own for own in remapped(node, context) if own.startswith("right")]


def test_the_mapper_takes_the_pair_and_an_imu() -> None:
    node, context = opened(
        describe("mapper"),
        stereo="true", right_camera_info_topic="/r/info", camera_info_topic="/l/info",
        imu_topic="/imu", imu_calibration="imu.yaml",
    )  # fmt: skip
    assert values(node, context) == {
        "stereo": True,
        "imu_topic": "/imu",
        "imu_calibration": "imu.yaml",
        "use_sim_time": False,
    }
    assert remapped(node, context) == {
        "camera/camera_info": "/l/info",
        "right/camera_info": "/r/info",
    }


def test_loops_are_looked_for_and_taken() -> None:
    for name, parameter in (("frontend", "places.enabled"), ("mapper", "loops")):
        assert parameter not in values(*opened(describe(name)))
        assert values(*opened(describe(name), loops="true"))[parameter] is True


@pytest.mark.parametrize(
    ("name", "given", "started"),
    [
        ("frontend", {}, {"d2_frontend"}),
        ("frontend", {"mapper": "true"}, {"d2_frontend", "d2_mapper"}),
        ("mapper", {}, {"d2_frontend", "d2_mapper"}),
        ("mapper", {"frontend": "false"}, {"d2_mapper"}),
    ],
)
def test_each_file_starts_what_is_asked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, given: dict[str, str],
    started: set[str],
) -> None:  # fmt: skip
    """The files include each other: the nodes are programs that write down how they were called."""
    from launch import LaunchService
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    index = tmp_path / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    (index / "d2_ros").touch()
    (tmp_path / "share/d2_ros").mkdir()
    for folder in ("launch", "config"):
        (tmp_path / "share/d2_ros" / folder).symlink_to(LAUNCH.parent / folder)
    programs = tmp_path / "lib/d2_ros"
    programs.mkdir(parents=True)
    for program in ("d2_frontend", "d2_mapper"):
        path = programs / program
        path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/{program}.called\n')
        path.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    source = PythonLaunchDescriptionSource(str(LAUNCH / f"{name}.launch.py"))
    arguments = {"camera_info_topic": "/l/info", "log_level": "warn", **given}
    service = LaunchService(noninteractive=True)
    service.include_launch_description(
        IncludeLaunchDescription(source, launch_arguments=arguments.items())
    )
    assert service.run() == 0
    called = {path.stem: path.read_text().splitlines() for path in tmp_path.glob("*.called")}
    assert set(called) == started
    for lines in called.values():
        assert len(lines) == 1
        assert "camera/camera_info:=/l/info" in lines[0]
        assert "--log-level warn" in lines[0]
