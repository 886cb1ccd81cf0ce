"""The executable under any arguments: it starts, or ends with code 2 and one sentence."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rclpy.node import Node

from d2_ros.config import Config, with_values
from d2_ros.node import executor, frontend_node
from d2_ros.node.parameters import declare
from d2_ros.node.process import NodeProcess

NAMES = ["window.size", "weights", "cameras", "use_sim_time", "start_type_description_service",
         "qos_overrides./diagnostics.publisher.depth", "executor", "input.qos", "x", "",
         "window"]  # fmt: skip
VALUES = ["3", "x", "[left, right", "@x", "[]", "[a, a]", "1e1", "true", "", "{a: 1}", "nan", "'",
          "events", "replay", "\udcff", "é", "-", "9" * 30]  # fmt: skip
OTHERS = ["--params-file", "/nowhere.yaml", "-r", "a:=b", "__ns:=/x", "__ns:=//", "__node:=1x",
          "camera/image_raw:=0x", "~/reset:=/a", "--log-level", "none", "-e", "foo", "--enclave",
          "/a b", "--log-config-file", "--ros-args", "--", "-p", "x", "",
          "--disable-stdout-logs"]  # fmt: skip


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Return a function that runs the executable in this process up to its spinning."""
    rclpy.try_shutdown()  # what the other tests share; the executable starts its own
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(executor, "spin", lambda executor: None)

    def run(*arguments: str) -> tuple[int, str]:
        try:
            code = frontend_node.main(["d2_frontend", "--ros-args", *arguments])
        finally:
            for number, handler in handlers:
                signal.signal(number, handler)
        own = [line for line in capsys.readouterr().err.splitlines() if "d2_frontend: " in line]
        return code, "\n".join(own)

    yield run
    rclpy.try_shutdown()
    rclpy.init(args=[])


def test_no_arguments_end_in_a_traceback(starts: Any) -> None:
    parameter = st.builds("{}:={}".format, st.sampled_from(NAMES), st.sampled_from(VALUES))
    words = st.one_of(st.sampled_from(OTHERS), parameter)
    pairs = st.one_of(parameter.map(lambda text: ["-p", text]), words.map(lambda word: [word]))

    @settings(
        max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(given=st.lists(pairs, max_size=3))
    def check(given: list[list[str]]) -> None:
        code, said = starts(*(word for pair in given for word in pair))
        assert code in (0, 2)
        assert said.count("\n") == 0
        assert bool(said) == (code == 2)

    check()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "cameras:=[left, right"], "cameras:=[left, right"),
        (["-p", "weights:=@x"], "weights:=@x"),
        (["-p", "use_sim_time:=5"], "use_sim_time"),
        (["-p", "start_type_description_service:=x"], "start_type_description_service"),
        (["--enclave", "foo"], "Enclave name is not valid"),
    ],
)
def test_what_ros_refuses_is_one_sentence(starts: Any, arguments: list[str], words: str) -> None:
    code, said = starts(*arguments)
    assert code == 2
    assert said.startswith("d2_frontend: ")
    assert words in said
    assert ".c:" not in said  # where in ROS's sources helps nobody


def test_a_signal_while_a_message_goes_out_ends_the_node_quietly(
    starts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish_after_the_end(executor: Any) -> None:
        (node,) = executor.get_nodes()
        rclpy.shutdown()
        node.publish_diagnostics()

    monkeypatch.setattr(executor, "spin", publish_after_the_end)
    assert starts() == (0, "")


def test_a_fault_while_ros_runs_is_not_hidden(starts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(executor: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(executor, "spin", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        starts()


def test_texts_reach_a_started_node_as_texts(tmp_path: Path) -> None:
    values = {"weights": "1e1", "cameras": ["y", "on"], "alignment.max_move": 0.5}
    NodeProcess(values, tmp_path)  # not entered: nothing is started
    file = tmp_path / "params.yaml"
    node = Node(
        "d2_frontend",
        cli_args=["--ros-args", "--params-file", str(file)],
        use_global_arguments=False,
    )
    try:
        assert declare(node) == with_values(Config(), values)
    finally:
        node.destroy_node()
