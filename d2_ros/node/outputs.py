"""The topics that one camera's results go out on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from cv_bridge import CvBridge
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, PointCloud, PointCloud2
from std_msgs.msg import Header

from d2_ros.camera import Camera
from d2_ros.config import OutputConfig
from d2_ros.node.messages import byte_array, make_cloud, make_vins_cloud
from d2_ros.node.overlay import TRAIL_FRAMES, draw_overlay, encode_jpeg
from d2_ros.records import FrameResult, pack_descriptors, split_stamp
from d2_ros.vins import VinsTracks

OUTPUT_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


class Outputs:
    """Publishers of one camera, under ``~/<camera>/``.

    Parameters
    ----------
    node, camera, config
        Who publishes, for which camera, and which topics there are.
    views
        Cameras whose observations the topics list: 2 for the left one of a stereo pair, which has
        ``stereo`` then.
    """

    def __init__(
        self, node: LifecycleNode, camera: str, config: OutputConfig, views: int = 1
    ) -> None:
        def advertise(message_type: type, topic: str) -> Any:
            return node.create_lifecycle_publisher(message_type, f"~/{camera}/{topic}", OUTPUT_QOS)

        self._node = node
        self._descriptor_kind = config.descriptors
        self._features = advertise(PointCloud2, "features")
        self._matches = advertise(PointCloud2, "matches")
        self._tracks = advertise(PointCloud2, "tracks")
        self._overlay = advertise(Image, "overlay")
        self._overlay_jpeg = advertise(CompressedImage, "overlay/compressed")
        self._publishers = [
            self._features, self._matches, self._tracks, self._overlay, self._overlay_jpeg
        ]  # fmt: skip
        if self._descriptor_kind != "none":
            self._descriptors = advertise(PointCloud2, "descriptors")
            self._publishers.append(self._descriptors)
        self._stereo = advertise(PointCloud2, "stereo") if views == 2 else None
        if self._stereo is not None:
            self._publishers.append(self._stereo)
        self._vins: VinsTracks | None = None
        if config.vins_format != "none":
            self._vins = VinsTracks(config.vins_format, cameras=views)
            self._feature_tracks = advertise(PointCloud, "feature_tracks")
            self._publishers.append(self._feature_tracks)
        self._bridge = CvBridge()
        self._past: deque[NDArray[np.void]] = deque(maxlen=TRAIL_FRAMES)

    def publish(
        self,
        header: Header,
        image: NDArray[Any],
        result: FrameResult,
        camera: Camera | None,
        right: NDArray[np.void] | None = None,
    ) -> None:
        """Send everything that `result` holds.

        `header` is the image's own; `right` is what the right camera of a stereo pair sees of the
        features, ``records.STEREO``.
        """
        if self._vins is not None:
            content = self._vins.update(result.stamp, result.features, camera, right)
            if content is not None:
                self._feature_tracks.publish(make_vins_cloud(header, content))
        if self._descriptor_kind != "none":
            rows = pack_descriptors(result.descriptors, self._descriptor_kind)
            self._descriptors.publish(make_cloud(header, rows))
        self._matches.publish(make_cloud(header, result.matches))
        if result.tracks is not None:
            self._tracks.publish(make_cloud(_header_of(result.tracks_stamp, header), result.tracks))
        if self._stereo is not None and right is not None:
            self._stereo.publish(make_cloud(header, right))
        self._features.publish(make_cloud(header, result.features))
        self._past.append(result.features)
        self._publish_overlay(header, image, result)

    def _publish_overlay(self, header: Header, image: NDArray[Any], result: FrameResult) -> None:
        """Draw only for somebody who looks; drawing costs more than it does to send."""
        wants_image = self._overlay.get_subscription_count() > 0
        wants_jpeg = self._overlay_jpeg.get_subscription_count() > 0
        if not (wants_image or wants_jpeg):
            return
        drawing = draw_overlay(image, list(self._past), result)
        if wants_image:
            message = self._bridge.cv2_to_imgmsg(drawing, encoding="bgr8")
            message.header = header
            self._overlay.publish(message)
        if wants_jpeg:
            self._overlay_jpeg.publish(
                CompressedImage(header=header, format="jpeg", data=byte_array(encode_jpeg(drawing)))
            )

    def forget(self) -> None:
        """Drop the trails and the ids for VINS (the front-end was reset)."""
        self._past.clear()
        if self._vins is not None:
            self._vins.reset()

    def destroy(self) -> None:
        """Remove the publishers from the node."""
        destroy_publishers(self._node, self._publishers)


def destroy_publishers(node: LifecycleNode, publishers: Iterable[Any]) -> None:
    """Remove lifecycle publishers from a node."""
    # Without the newer function the node would keep a list of dead publishers.
    destroy = getattr(node, "destroy_lifecycle_publisher", node.destroy_publisher)
    for publisher in publishers:
        destroy(publisher)


def _header_of(stamp: int | None, header: Header) -> Header:
    """The header of a keyframe of that stamp, from that of a frame at hand; None: its own."""
    if stamp is None:
        return header
    sec, nanosec = split_stamp(stamp)
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=header.frame_id)
