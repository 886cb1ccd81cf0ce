"""The messages of a bag file from its start to its end, or to the damage, without its index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import IO, Any, BinaryIO

from mcap.records import Channel, Chunk, McapRecord, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from rosbags.rosbag1.reader import Header, RecordType, deserialize_time, read_bytes, read_uint32
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.msg import normalize_msgtype
from rosbags.typesys.store import Typestore

from d2_ros.sources.base import UnusableFrame
from d2_ros.sources.messages import TYPES
from d2_ros.sources.validation import decompress, unpacked

Decoder = Callable[[bytes, str], Any]
"""From a message's bytes and its type to the message."""

_ZSTD = b"\x28\xb5\x2f\xfd"
_ROS1 = get_typestore(Stores.ROS1_NOETIC)


@dataclass(frozen=True)
class Stored:
    """A message as it lies in a bag.

    Attributes
    ----------
    time
        When it was recorded, integer nanoseconds.
    topic
        Its topic.
    kind
        Its type, such as ``sensor_msgs/msg/Image``.
    data
        Its bytes.
    decode
        What decodes them.
    """

    time: int
    topic: str
    kind: str
    data: bytes
    decode: Decoder

    def message(self) -> Any:
        """Return the message.

        Raises
        ------
        UnusableFrame
            If the bytes are not such a message.
        """
        try:
            return self.decode(self.data, self.kind)
        except Exception as error:  # rosbags raises errors of many kinds on damaged messages
            raise UnusableFrame(
                f"the message on {self.topic} that was recorded at {self.time} ns is damaged "
                f"({reason_of(error)})"
            ) from error


def reason_of(error: Exception) -> str:
    """Return what an error of a reader says, on one line."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def decode_cdr(data: bytes, kind: str) -> Any:
    """Decode a message of ROS 2.

    The definitions of the common types are the same in all distributions, and not every bag holds
    them: rosbag2 leaves them empty where it does not find them. Of a bag whose messages are
    compressed only ``metadata.yaml`` says so, but CDR never begins as zstd does.
    """
    if data[:4] == _ZSTD:
        data = decompress("zstd", data)
    return TYPES.deserialize_cdr(data, kind)


def ros1_decoder(kind: str, definition: str) -> Decoder:
    """Return what decodes messages of a type of ROS 1, by its definition in the bag itself.

    Noetic's stands in for one that is empty or cannot be read.
    """
    return lambda data, _: _ros1_store(kind, definition).deserialize_ros1(data, kind)


@lru_cache(maxsize=64)
def _ros1_store(kind: str, definition: str) -> Typestore:
    """Build the types of a definition; not before a message of it is asked for."""
    store = get_typestore(Stores.EMPTY)
    try:
        store.register(get_types_from_msg(definition, kind))
    except Exception:  # the parser raises many kinds
        return _ROS1
    return store if definition.strip() else _ROS1


def scan_mcap(stream: IO[bytes]) -> Iterator[Stored]:
    """Yield the messages of an MCAP file, of ROS 2 or converted from ROS 1, as they lie there."""
    schemas: dict[int, Schema] = {}
    channels: dict[int, tuple[str, str, Decoder]] = {}
    for record in _mcap_records(stream):
        if isinstance(record, Schema):
            schemas[record.id] = record
        elif isinstance(record, Channel) and record.id not in channels:
            schema = schemas.get(record.schema_id)
            if schema is not None and record.message_encoding == "cdr":
                channels[record.id] = record.topic, schema.name, decode_cdr
            elif schema is not None and record.message_encoding == "ros1":
                kind = normalize_msgtype(schema.name)
                text = schema.data.decode(errors="replace")
                channels[record.id] = record.topic, kind, ros1_decoder(kind, text)
        elif isinstance(record, Message) and record.channel_id in channels:
            topic, kind, decode = channels[record.channel_id]
            yield Stored(record.log_time, topic, kind, record.data, decode)


def _mcap_records(stream: IO[bytes]) -> Iterator[McapRecord]:
    """Yield the records of an MCAP file, those in chunks among them."""
    for record in StreamReader(stream, emit_chunks=True, validate_crcs=True).records:
        if isinstance(record, Chunk):
            yield from breakup_chunk(unpacked(record), validate_crc=True)
        else:
            yield record


def scan_rosbag1(stream: BinaryIO) -> Iterator[Stored]:
    """Yield the messages of a rosbag1 file as they lie there; one that is recorded has no index."""
    if not stream.readline(16).startswith(b"#ROSBAG V2.0"):
        raise ValueError("it does not begin as a rosbag1 file does")
    connections: dict[int, tuple[str, str, Decoder]] = {}
    for header, data in _rosbag1_records(stream):
        kind = header.get_uint8("op")
        if kind == RecordType.CONNECTION:
            told = Header.read(BytesIO(len(data).to_bytes(4, "little") + data))
            name = normalize_msgtype(told.get_string("type"))
            number = header.get_uint32("conn")
            if number not in connections:
                decoder = ros1_decoder(name, told.get_string("message_definition"))
                connections[number] = header.get_string("topic"), name, decoder
        elif kind == RecordType.MSGDATA:
            topic, name, decode = connections[header.get_uint32("conn")]
            yield Stored(deserialize_time(header["time"]), topic, name, data, decode)


def _rosbag1_records(stream: BinaryIO) -> Iterator[tuple[Header, bytes]]:
    """Yield (header, data) of the records, those in chunks among them, up to the index."""
    while first := stream.read(1):
        stream.seek(-len(first), 1)
        header = Header.read(stream)
        data = read_bytes(stream, read_uint32(stream))
        if header.get_uint8("op") == RecordType.CHUNK:
            compression = header.get_string("compression")
            if compression != "none":
                data = decompress(compression, data, header.get_uint32("size"))
            yield from _rosbag1_records(BytesIO(data))
        else:
            yield header, data
