from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rclpy.node import Node
from rclpy.parameter import Parameter

from d2_ros.config import Config, check_config, parameters, with_values
from d2_ros.errors import D2RosError
from d2_ros.node.multi_camera import stereo_pair
from d2_ros.node.parameters import declare, updated

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def make_bare() -> Iterator[Any]:
    """Return a function that makes a node with the given values, nothing declared yet."""
    nodes = []

    def make(cli: list[str] | None = None, **values: Any) -> Node:
        given = [Parameter(name.replace("__", "."), value=v) for name, v in values.items()]
        node = Node(
            "d2_frontend",
            parameter_overrides=given,
            cli_args=["--ros-args", *cli] if cli else None,
            use_global_arguments=False,
        )
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.destroy_node()


def test_every_parameter_is_declared_with_all_that_config_knows(make_bare: Any) -> None:
    node = make_bare()
    assert declare(node) == Config()
    for parameter in parameters():
        value = node.get_parameter(parameter.name).value
        assert (tuple(value) if isinstance(value, list) else value) == parameter.default
        descriptor = node.describe_parameter(parameter.name)
        assert parameter.description in descriptor.description
        assert parameter.unit in descriptor.description
        assert descriptor.read_only == (not parameter.live)
        for choice in parameter.choices:
            assert choice in descriptor.additional_constraints
        if parameter.low is not None:
            (allowed,) = descriptor.integer_range or descriptor.floating_point_range
            assert (allowed.from_value, allowed.to_value) == (parameter.low, parameter.high)


def test_given_values_arrive_and_integers_count_as_numbers(make_bare: Any) -> None:
    node = make_bare(window__size=3, window__min_parallax=5, cameras=["left", "right"])
    expected = {"window.size": 3, "window.min_parallax": 5.0, "cameras": ["left", "right"]}
    assert declare(node) == with_values(Config(), expected)
    assert node.get_parameter("window.min_parallax").value == 5.0


def test_an_old_name_of_a_value_is_taken_and_the_log_warns(make_bare: Any, capfd: Any) -> None:
    node = make_bare(alignment__mode="grey")
    assert declare(node).alignment.mode == "gray"
    assert node.get_parameter("alignment.mode").value == "gray"
    assert "alignment.mode: grey is now called gray" in capfd.readouterr().err


def test_a_parameter_file_is_read_and_qos_overrides_are_left_to_rclpy(
    make_bare: Any, tmp_path: Path
) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(
        "/**:\n  ros__parameters:\n    use_sim_time: true\n    window: {size: 4}\n"
        "    qos_overrides./camera/image_raw.subscription.reliability: reliable\n"
    )
    config = declare(make_bare(["--params-file", str(file)]))
    assert config == with_values(Config(), {"window.size": 4})


def test_the_shipped_parameter_file_is_the_default(make_bare: Any) -> None:
    file = str(ROOT / "config" / "frontend.yaml")
    assert declare(make_bare(["--params-file", file])) == Config()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"window__sise": 3}, ["unknown parameter window.sise"]),
        ({"window__size": 0}, ["window.size is 0", "1 to 30"]),
        ({"window__size": 2.5}, ["window.size is 2.5", "an integer"]),
        ({"device": "gpu"}, ["device is 'gpu'", "auto, cpu, cuda"]),
        ({"window__min_parallax": float("nan")}, ["window.min_parallax", "0 to 1000"]),
        ({"cameras": ["a", "a"]}, ["cameras", "each camera once"]),
        ({"output__vins_format": "orb"}, ["output.vins_format", "none, fusion, mono"]),
    ],
)
def test_bad_values_are_refused_by_name_and_range(
    make_bare: Any, values: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(D2RosError) as caught:
        declare(make_bare(**values))
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cameras": ["left"]}, ["cameras is ['left']", "left camera, then the right"]),
        ({"input__sync_tolerance": 0.0}, ["input.sync_tolerance is 0", "seconds"]),
    ],
)
def test_a_stereo_pair_that_cannot_be_one_is_refused(
    make_bare: Any, changes: dict[str, Any], words: list[str]
) -> None:
    pair = {"cameras": ["left", "right"], "input__stereo": True, "input__sync_tolerance": 0.01}
    pair["output__vins_format"] = "mono"
    assert declare(make_bare(**pair)).input.stereo
    with pytest.raises(D2RosError) as caught:
        declare(make_bare(**{**pair, **changes}))
    assert all(word in str(caught.value) for word in ["input.stereo is true", *words])


def test_the_shipped_stereo_file_is_a_stereo_pair(make_bare: Any) -> None:
    config = declare(make_bare(["--params-file", str(ROOT / "config" / "stereo.yaml")]))
    assert stereo_pair(config) == ("cam0", "cam1")


@pytest.mark.parametrize("name", ["", "1st", "left camera", "/camera", "camera/", "a//b", "ü"])
def test_camera_names_must_be_topic_names(name: str) -> None:
    with pytest.raises(D2RosError, match="topic name"):
        check_config(Config(cameras=(name,)))
    check_config(Config(cameras=("stereo/left_2",)))


def test_updates_are_checked_and_foreign_parameters_passed_over() -> None:
    changes = [Parameter("window.min_parallax", value=7), Parameter("use_sim_time", value=True)]
    assert updated(Config(), changes).window.min_parallax == 7.0
    with pytest.raises(D2RosError, match=r"features.max_keypoints is 'many'"):
        updated(Config(), [Parameter("features.max_keypoints", value="many")])


def test_only_live_parameters_can_be_set_on_the_running_node(make_node: Any, fake: Any) -> None:
    node = make_node()

    def set_one(name: str, value: Any) -> Any:
        return node.set_parameters([Parameter(name, value=value)])[0]

    assert set_one("features.max_keypoints", 500).successful
    assert node.config.features.max_keypoints == 500
    for name, value, word in (
        ("weights", "other", "read-only"),
        ("features.max_keypoints", 5, "range"),
    ):
        answer = set_one(name, value)
        assert not answer.successful
        assert word in answer.reason
    assert node.config == with_values(Config(), {"features.max_keypoints": 500})


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-p", "window.sise:=3"], "unknown parameter window.sise"),
        (["--params-file", "/nowhere.yaml"], "/nowhere.yaml"),
        (["-p", "input.stereo:=true"], "name the left camera, then the right one"),
    ],
)
def test_the_executable_ends_with_code_2_and_one_sentence(
    arguments: list[str], sentence: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "d2_ros.node.frontend_node", "--ros-args", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("d2_frontend: ")
    assert sentence in last
    assert "Traceback" not in done.stderr
