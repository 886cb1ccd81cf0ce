"""The topics of the mapper, in the axes of REP 103."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from geometry_msgs.msg import (
    PoseStamped,
    Transform,
    TransformStamped,
    Vector3,
)
from nav_msgs.msg import Odometry, Path
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from d2_ros.mapper.geometry import inverse
from d2_ros.mapper.mapper import Mapper
from d2_ros.node.messages import make_cloud, make_header, make_pose, make_quaternion
from d2_ros.node.outputs import OUTPUT_QOS
from d2_ros.records import landmark_rows

T_MAP_WORLD = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], np.float64)
"""The map is the mapper's world, the first keyframe, with x forward, y left and z up."""


class MapperOutputs:
    """Publishers of ``~/odometry``, ``~/path``, ``~/landmarks``, and of /tf where there is tf2.

    Parameters
    ----------
    node
        Who publishes.
    frame
        Of the map.
    odom_frame
        Of the odometry: another one where loops put the map right, else the same.
    path_length
        Most poses of the path.
    """

    def __init__(self, node: Node, frame: str, odom_frame: str, path_length: int) -> None:
        self._frame, self._odom_frame, self._path_length = frame, odom_frame, path_length
        self._odometry = node.create_publisher(Odometry, "~/odometry", OUTPUT_QOS)
        self._path = node.create_publisher(Path, "~/path", OUTPUT_QOS)
        self._landmarks = node.create_publisher(PointCloud2, "~/landmarks", OUTPUT_QOS)
        try:  # PyPI has no tf2_msgs; every ROS distribution does
            self._tf_message: Any = importlib.import_module("tf2_msgs.msg").TFMessage
        except ImportError:
            self._tf_message = None
        else:
            self._tf = node.create_publisher(self._tf_message, "/tf", 100)

    def publish_pose(
        self,
        stamp: int,
        camera_frame: str,
        T_odom_camera: NDArray[Any],
        T_map_odom: NDArray[Any],
    ) -> None:
        """Send where the camera was at `stamp`, and where its world is on the map."""
        header, pose = make_header(stamp, self._odom_frame), T_MAP_WORLD @ T_odom_camera
        odometry = Odometry(header=header, child_frame_id=camera_frame)
        odometry.pose.pose = make_pose(pose)
        self._odometry.publish(odometry)
        if self._tf_message is not None:
            transforms = [_transform(header, camera_frame, pose)]
            if self._odom_frame != self._frame:
                on_map = T_MAP_WORLD @ T_map_odom @ inverse(T_MAP_WORLD)
                header = make_header(stamp, self._frame)
                transforms.append(_transform(header, self._odom_frame, on_map))
            self._tf.publish(self._tf_message(transforms=transforms))

    def publish_map(self, stamp: int, mapper: Mapper) -> None:
        """Send the keyframes' path, and the landmarks while somebody listens."""
        header, correction = make_header(stamp, self._frame), mapper.loops.graph.correction
        keyframes = list(mapper.trajectory.keyframes.items())[-self._path_length :]
        stamps, places = zip(*keyframes, strict=True)
        corrected = T_MAP_WORLD @ correction.poses(np.array(stamps, np.int64), np.stack(places))
        poses = [
            PoseStamped(header=make_header(at, self._frame), pose=make_pose(pose))
            for at, pose in zip(stamps, corrected, strict=True)
        ]
        self._path.publish(Path(header=header, poses=poses))
        if self._landmarks.get_subscription_count():
            marks, turn = mapper.loops.place(mapper.landmarks), T_MAP_WORLD[:3, :3]
            covariances = turn @ marks.covariances @ turn.T
            rows = landmark_rows(marks.ids, marks.places @ turn.T, covariances)
            self._landmarks.publish(make_cloud(header, rows))


def _transform(header: Header, child: str, pose: NDArray[np.float64]) -> TransformStamped:
    moved = Transform(translation=_vector(pose), rotation=make_quaternion(pose))
    return TransformStamped(header=header, child_frame_id=child, transform=moved)


def _vector(pose: NDArray[np.float64]) -> Vector3:
    x, y, z = pose[:3, 3].tolist()
    return Vector3(x=x, y=y, z=z)
