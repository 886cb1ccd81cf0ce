"""Write a rosbag2 file (one bare ``.mcap``) without ROS."""

from __future__ import annotations

import errno
import os
from itertools import count
from pathlib import Path
from typing import Any

from mcap.writer import CompressionType, Writer

from d2_ros import __version__
from d2_ros.errors import D2RosError
from d2_ros.interruption import held
from d2_ros.sources.base import MAKER
from d2_ros.sources.messages import TYPES, stamp_of

QOS = """\
- history: 1
  depth: 10
  reliability: 1
  durability: 2
  deadline: {sec: 9223372036, nsec: 854775807}
  lifespan: {sec: 9223372036, nsec: 854775807}
  liveliness: 1
  liveliness_lease_duration: {sec: 9223372036, nsec: 854775807}
  avoid_ros_namespace_conventions: false
"""
"""Keep last 10, reliable, volatile, as the node publishes, in the words of rosbag2's metadata up
to version 8: numbers, which the later versions read as well."""


class BagWriter:
    """A context manager that writes messages to a bag.

    An existing file keeps its content until the new one is complete: the messages go to
    ``NAME.part.mcap`` beside it, which takes its name when the block ends without an exception and
    has written something. Where there is no such file, they go to `path` itself, so that what a
    killed process has written is found there. Leaving the block by an exception still writes the
    index, so that all messages so far can be read; a bag without messages is removed.

    Parameters
    ----------
    path
        The ``.mcap`` file.

    Raises
    ------
    D2RosError
        If the name has another ending or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix != ".mcap":
            raise D2RosError(f"output bag {path} must have a name that ends in .mcap")
        self._path = path
        self._target = Path(os.path.realpath(path))  # a link stays a link
        self._written = self._target
        self._failed = False
        try:
            if self._target.is_file():
                if not os.access(self._target, os.W_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                self._written = _free_name(self._target)
            self._file = self._written.open("wb")
            self._writer = Writer(self._file, compression=CompressionType.NONE)
            self._writer.start(profile="ros2", library=f"{MAKER} {__version__}")
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from None
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(replace=kind is None)

    def close(self, replace: bool = True) -> None:
        """Write the index and close the file; a second call does nothing.

        Parameters
        ----------
        replace
            Whether a file that was there before is replaced.

        Raises
        ------
        D2RosError
            If the file cannot be written.
        """
        if self._file.closed:
            return
        with held():
            try:
                with self._file:
                    self._writer.finish()
                if not self._channels:
                    if self._written.is_file():
                        self._written.unlink()
                elif replace and not self._failed and self._written != self._target:
                    self._written.replace(self._target)
            except OSError as error:
                raise self._failure(error) from None

    def _failure(self, error: OSError) -> D2RosError:
        self._failed = True
        kept = ""
        if self._written != self._target and self._written.exists():
            kept = f" ({self._path} is as it was, the part that was written is {self._written})"
        reason = f"cannot write {self._path}: {error.strerror}"
        return D2RosError(f"{reason}{kept}; choose another place")

    def flush(self) -> None:
        """Hand everything so far to the system: it can be read even if this process is killed.

        Called by what is written, not by the clock, so that the same messages make the same file.

        Raises
        ------
        D2RosError
            If the file cannot be written.
        """
        try:
            self._writer.flush()
        except OSError as error:
            raise self._failure(error) from None

    def write(self, topic: str, message: Any) -> None:
        """Write a message of :mod:`d2_ros.sources.messages`, logged at its header's stamp.

        So the same messages make the same file.

        Raises
        ------
        D2RosError
            If the file cannot be written.
        """
        msgtype = message.__msgtype__
        data = bytes(TYPES.serialize_cdr(message, msgtype))
        self.write_serialized(topic, msgtype, data, stamp_of(message))

    def write_serialized(self, topic: str, msgtype: str, data: bytes, log_time: int) -> None:
        """Write a message that is serialised already (CDR with its encapsulation header).

        Parameters
        ----------
        topic, msgtype
            Such as ``/camera/image_raw`` and ``sensor_msgs/msg/Image``.
        data
            The message's bytes.
        log_time
            Integer nanoseconds.

        Raises
        ------
        D2RosError
            If the type is not among the common ones or the file cannot be written.
        """
        try:
            if topic not in self._channels:
                self._channels[topic] = self._writer.register_channel(
                    topic, "cdr", self._schema(msgtype), {"offered_qos_profiles": QOS}
                )
            self._writer.add_message(self._channels[topic], log_time, data, log_time)
        except OSError as error:
            raise self._failure(error) from None

    def _schema(self, msgtype: str) -> int:
        if msgtype not in self._schemas:
            if msgtype not in TYPES.types:
                raise D2RosError(f"message type {msgtype} is unknown; it must be a common one")
            text, _ = TYPES.generate_msgdef(msgtype, ros_version=2)
            self._schemas[msgtype] = self._writer.register_schema(msgtype, "ros2msg", text.encode())
        return self._schemas[msgtype]


def _free_name(path: Path) -> Path:
    """Return a name beside `path` that nobody has: the last one's may be what is being read."""
    names = (path.with_name(f"{path.stem}.part{number or ''}{path.suffix}") for number in count())
    return next(name for name in names if not name.exists())
