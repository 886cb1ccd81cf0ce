"""Everything that imports rclpy, cv_bridge or a message package."""

from importlib import import_module

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
