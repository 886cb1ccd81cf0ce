"""A parameter file or ``-p`` means to the commands what it means to the node: ROS itself is asked.

What :mod:`d2_ros.parameter_files` refuses on purpose, though ROS takes it, is left out here.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import rclpy
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.context import Context
from rclpy.node import Node

from d2_ros.commands.common import load_config
from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.node.parameters import declare
from d2_ros.parameter_files import load_params_file, parse_override

ROOT = Path(__file__).resolve().parents[2]
ROBOT = "robot"

SCALARS = [
    "1", "-7", "+5", "1e1", "1.5", ".5", "5.", "0x10", "0X1f", "010", "08", "0b11", "1_000", "1:30",
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1e999", "1e-320", "0e9",
    "nan", ".NaN", "-.nan", "inf", "-Infinity", "+.INF", "0x1p3", "0x1.8", "yes", "y", "OFF",
    "tRue", "~", "null", "2001-01-01", '"5"', "'yes'", "!!str 5", '!!int "5"', "!x 5", "a:=b", "é",
    "1 2", "'[1]'", "[1, 2]", "[a, b]", "[a,]", "[yes, no]", "[1e1]", "|\n      5", ">-\n      5",
    "a #c",
]  # fmt: skip
"""Texts of values that ROS takes."""

SECTIONS = [
    "d2_frontend", "/d2_frontend", "/robot/d2_frontend", "robot/d2_frontend", "/robot/*", "/**",
    "'**'", "'*'", "/*", "/**/d2_frontend", "/*/d2_frontend", "/robot/**", "camera", "/**/x",
    "/robot/camera", "/robot/**/d2_frontend", "d2_frontend2",
]  # fmt: skip


@pytest.fixture(scope="module")
def ask() -> Any:
    """Return a function: the parameters that ROS gives d2_frontend for these arguments."""

    def make(arguments: list[str], namespace: str | None = None) -> dict[str, Any]:
        context = Context()
        rclpy.init(args=["--ros-args", *arguments], context=context)
        node = Node("d2_frontend", context=context, namespace=namespace)
        try:
            return {name: given.value for name, given in node._parameter_overrides.items()}
        finally:
            node.destroy_node()
            context.try_shutdown()

    return make


def same(ours: Any, theirs: Any) -> bool:
    """Whether values agree in type and content, NaN with itself; ROS has no empty lists."""
    if isinstance(theirs, float) and math.isnan(theirs):
        return isinstance(ours, float) and math.isnan(ours)
    if isinstance(theirs, list) or ours == []:
        return (theirs is None and ours == []) or (
            len(ours) == len(theirs) and all(map(same, ours, theirs))
        )
    return type(ours) is type(theirs) and ours == theirs


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert set(ours) == set(theirs)
    assert all(same(ours[name], theirs[name]) for name in theirs), (ours, theirs)


def test_every_kind_of_value_in_a_file_and_as_override(ask: Any, tmp_path: Path) -> None:
    lines = [f"    v{number}: {text}" for number, text in enumerate(SCALARS)]
    path = tmp_path / "p.yaml"
    path.write_text("d2_frontend:\n  ros__parameters:\n" + "\n".join(lines) + "\n")
    theirs = ask(["--params-file", str(path)])
    assert len(theirs) == len(SCALARS)
    assert_same(load_params_file(path) or {}, theirs)
    texts = [f"v{number}:={text}" for number, text in enumerate(SCALARS)]
    arguments = [part for text in texts for part in ("-p", text)]
    assert_same(dict(map(parse_override, texts)), ask(arguments))


@settings(max_examples=12, deadline=None)
@given(
    sections=st.lists(
        st.tuples(st.sampled_from(SECTIONS), st.sets(st.sampled_from("abc"), min_size=1)),
        min_size=1,
        max_size=5,
    )
)
def test_any_sections_match_and_win_as_in_ros(
    ask: Any, sections: list[tuple[str, set[str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = []
    for number, (name, letters) in enumerate(sections):
        lines += [f"{name}:", "  ros__parameters:"]
        lines += [f"    {letter}: {number}" for letter in sorted(letters)]
    path = tmp_path_factory.getbasetemp() / "sections.yaml"
    path.write_text("\n".join(lines) + "\n")
    names = {"/" + name.lstrip("/") for name, _ in sections}
    namespace = ROBOT if "/d2_frontend" not in names and "/robot/d2_frontend" in names else None
    assert_same(load_params_file(path) or {}, ask(["--params-file", str(path)], namespace))


@settings(max_examples=25, deadline=None)
@given(text=st.text("0123456789abefinxX.+-_ \"'[],", min_size=1, max_size=12))
def test_any_value_is_taken_or_refused_as_by_ros(ask: Any, text: str) -> None:
    try:
        theirs = ask(["-p", f"a:={text}"])
    except RuntimeError:
        with pytest.raises(D2RosError):
            parse_override(f"a:={text}")
        return
    try:
        ours = dict([parse_override(f"a:={text}")])
    except D2RosError:
        # To ROS no value is a value of no type, and lists in lists fall to pieces.
        assert theirs == {"a": None} or text.count("[") > 1
        return
    assert_same(ours, theirs)


FILES = {
    "several nodes": "camera:\n  ros__parameters: {fps: 30}\n"
    "d2_frontend:\n  ros__parameters: {window: {size: 4}, alignment.max_move: 1e1}\n"
    "/nav/planner:\n  ros__parameters: {size: 3}\n",
    "namespace": "/robot/d2_frontend:\n  ros__parameters: {window.size: 5}\n",
    "wildcards": "/**:\n  ros__parameters: {use_sim_time: true, window.size: 5}\n"
    "'*':\n  ros__parameters: {features: {max_keypoints: 0x100}}\n",
    "quality of service": "/**:\n  ros__parameters:\n    qos_overrides:\n      /camera/image_raw:\n"
    "        subscription: {reliability: reliable}\n    output.descriptors: uint8\n",
    "for another": "camera:\n  ros__parameters: {fps: 30}\n",
    "stereo": (ROOT / "config" / "stereo.yaml").read_text(),
    "light": (ROOT / "config" / "light.yaml").read_text(),
    "defaults": (ROOT / "config" / "frontend.yaml").read_text(),
    "nothing": "# nothing\n",
}

REFUSED = {
    "unknown": "d2_frontend:\n  ros__parameters: {window.sise: 4}\n",
    "unknown under a wildcard": "/**:\n  ros__parameters: {fps: 30}\n",
    "out of range": "d2_frontend:\n  ros__parameters: {window.size: 1e1}\n",
    "camera twice": "d2_frontend:\n  ros__parameters: {cameras: [a, a]}\n",
    "no camera": "d2_frontend:\n  ros__parameters: {cameras: []}\n",
    "stereo of one": "d2_frontend:\n  ros__parameters: {input.stereo: true}\n",
}


def node_config(arguments: list[str], namespace: str | None = None) -> Config:
    node = Node(
        "d2_frontend",
        cli_args=["--ros-args", *arguments],
        namespace=namespace,
        use_global_arguments=False,
    )
    try:
        return declare(node)
    finally:
        node.destroy_node()


@pytest.mark.parametrize("name", FILES)
def test_the_same_file_gives_node_and_command_the_same_config(name: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(FILES[name])
    namespace = ROBOT if name == "namespace" else None
    config = load_config(path, None)
    assert config == node_config(["--params-file", str(path)], namespace)
    assert (config == Config()) == (name in ("for another", "defaults", "nothing"))


@pytest.mark.parametrize("name", REFUSED)
def test_the_same_file_is_refused_by_node_and_command(name: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(REFUSED[name])
    with pytest.raises(D2RosError):
        load_config(path, None)
    with pytest.raises(D2RosError):
        node_config(["--params-file", str(path)])


@pytest.mark.parametrize("text", ["window.size:=3", "alignment.max_move:=1e1", "weights:='1e1'"])
def test_the_same_override_gives_node_and_command_the_same_config(text: str) -> None:
    assert load_config(None, [text]) == node_config(["-p", text])
