"""launch/frontend.launch.py for real: the node becomes active and ends with code 0.

A test of launch_testing, so ``launch_test test/launch/frontend_process.py`` runs it as well.
"""

from __future__ import annotations

import time
import unittest
from pathlib import Path
from typing import Any

import launch_testing
import pytest
import rclpy
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_testing.actions import ReadyToTest
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import Trigger

FILE = Path(__file__).resolve().parents[2] / "launch" / "frontend.launch.py"
PATIENCE = 60.0


@pytest.mark.launch_test
def generate_test_description() -> LaunchDescription:
    """Return what `ros2 launch d2_ros frontend.launch.py device:=cpu` starts."""
    frontend = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(FILE)), launch_arguments={"device": "cpu"}.items()
    )
    return LaunchDescription([frontend, ReadyToTest()])


class WhileItRuns(unittest.TestCase):
    """What the node does before launch is told to end."""

    def setUp(self) -> None:
        self.context = Context()
        rclpy.init(args=[], context=self.context)
        self.node = rclpy.create_node("manager", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def tearDown(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def call(self, kind: Any, name: str) -> Any:
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(PATIENCE), name
        future = client.call_async(kind.Request())
        self.executor.spin_until_future_complete(future, PATIENCE)
        assert future.done(), name
        return future.result()

    def test_it_becomes_active_and_answers(self) -> None:
        deadline, state = time.monotonic() + PATIENCE, 0
        while state != State.PRIMARY_STATE_ACTIVE and time.monotonic() < deadline:
            state = self.call(GetState, "/d2_frontend/get_state").current_state.id
            time.sleep(0.1)
        assert state == State.PRIMARY_STATE_ACTIVE
        assert self.call(Trigger, "/d2_frontend/reset").success


@launch_testing.post_shutdown_test()
class WhenItHasEnded(unittest.TestCase):
    """What is left once launch has sent its interrupt."""

    def test_exit_code_is_0(self, proc_info: Any) -> None:
        assert len(proc_info.processes()) == 1
        launch_testing.asserts.assertExitCodes(proc_info)
