"""The messages that go into a bag, built without ROS; the node's twins are in ``node``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

from d2_ros.camera import Camera, Rectification
from d2_ros.records import point_fields, split_stamp
from d2_ros.vins import VinsPoints

TYPES = get_typestore(Stores.ROS2_HUMBLE)
"""Definitions of the common message types, which are the same in all current distributions."""


def _message(msgtype: str, **fields: Any) -> Any:
    return TYPES.types[msgtype](**fields)


def _octets(data: NDArray[Any]) -> NDArray[np.uint8]:
    return np.frombuffer(data.tobytes(), np.uint8)


def header(stamp: int, frame_id: str) -> Any:
    """Return a ``std_msgs/msg/Header`` for integer nanoseconds and a frame."""
    sec, nanosec = split_stamp(stamp)
    time = _message("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
    return _message("std_msgs/msg/Header", stamp=time, frame_id=frame_id)


def stamp_of(message: Any) -> int:
    """Return the time in a message's header, integer nanoseconds."""
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


def cloud(stamp: int, frame_id: str, rows: NDArray[np.void]) -> Any:
    """Return rows of :mod:`d2_ros.records` as an unorganised, tightly packed PointCloud2."""
    return _message(
        "sensor_msgs/msg/PointCloud2",
        header=header(stamp, frame_id),
        height=1,
        width=len(rows),
        fields=[
            _message(
                "sensor_msgs/msg/PointField",
                name=name,
                offset=offset,
                datatype=datatype,
                count=count,
            )
            for name, offset, datatype, count in point_fields(rows.dtype)
        ],
        is_bigendian=False,
        point_step=rows.dtype.itemsize,
        row_step=rows.nbytes,
        data=_octets(rows),
        # Without a calibration x, y and z are NaN, which is what "not dense" says.
        is_dense="x" not in (rows.dtype.names or ()) or bool(np.isfinite(rows["x"]).all()),
    )


def vins_cloud(stamp: int, frame_id: str, content: VinsPoints) -> Any:
    """Return the message of the ``feature_tracks`` topic, a PointCloud."""
    return _message(
        "sensor_msgs/msg/PointCloud",
        header=header(stamp, frame_id),
        points=[
            _message("geometry_msgs/msg/Point32", x=x, y=y, z=z)
            for x, y, z in content.points.tolist()
        ],
        channels=[
            _message("sensor_msgs/msg/ChannelFloat32", name=name, values=values)
            for name, values in zip(content.names, content.channels, strict=True)
        ],
    )


def image(stamp: int, frame_id: str, pixels: NDArray[Any]) -> Any:
    """Return a gray or BGR image, 8 or 16 bit."""
    depth = 8 * pixels.itemsize
    return _message(
        "sensor_msgs/msg/Image",
        header=header(stamp, frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=f"bgr{depth}" if pixels.ndim == 3 else f"mono{depth}",
        is_bigendian=0,
        step=pixels.nbytes // pixels.shape[0],
        data=_octets(pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)),
    )


def camera_info(
    stamp: int,
    frame_id: str,
    camera: Camera | None,
    width: int,
    height: int,
    rectified: Rectification | None = None,
) -> Any:
    """Return the calibration of images of this size; R and P as a stereo pair has them, or 1 and K.

    Without a camera K is zero, which means uncalibrated, and the message tells the size only.
    """
    matrix = np.zeros((3, 3)) if camera is None else camera.matrix
    turn, projection = rectified or (np.eye(3), np.column_stack([matrix, np.zeros(3)]))
    return _message(
        "sensor_msgs/msg/CameraInfo",
        header=header(stamp, frame_id),
        height=height,
        width=width,
        distortion_model="" if camera is None else camera.model,
        d=np.zeros(0) if camera is None else camera.distortion,
        k=matrix.ravel(),
        r=turn.ravel(),
        p=projection.ravel(),
        binning_x=0,
        binning_y=0,
        roi=_message(
            "sensor_msgs/msg/RegionOfInterest",
            x_offset=0,
            y_offset=0,
            height=0,
            width=0,
            do_rectify=False,
        ),
    )


def imu(stamp: int, frame_id: str, values: NDArray[np.float64]) -> Any:
    """Return angular velocity and specific force, ``(6,)``, as an Imu that knows no orientation."""
    turn, force = (
        _message("geometry_msgs/msg/Vector3", **dict(zip("xyz", part.tolist(), strict=True)))
        for part in (values[:3], values[3:])
    )
    return _message(
        "sensor_msgs/msg/Imu",
        header=header(stamp, frame_id),
        orientation=_message("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
        orientation_covariance=np.array([-1.0, *[0.0] * 8]),
        angular_velocity=turn,
        angular_velocity_covariance=np.zeros(9),
        linear_acceleration=force,
        linear_acceleration_covariance=np.zeros(9),
    )


def pose(stamp: int, frame_id: str, matrix: NDArray[np.float64]) -> Any:
    """Return a ``(4, 4)`` pose in `frame_id` as a PoseStamped."""
    where = _pose(matrix)
    return _message("geometry_msgs/msg/PoseStamped", header=header(stamp, frame_id), pose=where)


def pose_with_covariance(
    stamp: int, frame_id: str, matrix: NDArray[np.float64], covariance: NDArray[np.float64]
) -> Any:
    """Return a ``(4, 4)`` pose in `frame_id`, and its ``(6, 6)`` covariance, with a stamp."""
    return _message(
        "geometry_msgs/msg/PoseWithCovarianceStamped",
        header=header(stamp, frame_id),
        pose=_message(
            "geometry_msgs/msg/PoseWithCovariance",
            pose=_pose(matrix),
            covariance=covariance.ravel(),
        ),
    )


def _pose(matrix: NDArray[np.float64]) -> Any:
    position = dict(zip("xyz", matrix[:3, 3].tolist(), strict=True))
    quaternion = Rotation.from_matrix(matrix[:3, :3]).as_quat().tolist()
    return _message(
        "geometry_msgs/msg/Pose",
        position=_message("geometry_msgs/msg/Point", **position),
        orientation=_message(
            "geometry_msgs/msg/Quaternion", **dict(zip("xyzw", quaternion, strict=True))
        ),
    )
