"""Publish the frames of a source, calibration and time over DDS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rclpy
from builtin_interfaces.msg import Time
from rclpy.duration import Duration
from rclpy.exceptions import NameValidationException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from d2_ros.errors import D2RosError
from d2_ros.node import start_ros
from d2_ros.node.messages import make_camera_info, make_header, make_image
from d2_ros.records import split_stamp
from d2_ros.sources import Frame

# A reliable publisher connects to reliable and to best-effort subscribers alike; with keep all
# no frame is replaced before every reliable subscriber has it.
IMAGE_QOS = QoSProfile(history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE)

# Latched: a subscriber that is matched a moment after the first frame still learns of the
# calibration, where a best-effort one would miss it and publish that frame without bearings.
INFO_QOS = QoSProfile(
    depth=10,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)

CLOCK_PERIOD = 0.025
"""Seconds of real time between two messages on /clock while the publisher waits."""

FLUSH_SECONDS = 5.0

LONGEST_GAP = 10.0
"""Seconds of the recording that are waited for between two frames."""


class SourcePublisher(Node):
    """Publishes ``<camera>/image_raw``, ``<camera>/camera_info`` and ``/clock``."""

    def __init__(self, camera: str = "camera") -> None:
        super().__init__("d2_player")
        self._images = self.create_publisher(Image, f"{camera}/image_raw", IMAGE_QOS)
        self._infos = self.create_publisher(CameraInfo, f"{camera}/camera_info", INFO_QOS)
        self._clock_ticks = self.create_publisher(Clock, "/clock", 10)

    def connected(self) -> bool:
        """Whether somebody has subscribed to images and calibration."""
        publishers = (self._images, self._infos)
        return all(publisher.get_subscription_count() > 0 for publisher in publishers)

    def tick(self, stamp: int) -> None:
        """Publish the time, integer nanoseconds."""
        sec, nanosec = split_stamp(stamp)
        self._clock_ticks.publish(Clock(clock=Time(sec=sec, nanosec=nanosec)))

    def publish(self, frame: Frame) -> None:
        """Publish one frame: time, calibration, image."""
        header = make_header(frame.stamp, frame.frame_id)
        height, width = frame.image.shape[:2]
        self.tick(frame.stamp)
        self._infos.publish(make_camera_info(header, frame.camera, width, height))
        self._images.publish(make_image(header, frame.image))

    def flush(self) -> bool:
        """Wait until every reliable subscriber has every frame; False if that takes too long."""
        return bool(self._images.wait_for_all_acked(Duration(seconds=FLUSH_SECONDS)))


@contextmanager
def open_publisher(camera: str) -> Iterator[SourcePublisher]:
    """Give a publisher in a process that has no ROS yet; both end with the block.

    Raises
    ------
    D2RosError
        If ROS does not start or `camera` cannot begin a topic's name.
    """
    # Ctrl-C stays a KeyboardInterrupt, so that playing ends between two messages.
    start_ros(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        publisher = _publisher(camera)
        try:
            yield publisher
        finally:
            publisher.destroy_node()
    finally:
        rclpy.try_shutdown()


def _publisher(camera: str) -> SourcePublisher:
    try:
        return SourcePublisher(camera)
    # Whatever rclpy makes of a name: there are four ways in which one can be wrong.
    except (NameValidationException, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise D2RosError(
            f"--camera is {camera!r}; it must be the beginning of a topic's name, such as camera "
            f"or /robot/left ({reason})"
        ) from None


class Pace:
    """Real time for a recording's own time.

    It goes by when frames were recorded: their stamps may jump where a driver has not set them.
    Longer gaps than :data:`LONGEST_GAP` are cut to that and told of.

    Parameters
    ----------
    rate
        How many times faster than recorded.
    tick
        Called with the frames' time (ns) at least every `CLOCK_PERIOD` while waiting.
    tell
        Called with a sentence for each gap that is cut.
    """

    def __init__(
        self, rate: float, tick: Callable[[int], None], tell: Callable[[str], None]
    ) -> None:
        self._rate, self._tick, self._tell = rate, tick, tell
        self._last: Frame | None = None
        self._due = 0.0

    def wait(self, frame: Frame) -> None:
        """Wait until it is time for a frame; a jump back starts anew."""
        last, self._last = self._last, frame
        gap = 0 if last is None else (_recorded(frame) - _recorded(last)) * 1e-9
        if last is None or gap < 0:
            self._due = time.monotonic()
            return
        if gap > LONGEST_GAP:
            self._tell(
                f"no frame for {gap:.0f} s of the recording, after {last.stamp} ns: "
                f"cut to {LONGEST_GAP / self._rate:g} s"
            )
            gap = LONGEST_GAP
        begin = self._due
        self._due += gap / self._rate
        while (left := self._due - time.monotonic()) > 0:
            time.sleep(min(left, CLOCK_PERIOD))
            passed = (time.monotonic() - begin) * self._rate
            self._tick(min(last.stamp + int(passed * 1e9), frame.stamp))


def _recorded(frame: Frame) -> int:
    return frame.stamp if frame.recorded is None else frame.recorded
