"""Subscriptions to the cameras; a callback hands a message over and does nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from d2_ros.config import InputConfig
from d2_ros.node.camera_pipeline import CameraPipeline
from d2_ros.node.groups import Drop, Groups
from d2_ros.node.mailbox import Mailbox
from d2_ros.node.messages import stamp_of
from d2_ros.node.multi_camera import Entry


def image_qos(mode: str) -> QoSProfile:
    """Return best effort, newest only (``live``) or reliable, every frame (``replay``)."""
    if mode == "live":
        return QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    return QoSProfile(history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE)


# camera_info may come with every image, from publishers of any quality of service, or once,
# latched. Asking everybody for latched messages would exclude (and log warnings at) those
# who do not offer them, so the second subscription is made only where somebody does.
LATCHED = DurabilityPolicy.TRANSIENT_LOCAL
INFO_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED_INFO_QOS = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=LATCHED,
)

GROUP = ""
"""Slot of the mailbox for synchronised groups; no camera has this name."""

SILENCE = 5.0
"""Seconds after which a camera that sends nothing, though the node would take it, does not hold up
the others of its group any more (``input.qos: replay``)."""

LOOK_PERIOD = 0.2
"""Seconds between looks for latched camera_info while a camera has none."""


class Gaps:
    """Counts the messages that were published but never reached a subscription.

    The middleware numbers what a publisher sends (Fast DDS does from Jazzy on; without numbers
    nothing is counted). With keep last 1 it drops what the node does not take in time.
    """

    def __init__(self) -> None:
        self._last: tuple[bytes, int] | None = None

    def missed(self, info: Mapping[str, Any]) -> int:
        """Return how many messages are missing between the last one and this one."""
        number = info.get("publication_sequence_number")
        if number is None:
            return 0
        publisher = bytes((info.get("publisher_gid") or {}).get("data", b""))
        last, self._last = self._last, (publisher, number)
        if last is None or last[0] != publisher:
            return 0
        return max(number - last[1] - 1, 0)


class WaitWhile(MutuallyExclusiveCallbackGroup):
    """A callback group that the executor passes over while `busy()` holds.

    Messages stay in the middleware's queue meanwhile (back-pressure), and the executor is
    free for everything else. Whoever ends the waiting must wake the executor.
    """

    def __init__(self, busy: Callable[[], bool]) -> None:
        super().__init__()
        self._busy = busy

    def can_execute(self, entity: Any) -> bool:
        """Return whether the executor may take a message."""
        return not self._busy() and super().can_execute(entity)


class Inputs:
    """The subscriptions of all cameras while the node is active.

    Lost messages are counted by their numbers, unless `numbered` is false: the events executor of
    rclpy 9.1.2 fails on callbacks that ask for them.
    """

    def __init__(
        self,
        node: Node,
        pipelines: Mapping[str, CameraPipeline],
        mailbox: Mailbox[Any],
        config: InputConfig,
        numbered: bool = True,
    ) -> None:
        self._node = node
        self._mailbox = mailbox
        self._pipelines: Mapping[str, CameraPipeline] = pipelines
        self._subscriptions: list[Any] = []
        self._latched: set[str] = set()
        self._groups: Groups[Entry] | None = None
        if config.sync_tolerance > 0:
            self._groups = Groups(pipelines, round(config.sync_tolerance * 1e9))
        self._tolerance = config.sync_tolerance
        self._heard = dict.fromkeys(pipelines, time.monotonic())
        overridable = QoSOverridingOptions.with_default_policies()
        for camera, pipeline in pipelines.items():
            replay = config.qos == "replay"
            receive = partial(self._on_image, camera, Gaps())
            self._subscriptions.append(
                node.create_subscription(
                    CompressedImage if config.compressed else Image,
                    f"{camera}/image_raw" + ("/compressed" if config.compressed else ""),
                    receive if numbered else partial(receive, info={}),
                    image_qos(config.qos),
                    callback_group=WaitWhile(partial(self._busy, camera)) if replay else None,
                    qos_overriding_options=overridable,
                )
            )
            self._subscribe_info(pipeline, INFO_QOS)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._look = node.create_timer(LOOK_PERIOD, self._look_for_latched, clock=steady)

    @property
    def topics(self) -> list[str]:
        """Names of the topics, after remapping."""
        return sorted({subscription.topic_name for subscription in self._subscriptions})

    def _subscribe_info(self, pipeline: CameraPipeline, qos: QoSProfile) -> None:
        self._subscriptions.append(
            self._node.create_subscription(
                CameraInfo, f"{pipeline.name}/camera_info", pipeline.calibration.receive, qos
            )
        )

    def _look_for_latched(self) -> None:
        """Subscribe to latched camera_info of cameras that have not sent any yet."""
        missing = {
            name: pipeline
            for name, pipeline in self._pipelines.items()
            if name not in self._latched and not pipeline.calibration.arrived
        }
        if not missing:
            self._look.cancel()
        for name, pipeline in missing.items():
            topic = self._node.resolve_topic_name(f"{name}/camera_info")
            publishers = self._node.get_publishers_info_by_topic(topic)
            if any(info.qos_profile.durability == LATCHED for info in publishers):
                self._latched.add(name)
                self._subscribe_info(pipeline, LATCHED_INFO_QOS)

    def _on_image(
        self,
        camera: str,
        gaps: Gaps,
        message: Image | CompressedImage,
        info: Mapping[str, Any],
    ) -> None:
        pipelines = self._pipelines
        pipeline = pipelines.get(camera)
        if pipeline is None:
            return
        pipeline.status.count("received")
        pipeline.status.count("lost", gaps.missed(info))
        entry = (message, time.monotonic_ns())
        if self._groups is None:
            self._hand_over(camera, {camera: entry}, pipelines)
            return
        self._heard[camera] = time.monotonic()
        group, drops = self._groups.put(camera, stamp_of(message.header), entry)
        for drop in drops:
            if drop.cause == "stopped":
                pipelines[drop.camera].status.count("stopped")
            else:
                pipelines[drop.camera].drop(drop.cause, self._reason(drop))
        if group:
            self._hand_over(GROUP, group, pipelines)

    def _hand_over(
        self, slot: str, entries: dict[str, Entry], pipelines: Mapping[str, CameraPipeline]
    ) -> None:
        dropped = self._mailbox.put(slot, entries)
        if dropped:
            for camera in entries:
                pipelines[camera].status.count(dropped)

    def _reason(self, drop: Drop) -> str:
        if drop.cause != "unmatched":
            return f"frame {drop.stamp} is {drop.cause.replace('_', ' ')}"
        missing = " and ".join(drop.missing)
        return (
            f"frame {drop.stamp} has no partner of {missing} within {self._tolerance:g} s "
            "(input.sync_tolerance)"
        )

    def _busy(self, camera: str) -> bool:
        """Return whether the next image of `camera` has to wait in the middleware."""
        if self._groups is None:
            return self._mailbox.full(camera)
        if self._mailbox.full(GROUP):
            return True
        if not self._groups.waits(camera):
            return False
        silent = time.monotonic() - SILENCE
        partners = [name for name in self._heard if not self._groups.waits(name)]
        return all(self._heard[name] > silent for name in partners)

    def on_slot_free(self) -> None:
        """Let the executor look at the waiting subscriptions again (worker's thread)."""
        self._heard = dict.fromkeys(self._heard, time.monotonic())  # nobody could be until now
        executor = self._node.executor
        if executor is not None:
            executor.wake()

    def destroy(self) -> None:
        """Unsubscribe; what the executor still holds for a while holds no front-end any more."""
        for camera in self._groups.close() if self._groups else []:
            self._pipelines[camera].status.count("stopped")
        self._pipelines = {}
        self._node.destroy_timer(self._look)
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
