"""The node's outputs without the node, to time what publishing takes."""

from __future__ import annotations

import rclpy
from builtin_interfaces.msg import Time
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from d2_ros.config import OutputConfig
from d2_ros.node import start_ros
from d2_ros.node.outputs import Outputs
from d2_ros.node.process import isolate
from d2_ros.records import FrameResult, split_stamp
from d2_ros.sources import Frame


class Publishing:
    """Context manager with the topics of one camera, in a ROS graph of their own.

    Parameters
    ----------
    config
        Which topics there are.
    """

    def __init__(self, config: OutputConfig) -> None:
        self._config = config

    def __enter__(self) -> Publishing:
        isolate()
        self._context = Context()
        start_ros(args=[], context=self._context)
        self._node = LifecycleNode("d2_benchmark", context=self._context)
        self._outputs = Outputs(self._node, "camera", self._config)
        self._node.trigger_configure()
        self._node.trigger_activate()
        return self

    def __exit__(self, *_: object) -> None:
        self._outputs.destroy()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Publish everything that `result` holds."""
        sec, nanosec = split_stamp(frame.stamp)
        header = Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame.frame_id)
        self._outputs.publish(header, frame.image, result, frame.camera)
