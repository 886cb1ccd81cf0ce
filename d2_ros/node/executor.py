"""What calls the node back: rclpy's executor, or the events executor where rclpy has it."""

from __future__ import annotations

from rclpy.executors import Executor, SingleThreadedExecutor

from d2_ros.config import Config
from d2_ros.errors import D2RosError

DEADLINE = 1.0
"""Seconds after which waiting for an event starts anew."""


def make_executor(config: Config) -> Executor:
    """Return the executor that parameter ``executor`` names.

    Raises
    ------
    D2RosError
        If it is not there, or cannot do what ``input.qos`` asks.
    """
    if config.executor == "single":
        return SingleThreadedExecutor()
    if config.input.qos == "replay":
        # It never asks callback groups, by which the node keeps a recording waiting.
        raise D2RosError(
            "parameter executor is 'events' and input.qos is 'replay', but the events executor "
            "cannot hold messages back, so frames would be lost; set executor to single"
        )
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:
        raise D2RosError(
            "parameter executor is 'events', but this rclpy has no events executor (there is one "
            "from Kilted on); set executor to single"
        ) from None
    return EventsExecutor()


def spin(executor: Executor) -> None:
    """Call the node back until ROS is shut down."""
    if isinstance(executor, SingleThreadedExecutor):
        executor.spin()
        return
    # Without a deadline the events executor of rclpy 9.1.2 waits for ever, busily.
    while executor.context.ok():
        executor.spin_once(timeout_sec=DEADLINE)
