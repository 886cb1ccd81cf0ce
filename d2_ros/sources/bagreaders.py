"""One file of a bag: by its index where that is complete, from its start otherwise."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from shutil import copyfile, rmtree
from tempfile import mkdtemp
from typing import Any, Protocol
from weakref import finalize

import zstandard
from rosbags.rosbag1 import Reader as Rosbag1Reader
from rosbags.rosbag2.storage_mcap import McapReader
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

from d2_ros.errors import D2RosError
from d2_ros.sources.bagfolders import MCAP, ROSBAG1, SQLITE, bag_kind, is_compressed
from d2_ros.sources.bagscan import (
    Stored,
    decode_cdr,
    reason_of,
    ros1_decoder,
    scan_mcap,
    scan_rosbag1,
)
from d2_ros.sources.validation import BLOCK, BoundedPath

_READERS = {MCAP: McapReader, SQLITE: Sqlite3Reader, ROSBAG1: Rosbag1Reader}
_SCANS = {MCAP: scan_mcap, ROSBAG1: scan_rosbag1}
_REMEDIES = {
    MCAP: "`mcap recover`",
    SQLITE: "`sqlite3 FILE .recover`",
    ROSBAG1: "`rosbag reindex`",
}


class BagFile(Protocol):
    """The messages of one file, which may be asked for again and again."""

    counts: Counter[tuple[str, str]]
    """(topic, message type such as ``sensor_msgs/msg/Image``) -> number of messages."""

    def stored(self, topics: Collection[str]) -> Iterator[Stored]:
        """Yield the messages on these topics in the order of recording.

        Raises
        ------
        D2RosError
            Where the file is damaged, after the messages before the damage.
        """
        ...


class Scratch:
    """Temporary folders for what cannot be read in place; they go with the bag, or at exit."""

    def place(self, name: str) -> Path:
        """Return where a file of this name may be put."""
        folder = mkdtemp(prefix="d2_ros_bag_")
        finalize(self, rmtree, folder, ignore_errors=True)
        return Path(folder, name)


def open_file(path: Path, scratch: Scratch) -> BagFile:
    """Open a file of a bag.

    Raises
    ------
    D2RosError
        If no message can be had from it.
    """
    kind = bag_kind(path)
    if kind is None:
        raise D2RosError(f"bag file {path} is of an unknown kind; give .mcap, .db3 or .bag")
    try:
        if not path.stat().st_size:
            raise D2RosError(
                f"bag {path} is empty, without a single byte; record again or remove it"
            )
        place = BoundedPath(_in_place(path, kind, scratch))
        # On damaged files rosbags raises errors of many kinds, from struct's to its assertions.
        try:
            return IndexedFile(path, place, kind)
        except Exception:
            if kind not in _SCANS:
                raise
            scanned = ScannedFile(path, place, kind)
            if not scanned.counts:
                raise
            return scanned
    except D2RosError:
        raise
    except Exception as error:
        raise damaged(path, error) from error


def _in_place(path: Path, kind: str, scratch: Scratch) -> Path:
    """Return where rosbags can read the file; the recording itself is never touched."""
    if is_compressed(path):
        target = scratch.place(path.stem)
        _decompress(path, target)
        path = target
    if kind != SQLITE:
        return path
    pending = [Path(f"{path}{ending}") for ending in ("-wal", "-journal")]
    pending = [file for file in pending if file.is_file() and file.stat().st_size]
    if pending:
        # What a killed recorder has not merged yet; sqlite merges it when it opens the copy.
        target = scratch.place("bag.db3")
        for file in (path, *pending):
            copyfile(file, f"{target}{file.name[len(path.name) :]}")
        with closing(sqlite3.connect(target)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return target
    if any(sign in str(path) for sign in "?#%"):  # which rosbags takes for parts of an address
        target = scratch.place("bag.db3")
        target.symlink_to(path.resolve())
        return target
    return path


def _decompress(path: Path, target: Path) -> None:
    """Decompress as much as there is: of a file cut short, its start."""
    with path.open("rb") as file, target.open("wb") as out:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        try:
            while block := reader.read(BLOCK):
                out.write(block)
        except zstandard.ZstdError:
            if not out.tell():
                raise
    if not target.stat().st_size:
        raise ValueError("nothing comes out where it is decompressed")


class IndexedFile:
    """A complete file, read by rosbags.

    Raises
    ------
    Exception
        Of many kinds, if it is not.
    """

    def __init__(self, path: Path, place: BoundedPath, kind: str) -> None:
        self._path, self._place, self._kind = path, place, kind
        self.counts: Counter[tuple[str, str]] = Counter()
        reader = self._reader()
        reader.open()
        with closing(reader):
            if isinstance(reader, McapReader) and not _is_indexed(reader):
                raise ValueError("its index does not list all of its messages")
            for item in _common(reader):
                self.counts[item.topic, item.msgtype] += item.msgcount

    def _reader(self) -> Any:
        return _READERS[self._kind](self._place)

    def stored(self, topics: Collection[str]) -> Iterator[Stored]:
        """Yield the messages on these topics in the order of recording."""
        left = sum(count for (topic, _), count in self.counts.items() if topic in topics)
        if not left:
            return
        try:
            reader = self._reader()
            reader.open()
            with closing(reader):
                wanted = [item for item in _common(reader) if item.topic in topics]
                for item, time, data in reader.messages(wanted):
                    left -= 1
                    kind, text = item.msgtype, item.msgdef.data
                    decode = ros1_decoder(kind, text) if self._kind == ROSBAG1 else decode_cdr
                    yield Stored(time, item.topic, kind, bytes(data), decode)
            if left > 0:
                raise ValueError(f"messages that its index promises are missing: {left}")
        except Exception as error:
            raise damaged(self._path, error) from error


def _common(reader: Any) -> list[Any]:
    """Return the connections whose messages are in ROS's own formats."""
    return [
        item
        for item in reader.connections
        if getattr(item.ext, "serialization_format", "cdr") == "cdr"
    ]


