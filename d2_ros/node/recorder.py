"""Record topics from DDS to a rosbag2 file, message bytes untouched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

from d2_ros.sources.writer import BagWriter

RECORD_QOS = QoSProfile(history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE)


class Recorder(Node):
    """Subscribes to topics and writes what it hears.

    Parameters
    ----------
    writer
        Where the messages go.
    topics
        Topic name -> message class.
    """

    def __init__(self, writer: BagWriter, topics: Mapping[str, type]) -> None:
        super().__init__("d2_recorder")
        self.topics = topics
        self.counts: Counter[str] = Counter()
        self._writer = writer
        self._recorded = [
            self.create_subscription(
                kind, topic, partial(self._record, topic, type_name(kind)), RECORD_QOS, raw=True
            )
            for topic, kind in topics.items()
        ]

    def connected(self) -> bool:
        """Whether every topic has a publisher."""
        return all(self.count_publishers(item.topic_name) > 0 for item in self._recorded)

    def _record(self, topic: str, msgtype: str, data: bytes) -> None:
        self._writer.write_serialized(topic, msgtype, data, self.get_clock().now().nanoseconds)
        self.counts[topic] += 1


def type_name(kind: Any) -> str:
    """Return the name of a message class as bags spell it, ``sensor_msgs/msg/Image``."""
    package, _, _ = kind.__module__.partition(".")
    return f"{package}/msg/{kind.__name__}"
