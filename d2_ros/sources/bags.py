"""The frames of one camera in a bag."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera, from_calibration, on_pair
from d2_ros.errors import D2RosError
from d2_ros.sources.bagfiles import Bag, until_damage
from d2_ros.sources.bagscan import Stored
from d2_ros.sources.base import Frame, UnusableFrame
from d2_ros.sources.images import decode_compressed, decode_image
from d2_ros.sources.messages import stamp_of
from d2_ros.sources.trajectories import interpolate, pose_matrices

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
POSE = "geometry_msgs/msg/PoseStamped"
POSE_TOPIC = "/ground_truth/pose"
"""Where ``d2-ros convert`` writes the known ``T_world_camera``."""

_LOGGER = logging.getLogger(__name__)


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
        If the bag is unreadable or the topic is not clear; while iterating, in place of a frame
        whose image or calibration is unusable (:class:`UnusableFrame`), and at the end if the bag
        is damaged.
    """

    def __init__(self, name: str, paths: Sequence[Path], image_topic: str | None) -> None:
        self.name = name
        self._bag = Bag(paths)
        self.image_topic = self._pick(image_topic)
        path = PurePosixPath(self.image_topic)
        compressed = self._bag.topics[self.image_topic][0] == COMPRESSED
        raw = path.parent if compressed and path.name == "compressed" else path
        self._rectified = raw.name.startswith("image_rect")
        self._info_topic = str(raw.parent / "camera_info")
        self._look_for_calibration()

    def _pick(self, asked: str | None) -> str:
        topics = self._bag.topics
        images = sorted(
            name for name, (kind, count) in topics.items() if kind in (IMAGE, COMPRESSED) and count
        )
        if not images:
            self._bag.check()
            held = ", ".join(sorted(name for name, (_, count) in topics.items() if count))
            raise D2RosError(
                f"bag {self.name} has no images; record an image topic "
                f"(it holds {held or 'no messages'})"
            )
        if asked is None and len(images) == 1:
            return images[0]
        if asked not in images:
            problem = f"no images on {asked}" if asked else f"{len(images)} image topics"
            raise D2RosError(
                f"bag {self.name} has {problem}; choose with --image-topic: {', '.join(images)}"
            )
        return asked

    def _look_for_calibration(self) -> None:
        """Warn where the images' calibration may lie under a name at which nobody looks."""
        topics = self._bag.topics.items()
        found = sorted(name for name, (kind, count) in topics if kind == CAMERA_INFO and count)
        if found and self._info_topic not in found:
            _LOGGER.warning(
                "bag %s has no %s beside %s: all bearings will be NaN; it has camera_info on %s, "
                "record that under the name beside the images if it is theirs",
                self.name, self._info_topic, self.image_topic, ", ".join(found),
            )  # fmt: skip

    def __len__(self) -> int:
        """Return the number of images, of a damaged bag those that are there."""
        return self._bag.topics[self.image_topic][1]

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in the order of recording."""
        infos = until_damage(self._bag.messages([self._info_topic]))
        newest: list[Any] = [next((info for _, info in infos), None)]

        def frame_of(item: Stored) -> Frame | None:
            if item.topic == self.image_topic:
                return self._frame(item.message(), newest[0], item.time)
            try:
                newest[0] = item.message()
            except D2RosError as error:
                newest[0] = error  # which the images that it belongs to will tell
            return None

        stored = self._bag.stored([self.image_topic, self._info_topic])
        # Unlike a generator, map goes on with the next item after an error.
        return filter(None, map(frame_of, stored))

    def _frame(self, message: Any, info: Any, recorded: int) -> Frame:
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
            camera = self._camera(info, image.shape[1], image.shape[0])
            return Frame(stamp, image, camera, message.header.frame_id, recorded)
        except D2RosError as error:
            raise UnusableFrame(f"{self.image_topic} at {stamp} ns: {error}") from None

    def _camera(self, info: Any, width: int, height: int) -> Camera | None:
        """Return the camera of images of this size; None where it is not calibrated."""
        if isinstance(info, D2RosError):
            raise info
        if info is None:
            return None
        try:
            return camera_of(info, width, height, self._rectified)
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

    def mount(self) -> NDArray[np.float64] | None:
        """Where the camera is on its stereo pair, whose body is the rectified left camera."""
        infos = until_damage(self._bag.messages([self._info_topic]))
        info = next((info for _, info in infos), None)
        return None if info is None else mount_of(info, self._rectified)

    def clocks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Stamps of the images and of the known poses, ns."""
        return self._stamps(self.image_topic), self._stamps(POSE_TOPIC)

    def _stamps(self, topic: str) -> NDArray[np.int64]:
        stored = until_damage(self._bag.stored([topic]))
        return np.array([_stamp(item) for item in stored], np.int64)


def camera_of(info: Any, width: int, height: int, rectified: bool = False) -> Camera | None:
    """Return the camera of a camera_info, ROS 1's or 2's; None where K is zero: not calibrated.

    Parameters
    ----------
    info
        The message.
    width, height
        Of the images, px: what drivers that leave ``width`` and ``height`` at zero mean.
    rectified
        Images are rectified.

    Raises
    ------
    D2RosError
        If the calibration is unusable.
    """
    # ROS 1 spells them with capitals.
    k, d, p = (getattr(info, key if hasattr(info, key) else key.upper()) for key in "kdp")
    if not np.any(k):
        return None
    roi, binning = info.roi, (info.binning_x, info.binning_y)
    return _built(
        info.width or width * max(info.binning_x, 1),
        info.height or height * max(info.binning_y, 1),
        info.distortion_model,
        tuple(map(float, k)),
        tuple(map(float, d)),
        tuple(map(float, p)),
        binning=binning,
        roi=(roi.x_offset, roi.y_offset, roi.width, roi.height),
        rectified=rectified,
    )


def mount_of(info: Any, rectified: bool) -> NDArray[np.float64] | None:
    """``(4, 4)`` pose of a camera on its stereo pair, by R and P of a camera_info."""
    r, p = (getattr(info, key if hasattr(info, key) else key.upper()) for key in "rp")
    return on_pair(r, p, rectified)


def _stamp(item: Stored) -> int:
    """Return the stamp of an image; of one that cannot be decoded, when it was recorded."""
    try:
        return stamp_of(item.message())
    except D2RosError:
        return item.time


# Nearly all messages of a camera are the same: the same camera stands for them.
_built = lru_cache(maxsize=16)(from_calibration)
