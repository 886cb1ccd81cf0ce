"""The node under each executor: over DDS, in a process of its own, and what is refused."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from processes import starting_nodes
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger

from d2_ros.config import Config, with_values
from d2_ros.errors import D2RosError
from d2_ros.node.executor import make_executor

ROOT = Path(__file__).resolve().parents[2]
SECOND = 1_000_000_000
TEXTURE = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8).repeat(8, 0).repeat(8, 1)
HAS_EVENTS = importlib.util.find_spec("rclpy.experimental") is not None


def config(**values: Any) -> Config:
    return with_values(Config(), {name.replace("__", "."): v for name, v in values.items()})


def test_the_single_threaded_executor_is_the_default() -> None:
    assert type(make_executor(Config())) is SingleThreadedExecutor


def test_events_cannot_hold_a_recording_back() -> None:
    with pytest.raises(D2RosError, match=r"executor is 'events' and input.qos is 'replay'.*single"):
        make_executor(config(executor="events", input__qos="replay"))


def test_events_is_refused_where_rclpy_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rclpy.experimental", None)
    with pytest.raises(D2RosError, match=r"this rclpy has no events executor .* set executor to"):
        make_executor(config(executor="events"))


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts the executable with parameters."""
    with starting_nodes("d2_ros.node.frontend_node") as start:
        yield lambda *given: start(*(word for each in given for word in ("-p", each)))


def test_the_executable_refuses_in_one_sentence(spawn: Any) -> None:
    process = spawn("executor:=events", "input.qos:=replay")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.startswith("d2_frontend: parameter executor is 'events'")
    assert said.count("\n") == 1


@pytest.mark.skipif(not HAS_EVENTS, reason="this rclpy has no events executor")
@pytest.mark.parametrize(
    "ending", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_the_node_works_under_the_events_executor(
    graph: Any, make_driver: Any, spawn: Any, ending: signal.Signals
) -> None:
    process = spawn("executor:=events", "autostart:=true", "threads:=1")
    watchdog = threading.Timer(90, process.kill)
    watchdog.start()
    assert any("active, live" in line for line in process.stderr), "it never became active"
    driver = make_driver()
    features = driver.listen(PointCloud2, "features")
    graph.wait(
        lambda: driver.connected() and driver.count_publishers("/d2_frontend/camera/features")
    )
    stamps = count(1)

    def answered() -> bool:
        # Best effort: what is sent before both sides know of each other is lost.
        driver.send_image(next(stamps) * SECOND, TEXTURE)
        time.sleep(0.2)
        return len(features) >= 5

    graph.wait(answered)
    received = [message.header.stamp.sec for message in features]
    assert received == sorted(set(received))
    assert features[-1].width > 0
    reset = driver.create_client(Trigger, "/d2_frontend/reset")
    assert graph.call(reset, Trigger.Request()).success
    state = driver.create_client(GetState, "/d2_frontend/get_state")
    before = graph.call(state, GetState.Request()).current_state.id
    assert before == State.PRIMARY_STATE_ACTIVE
    node = type("Named", (), {"get_fully_qualified_name": lambda self: "/d2_frontend"})()
    assert graph.change(node, driver, "deactivate")
    assert graph.change(node, driver, "activate")
    graph.wait(driver.connected)
    process.send_signal(ending)
    assert process.wait(20) == 0
    watchdog.cancel()
    assert "Traceback" not in process.stderr.read()
