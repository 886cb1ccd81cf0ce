"""The frames of one camera in a bag."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera, from_calibration
from d2_ros.errors import D2RosError
from d2_ros.sources.bagfiles import open_bag, until_damage
from d2_ros.sources.base import Frame
from d2_ros.sources.images import decode_compressed, decode_image
from d2_ros.sources.messages import stamp_of
from d2_ros.sources.trajectories import interpolate, pose_matrices

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
POSE = "geometry_msgs/msg/PoseStamped"
POSE_TOPIC = "/ground_truth/pose"
"""Where ``d2-ros convert`` writes the known ``T_world_camera``."""


class BagSource:
    """Images of one topic, in the order of recording, stamped by their own headers.

    The calibration is that of the ``camera_info`` topic beside the images, the newest message at
    each image, and the first one before that. Topics named ``image_rect*`` hold rectified images.

    Parameters
    ----------
    name
        The bag's path, for reports.
    paths
        One rosbag2 folder, or bag files.
    image_topic
        The topic to read; None if there is only one.

    Raises
    ------
    D2RosError
        If the bag is unreadable or the topic is not clear; while iterating, where the bag is
        damaged or an image or calibration is unusable.
    """

    def __init__(self, name: str, paths: Sequence[Path], image_topic: str | None) -> None:
        self.name = name
        self._bag = open_bag(paths)
        self.image_topic = self._pick(image_topic)
        path = PurePosixPath(self.image_topic)
        compressed = self._bag.topics[self.image_topic][0] == COMPRESSED
        raw = path.parent if compressed and path.name == "compressed" else path
        self._rectified = raw.name.startswith("image_rect")
        self._info_topic = str(raw.parent / "camera_info")

    def _pick(self, asked: str | None) -> str:
        counts = {
            topic: count
            for topic, (kind, count) in sorted(self._bag.topics.items())
            if kind in (IMAGE, COMPRESSED) and count
        }
        if not counts:
            raise D2RosError(f"bag {self.name} has no images; record an image topic")
        if asked is None and len(counts) == 1:
            return next(iter(counts))
        if asked not in counts:
            problem = f"no images on {asked}" if asked else f"{len(counts)} image topics"
            raise D2RosError(
                f"bag {self.name} has {problem}; choose with --image-topic: {', '.join(counts)}"
            )
        return asked

    def __len__(self) -> int:
        """Return the number of images, of a damaged bag the readable ones."""
        return self._bag.topics[self.image_topic][1]

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in the order of recording."""
        infos = until_damage(self._bag.messages([self._info_topic]))
        camera = next((self._camera(info) for _, info in infos), None)
        for topic, message in self._bag.messages([self.image_topic, self._info_topic]):
            if topic == self._info_topic:
                camera = self._camera(message)
            else:
                yield self._frame(message, camera)

    def _frame(self, message: Any, camera: Camera | None) -> Frame:
        stamp = stamp_of(message)
        try:
            if message.__msgtype__ == COMPRESSED:
                image = decode_compressed(message.format, message.data)
            else:
                image = decode_image(
                    message.encoding,
                    message.height,
                    message.width,
                    message.step,
                    message.is_bigendian,
                    message.data,
                )
            return Frame(stamp, image, camera, message.header.frame_id)
        except D2RosError as error:
            raise D2RosError(f"{self.image_topic} at {stamp} ns: {error}") from None

    def _camera(self, info: Any) -> Camera | None:
        """Return the camera of a message; None where K is zero, which means uncalibrated."""
        # ROS 1 spells them with capitals.
        k, d, p = (getattr(info, key if hasattr(info, key) else key.upper()) for key in "kdp")
        if not np.any(k):
            return None
        roi = info.roi
        try:
            return from_calibration(
                info.width,
                info.height,
                info.distortion_model,
                k,
                d,
                p,
                binning=(info.binning_x, info.binning_y),
                roi=(roi.x_offset, roi.y_offset, roi.width, roi.height),
                rectified=self._rectified,
            )
        except D2RosError as error:
            raise D2RosError(f"{self._info_topic} is unusable: {error}") from None

    def poses(self) -> NDArray[np.float64] | None:
        """Ground truth from :data:`POSE_TOPIC`, in between the known stamps interpolated."""
        if self._bag.topics.get(POSE_TOPIC, ("", 0))[0] != POSE:
            return None
        messages = [message for _, message in until_damage(self._bag.messages([POSE_TOPIC]))]
        if not messages:
            return None
        positions = [[getattr(item.pose.position, key) for key in "xyz"] for item in messages]
        quaternions = [[getattr(item.pose.orientation, k) for k in "xyzw"] for item in messages]
        return interpolate(
            np.array([stamp_of(message) for message in messages], np.int64),
            pose_matrices(positions, quaternions),
            self._stamps(self.image_topic),
        )

    def clocks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Stamps of the images and of the known poses, ns."""
        return self._stamps(self.image_topic), self._stamps(POSE_TOPIC)

    def _stamps(self, topic: str) -> NDArray[np.int64]:
        messages = until_damage(self._bag.messages([topic]))
        return np.array([stamp_of(message) for _, message in messages], np.int64)