def _is_indexed(reader: McapReader) -> bool:
    """Return whether all messages of an MCAP file can be found by its index.

    Not all writers write all of it: chunks may lack their lists of messages, the summary its list
    of chunks, and nothing need lie in chunks at all.
    """
    assert reader.statistics is not None
    if any(not chunk.message_index_offsets for chunk in reader.chunks):
        return False
    found: Counter[int] = Counter()
    for chunk in reader.chunks:
        found.update(chunk.channel_count)
    told = reader.statistics.channel_message_counts
    return found.total() >= reader.statistics.message_count and all(
        found[channel] >= count for channel, count in told.items()
    )


class ScannedFile:
    """A file without a complete index, read from its start up to its end or the damage."""

    def __init__(self, path: Path, place: BoundedPath, kind: str) -> None:
        self._path, self._place, self._kind = path, place, kind
        self.counts: Counter[tuple[str, str]] = Counter()
        try:
            for item in self._scan():
                self.counts[item.topic, item.kind] += 1
        except D2RosError:
            pass  # told where the messages are read

    def stored(self, topics: Collection[str]) -> Iterator[Stored]:
        """Yield the messages on these topics in the order of recording."""
        return (item for item in self._scan() if item.topic in topics)

    def _scan(self) -> Iterator[Stored]:
        try:
            with self._place.open("rb") as stream:
                yield from _SCANS[self._kind](stream)
        except Exception as error:
            raise damaged(self._path, error) from error


def damaged(path: Path, error: Exception) -> D2RosError:
    """Return the sentence for a bag that is cut short or otherwise unreadable."""
    if isinstance(error, OSError):
        return D2RosError(f"bag {path} cannot be read: {error.strerror}")
    return D2RosError(
        f"bag {path} is cut short or damaged ({reason_of(error)}); "
        f"recover it with {_REMEDIES[bag_kind(path) or MCAP]} or record again"
    )
