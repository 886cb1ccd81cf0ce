"""Everything that imports rclpy, cv_bridge or a message package."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from d2_ros.errors import D2RosError

_NEEDED = ("rclpy", "sensor_msgs", "std_srvs", "diagnostic_msgs", "rosgraph_msgs", "cv_bridge")


def require_ros() -> None:
    """Refuse to go on where ROS 2 is missing.

    Raises
    ------
    D2RosError
        If rclpy, cv_bridge or a message package cannot be imported.
    """
    try:
        for name in _NEEDED:
            import_module(name)
    except ImportError as error:
        raise D2RosError(
            f"this command needs ROS 2 ({error}); `d2-ros doctor` says how to install it"
        ) from None


def start_ros(**options: Any) -> None:
    """Start ROS in this process, as ``rclpy.init`` with these options.

    Raises
    ------
    D2RosError
        If it does not start, as where its logs cannot be written.
    """
    import rclpy

    try:
        rclpy.init(**options)
    except RuntimeError as error:
        rclpy.try_shutdown(context=options.get("context"))
        raise D2RosError(f"ROS does not start: {why_not(error)}") from None


def why_not(error: Exception) -> str:
    """Return the reason that ROS gives, without the places in its sources, and the remedy."""
    reason = str(error).split(", at /")[0].strip()
    if "log" in reason and "director" in reason:
        reason += "; set ROS_LOG_DIR to a folder that can be written to"
    return reason
