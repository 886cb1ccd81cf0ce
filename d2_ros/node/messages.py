"""NumPy rows and images <-> ROS messages."""

from __future__ import annotations

import array

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Point32, Pose, PoseWithCovarianceStamped, Quaternion
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import (
    CameraInfo,
    ChannelFloat32,
    CompressedImage,
    Image,
    PointCloud,
    PointCloud2,
    PointField,
)
from std_msgs.msg import Header

from d2_ros.camera import Camera, from_calibration
from d2_ros.errors import D2RosError
from d2_ros.records import point_fields, split_stamp
from d2_ros.sources.images import decode_compressed, decode_image
from d2_ros.vins import VinsPoints


def byte_array(data: NDArray[np.generic]) -> array.array[int]:
    """Return the bytes of `data` in the one type that rclpy sets without a look at each item."""
    return array.array("B", np.ascontiguousarray(data).tobytes())


def stamp_of(header: Header) -> int:
    """Return the header's time in integer nanoseconds."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def make_header(stamp: int, frame_id: str) -> Header:
    """Return a header for integer nanoseconds and a frame."""
    sec, nanosec = split_stamp(stamp)
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id)


def make_cloud(header: Header, rows: NDArray[np.void]) -> PointCloud2:
    """Return rows of :mod:`d2_ros.records` as an unorganised, tightly packed cloud."""
    return PointCloud2(
        header=header,
        height=1,
        width=len(rows),
        fields=[
            PointField(name=name, offset=offset, datatype=datatype, count=count)
            for name, offset, datatype, count in point_fields(rows.dtype)
        ],
        is_bigendian=False,
        point_step=rows.dtype.itemsize,
        row_step=rows.dtype.itemsize * len(rows),
        data=byte_array(rows),
        # Without a calibration x, y and z are NaN, which is what "not dense" says.
        is_dense="x" not in (rows.dtype.names or ()) or bool(np.isfinite(rows["x"]).all()),
    )


def make_vins_cloud(header: Header, content: VinsPoints) -> PointCloud:
    """Return the message of the ``feature_tracks`` topic."""
    return PointCloud(
        header=header,
        points=[Point32(x=x, y=y, z=z) for x, y, z in content.points.tolist()],
        channels=[
            ChannelFloat32(name=name, values=array.array("f", values.tobytes()))
            for name, values in zip(content.names, content.channels, strict=True)
        ],
    )


def make_pose(matrix: NDArray[np.float64]) -> Pose:
    """Return a ``(4, 4)`` pose."""
    x, y, z = matrix[:3, 3].tolist()
    return Pose(position=Point(x=x, y=y, z=z), orientation=make_quaternion(matrix))


def make_quaternion(matrix: NDArray[np.float64]) -> Quaternion:
    """Return the rotation of a ``(4, 4)`` pose."""
    x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat().tolist()
    return Quaternion(x=x, y=y, z=z, w=w)


def make_pose_with_covariance(
    header: Header, matrix: NDArray[np.float64], covariance: NDArray[np.float64]
) -> PoseWithCovarianceStamped:
    """Return a ``(4, 4)`` pose in the header's frame, with its ``(6, 6)`` covariance."""
    message = PoseWithCovarianceStamped(header=header)
    message.pose.pose = make_pose(matrix)
    message.pose.covariance = covariance.ravel()
    return message


def read_image(message: Image | CompressedImage) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return the pixels, ``(H, W)`` gray or ``(H, W, 3)`` BGR.

    Raises
    ------
    D2RosError
        If the encoding is unknown or the data does not hold the stated image.
    """
    if isinstance(message, CompressedImage):
        return decode_compressed(message.format, bytes(message.data))
    return decode_image(
        message.encoding,
        message.height,
        message.width,
        message.step,
        message.is_bigendian,
        message.data,
    )


def make_image(header: Header, image: NDArray[np.uint8] | NDArray[np.uint16]) -> Image:
    """Return a gray or BGR image, 8 or 16 bit, as a message."""
    depth = 8 * image.itemsize
    return Image(
        header=header,
        height=image.shape[0],
        width=image.shape[1],
        encoding=f"bgr{depth}" if image.ndim == 3 else f"mono{depth}",
        is_bigendian=False,
        step=image.nbytes // image.shape[0],
        data=byte_array(image.astype(image.dtype.newbyteorder("<"), copy=False)),
    )


def read_camera(message: CameraInfo, rectified: bool) -> Camera | None:
    """Return the camera that `message` describes; None where all of K is zero.

    REP-104 says that an uncalibrated driver sends zeros.

    Raises
    ------
    D2RosError
        If the calibration is unusable.
    """
    if not np.any(message.k):
        return None
    roi = message.roi
    try:
        return from_calibration(
            message.width,
            message.height,
            message.distortion_model,
            message.k,
            message.d,
            message.p,
            binning=(message.binning_x, message.binning_y),
            roi=(roi.x_offset, roi.y_offset, roi.width, roi.height),
            rectified=rectified,
        )
    except D2RosError as error:
        raise D2RosError(f"camera_info is unusable: {error}") from None


def make_camera_info(header: Header, camera: Camera | None, width: int, height: int) -> CameraInfo:
    """Return the calibration of images of this size, not rectified (R = 1, P = K).

    Without a camera K is zero, which means uncalibrated, and the message tells the size only.
    """
    message = CameraInfo(header=header, width=width, height=height, r=np.eye(3).ravel())
    if camera is not None:
        message.distortion_model = camera.model
        message.d = camera.distortion.tolist()
        message.k = camera.matrix.ravel()
        message.p = np.column_stack([camera.matrix, np.zeros(3)]).ravel()
    return message
