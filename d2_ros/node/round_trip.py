"""Play a source to a node in another process and record what it answers, over DDS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, PointCloud, PointCloud2

from d2_ros.config import OutputConfig
from d2_ros.errors import D2RosError
from d2_ros.node import start_ros
from d2_ros.node.process import NodeProcess
from d2_ros.node.recorder import Recorder
from d2_ros.node.source_publisher import SourcePublisher
from d2_ros.sources import Frame
from d2_ros.sources.writer import BagWriter

NAMESPACE = "/d2_frontend/camera/"

TRACKS = f"{NAMESPACE}tracks"


def output_topics(config: OutputConfig) -> dict[str, type]:
    """Return the node's output topics and their types; the overlay only compressed."""
    names = ["features", "matches", "tracks"]
    names += [] if config.descriptors == "none" else ["descriptors"]
    clouds: dict[str, type] = {NAMESPACE + name: PointCloud2 for name in names}
    if config.vins_format != "none":
        clouds[f"{NAMESPACE}feature_tracks"] = PointCloud
    return clouds | {f"{NAMESPACE}overlay/compressed": CompressedImage}


IN_FLIGHT = 2
"""Frames sent but not answered: one at work, and one so that the node need not wait."""

PATIENCE = 180.0
"""Seconds without any progress after which the run is given up."""

POLL = 0.01


class RoundTrip:
    """A publisher and a recorder in this process, connected to the node in the other."""

    def __init__(self, node: NodeProcess, publisher: SourcePublisher, recorder: Recorder) -> None:
        self._node = node
        self._publisher = publisher
        self._recorder = recorder
        self._complaint = ""
        self._failures: list[Exception] = []
        recorder.create_subscription(DiagnosticArray, "/diagnostics", self._listen, 10)

    def _listen(self, message: DiagnosticArray) -> None:
        """Note why the node could not be configured, or refused a frame."""
        for status in message.status:
            if status.level != DiagnosticStatus.OK:
                values = {pair.key: pair.value for pair in status.values}
                self._complaint = values.get("last_error") or status.message

    def spin(self, executor: SingleThreadedExecutor) -> None:
        """Record until the executor is shut down; an error is raised where the caller waits."""
        try:
            executor.spin()
        except ExternalShutdownException:
            pass
        except Exception as error:
            self._failures.append(error)

    def connect(self) -> None:
        """Wait until the node is active and every topic is connected on both sides.

        Raises
        ------
        D2RosError
            If the node ends or cannot be configured.
        """
        self._wait(lambda: self._publisher.connected() and self._recorder.connected())

    def play(self, frames: Iterable[Frame]) -> Iterator[int]:
        """Send the frames no faster than they are answered; yield the number of answers.

        Raises
        ------
        D2RosError
            If the node ends or stops answering.
        """
        sent = 0
        for frame in frames:
            self._publisher.publish(frame)
            sent += 1
            self._await_answers(sent + 1 - IN_FLIGHT)
            yield self._answers()
        self._await_answers(sent)
        yield sent

    def _await_answers(self, count: int) -> None:
        self._wait(lambda: self._answers() >= count)

    def _answers(self) -> int:
        """Return the number of frames of which every topic but tracks has been recorded."""
        topics = self._recorder.topics
        return min(self._recorder.counts[topic] for topic in topics if topic != TRACKS)

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self._node.check()
            if self._failures:
                raise self._failures[0]
            if self._complaint:
                raise D2RosError(f"the node reports: {self._complaint}")
            if time.monotonic() > deadline:
                raise D2RosError(
                    f"the node has not answered for {PATIENCE:g} s: {self._node.last_words()}"
                )
            time.sleep(POLL)


@contextmanager
def open_round_trip(
    node: NodeProcess, writer: BagWriter, topics: dict[str, type]
) -> Iterator[RoundTrip]:
    """Join the ROS graph, record `topics` to `writer`, leave when done."""
    # Ctrl-C stays a KeyboardInterrupt of the main thread, so that everything is put away.
    start_ros(args=[], signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    nodes: list[Any] = []
    try:
        publisher, recorder = SourcePublisher(), Recorder(writer, topics)
        nodes += [publisher, recorder]
        round_trip = RoundTrip(node, publisher, recorder)
        executor.add_node(recorder)
        thread = threading.Thread(target=round_trip.spin, args=(executor,), daemon=True)
        thread.start()
        try:
            yield round_trip
        finally:
            executor.shutdown()
            thread.join()
    finally:
        for item in nodes:
            item.destroy_node()
        rclpy.try_shutdown()
