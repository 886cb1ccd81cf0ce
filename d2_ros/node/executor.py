"""What calls the node back: rclpy's executor, or the events executor where rclpy has it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor

from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.node import why_not

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


def run_node(
    name: str, make: Callable[[], tuple[Any, Executor]], args: list[str] | None = None
) -> int:
    """Run a node until it is asked to end; it is closed by its ``close()``.

    Parameters
    ----------
    name
        Of the executable, for messages.
    make
        Makes the node and the executor that calls it back.
    args
        Of the command line.

    Returns
    -------
    The exit code: 2 where a parameter or an argument is refused.
    """
    try:
        rclpy.init(args=args)
        node, executor = make()
    # rclpy raises RuntimeError for bad arguments, another for its own parameters, and one for what
    # is no text.
    except (D2RosError, ParameterException, RuntimeError, UnicodeError) as error:
        print(f"{name}: {' '.join(why_not(error).split())}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor.add_node(node)
    try:
        spin(executor)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:
        if rclpy.ok():
            raise  # else a signal came while a callback was publishing
    finally:
        # A terminal and ros2 launch both pass Ctrl-C on; the second one must not break this off.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        node.close()
        rclpy.try_shutdown()  # restores Python's own handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return 0
