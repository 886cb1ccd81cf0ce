"""Messages of a bag of any format; of a damaged one, as many as can be had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from mcap.records import Channel, Chunk, McapRecord, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from rosbags.highlevel import AnyReader

from d2_ros.errors import D2RosError
from d2_ros.sources.messages import TYPES
from d2_ros.sources.soundness import SoundPath, unpacked

Item = TypeVar("Item")

_REMEDIES = {".bag": "`rosbag reindex`", ".db3": "`sqlite3 FILE .recover`"}


class Bag(Protocol):
    """Topics and messages of a bag; messages may be asked for again and again."""

    topics: dict[str, tuple[str, int]]
    """Topic -> (message type such as ``sensor_msgs/msg/Image``, number of messages)."""

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, Any]]:
        """Yield (topic, deserialised message) in the order of recording.

        Raises
        ------
        D2RosError
            Where the bag is damaged, after the messages before the damage.
        """
        ...


def open_bag(paths: Sequence[Path]) -> Bag:
    """Open a rosbag2 folder, or bag files.

    Raises
    ------
    D2RosError
        If no message can be had from them.
    """
    try:
        return IndexedBag(paths)
    except D2RosError as damage:
        # MCAP can be read from its start without its index, which is written last.
        files = [file for path in paths for file in ([path, *sorted(path.glob("*.mcap"))])]
        scanned = ScannedBag([file for file in files if file.suffix == ".mcap" and file.is_file()])
        if not scanned.topics:
            raise damage from None
        return scanned


class IndexedBag:
    """A complete bag, read by rosbags."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self.topics: dict[str, tuple[str, int]] = {}
        # On damaged files rosbags raises errors of many kinds, from struct's to its assertions.
        try:
            with self._reader() as reader:
                for topic, info in reader.topics.items():
                    self.topics[topic] = (info.msgtype or "", info.msgcount)
        except Exception as error:
            raise damaged(paths[0], error) from error

    def _reader(self) -> AnyReader:
        return AnyReader([SoundPath(path) for path in self._paths], default_typestore=TYPES)

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, Any]]:
        """Yield (topic, deserialised message) in the order of recording."""
        try:
            with self._reader() as reader:
                wanted = [item for item in reader.connections if item.topic in topics]
                for connection, _, raw in reader.messages(wanted) if wanted else ():
                    yield connection.topic, reader.deserialize(raw, connection.msgtype)
        except Exception as error:
            raise damaged(self._paths[0], error) from error


class ScannedBag:
    """MCAP files whose end is missing, read from their start up to the damage."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        counts: Counter[tuple[str, str]] = Counter()
        counts.update((topic, kind) for topic, kind, _ in until_damage(self._scan()))
        self.topics = {topic: (kind, count) for (topic, kind), count in counts.items()}

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, Any]]:
        """Yield (topic, deserialised message) in the order of recording."""
        for topic, kind, raw in self._scan():
            if topic in topics:
                try:
                    message = TYPES.deserialize_cdr(raw, kind)
                except Exception as error:
                    raise damaged(self._files[0], error) from error
                yield topic, message

    def _scan(self) -> Iterator[tuple[str, str, bytes]]:
        for file in self._files:
            schemas: dict[int, Schema] = {}
            channels: dict[int, Channel] = {}
            try:
                with SoundPath(file).open("rb") as stream:
                    for record in _records(stream):
                        if isinstance(record, Schema):
                            schemas[record.id] = record
                        elif isinstance(record, Channel) and record.message_encoding == "cdr":
                            channels[record.id] = record
                        elif isinstance(record, Message) and record.channel_id in channels:
                            channel = channels[record.channel_id]
                            yield channel.topic, schemas[channel.schema_id].name, record.data
            except Exception as error:
                raise damaged(file, error) from error


def _records(stream: IO[bytes]) -> Iterator[McapRecord]:
    """Yield the records of an MCAP file, those in chunks among them."""
    for record in StreamReader(stream, emit_chunks=True, validate_crcs=True).records:
        if isinstance(record, Chunk):
            yield from breakup_chunk(unpacked(record), validate_crc=True)
        else:
            yield record


def until_damage(items: Iterator[Item]) -> Iterator[Item]:
    """Yield what can be read, for callers whose own reading of the frames tells of the damage."""
    with suppress(D2RosError):
        yield from items


def damaged(path: Path, error: Exception) -> D2RosError:
    """Return the sentence for a bag that is cut short or otherwise unreadable."""
    if isinstance(error, OSError):
        return D2RosError(f"bag {path} cannot be read: {error.strerror}")
    reason = str(error).rstrip(".") or type(error).__name__
    remedy = _REMEDIES.get(path.suffix, "`mcap recover`")
    return D2RosError(
        f"bag {path} is cut short or damaged ({reason}); recover it with {remedy} or record again"
    )
