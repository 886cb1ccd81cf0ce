"""Lengths in bags that claim too much, one kind after the other, and honest compressed bags."""

from __future__ import annotations

import bz2
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pytest
import zstandard
from mcap.data_stream import RecordBuilder
from mcap.records import Chunk, DataEnd, Footer, Header
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, Writer
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from d2_ros.errors import D2RosError
from d2_ros.sources import messages as build
from d2_ros.sources import open_source, validation
from d2_ros.sources.writer import BagWriter

TOPIC, IMAGE = "/camera/image_raw", "sensor_msgs/msg/Image"
PICTURE = np.random.default_rng(0).integers(0, 256, (24, 32), np.uint8)
ROS1 = get_typestore(Stores.ROS1_NOETIC)
MAGIC = b"\x89MCAP0\r\n"
MEBIBYTE = 1 << 20


def messages(count: int = 4) -> list[Any]:
    return [build.image(10**9 * (number + 1), "o", PICTURE) for number in range(count)]


def serialized(message: Any) -> bytes:
    return bytes(build.TYPES.serialize_cdr(message, IMAGE))


def serialized1(message: Any) -> bytes:
    header = ROS1.types["std_msgs/msg/Header"](0, message.header.stamp, "o")
    fields = {key: getattr(message, key) for key in message.__dataclass_fields__}
    fields.pop("__msgtype__", None)
    return bytes(ROS1.serialize_ros1(ROS1.types[IMAGE](**{**fields, "header": header}), IMAGE))


def too_long(raw: bytes) -> bytes:
    """Return a serialised image whose data claim four gigabytes."""
    size = struct.pack("<I", PICTURE.nbytes)
    place = raw.rindex(size, 0, len(raw) - PICTURE.nbytes)
    return raw[:place] + struct.pack("<I", 2**32 - 1) + raw[place + 4 :]


def write_mcap(path: Path, payloads: list[bytes]) -> Path:
    with BagWriter(path) as bag:
        for number, raw in enumerate(payloads):
            bag.write_serialized(TOPIC, IMAGE, raw, 10**9 * (number + 1))
    return path


def write_rosbag2(path: Path, payloads: list[bytes], kind: str, mode: Any = None) -> Path:
    storage = StoragePlugin.MCAP if kind == "mcap" else StoragePlugin.SQLITE3
    writer = Writer2(path, version=9, storage_plugin=storage)
    if mode is not None:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection(TOPIC, IMAGE, typestore=build.TYPES)
        for number, raw in enumerate(payloads):
            writer.write(connection, 10**9 * (number + 1), raw)
    return path


def write_rosbag1(path: Path, payloads: list[bytes], compression: str = "") -> Path:
    writer = Writer1(path)
    if compression:
        writer.set_compression(Writer1.CompressionFormat[compression.upper()])
    if compression == "lz4":
        writer.compressor = lambda data: LIES["lz4"](data) if LYING in data else lz4_frame(data)
    with writer:
        connection = writer.add_connection(TOPIC, IMAGE, typestore=ROS1)
        for number, raw in enumerate(payloads):
            writer.write(connection, 10**9 * (number + 1), raw)
    return path


LYING = b"this chunk is to lie"


def lz4_frame(data: bytes, claim: int = 0) -> bytes:
    context = lz4.frame.create_compression_context()
    head = lz4.frame.compress_begin(context, auto_flush=True, source_size=claim)
    body = lz4.frame.compress_chunk(context, data) + struct.pack("<I", 0)
    return bytes(head + body)


def zstd_frame(data: bytes, claim: int) -> bytes:
    """Return a frame of one raw block with an eight-byte content size (RFC 8878)."""
    head = struct.pack("<IBBQ", 0xFD2FB528, 0xC0, 0x50, claim)
    return head + (len(data) << 3 | 1).to_bytes(3, "little") + data


LIES = {
    "lz4": lambda data: lz4_frame(data, 2**40),
    "zstd": lambda data: zstd_frame(data, 2**40),
}


@contextmanager
def frugal(limit: int = 32 * MEBIBYTE) -> Iterator[None]:
    """Assert that Python and its libraries never hold more than `limit` bytes at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def frames_before_the_error(path: Path) -> int:
    """Return how many frames come before the one error, which no lack of memory caused."""
    frames: list[Any] = []
    with frugal(), pytest.raises(D2RosError) as caught:
        frames.extend(open_source(path, TOPIC))
    assert "emory" not in str(caught.value)
    return len(frames)


def mcap_records(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield opcode and place of every record outside chunks."""
    place = len(MAGIC)
    while place < len(content) - len(MAGIC):
        yield content[place], place
        place += 9 + struct.unpack_from("<Q", content, place + 1)[0]


CLAIMS = [2**31 - 1, 2**40, 2**62]
MCAP_PLACES = {
    # What is damaged: the opcode of its record, the place in it, how many bytes.
    "header record": (1, 1, 8),
    "header string": (1, 9, 4),
    "chunk record": (6, 1, 8),
    "compressed size in a chunk": (6, 9 + 32, 8),
    "message index": (7, 1, 8),
    "channel in the summary": (4, 1, 8),
    "schema in the summary": (3, 9 + 2, 4),
    "statistics": (11, 1, 8),
}


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("what", MCAP_PLACES)
@pytest.mark.parametrize("maker", ["d2_ros", "rosbags"])
def test_mcap_length_that_claims_too_much(
    tmp_path: Path, little_memory: None, maker: str, what: str, claim: int
) -> None:
    payloads = [serialized(message) for message in messages()]
    if maker == "d2_ros":
        path = write_mcap(tmp_path / "a.mcap", payloads)
    else:
        folder = write_rosbag2(tmp_path / "a", payloads, "mcap")
        path = folder / "a.mcap"
    opcode, offset, width = MCAP_PLACES[what]
    content = bytearray(path.read_bytes())
    place = next(start for code, start in mcap_records(content) if code == opcode) + offset
    content[place : place + width] = min(claim, 2 ** (8 * width) - 1).to_bytes(width, "little")
    path.write_bytes(content)
    with frugal():
        try:
            count = len(list(open_source(path, TOPIC)))
        except D2RosError as error:
            count = None
            reason = str(error)
    # An index that rosbags does not look at may lie, and then every frame is there.
    assert count == 4 if count is not None else "emory" not in reason


@pytest.mark.parametrize("claim", [2**31 - 1, 2**32 - 1])
@pytest.mark.parametrize("what", ["bag header", "chunk header", "chunk", "connection", "index"])
def test_rosbag1_length_that_claims_too_much(
    tmp_path: Path, little_memory: None, what: str, claim: int
) -> None:
    path = write_rosbag1(tmp_path / "a.bag", [serialized1(message) for message in messages()])
    content = bytearray(path.read_bytes())
    places = list(rosbag1_records(content))
    kind, data = {"bag header": (3, 0), "chunk header": (5, 0), "chunk": (5, 1),
                  "connection": (7, 1), "index": (4, 1)}[what]  # fmt: skip
    place = next(place[data] for op, *place in places if op == kind)
    content[place : place + 4] = struct.pack("<I", claim)
    path.write_bytes(content)
    # What lies behind the messages does not keep them from being read.
    assert frames_before_the_error(path) == (4 if what in ("connection", "index") else 0)


def rosbag1_records(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield kind, place of the header's length and place of the data's length of every record."""
    place = len(b"#ROSBAG V2.0\n")
    while place < len(content):
        (size,) = struct.unpack_from("<I", content, place)
        header = content[place + 4 : place + 4 + size]
        data = place + 4 + size
        yield header[header.index(b"op=") + 3], place, data
        place = data + 4 + struct.unpack_from("<I", content, data)[0]


@pytest.mark.parametrize(("place", "width"), [(16, 2), (20, 1), (28, 4)])
def test_sqlite_header_that_claims_too_much(
    tmp_path: Path, little_memory: None, place: int, width: int
) -> None:
    payloads = [serialized(message) for message in messages()]
    path = write_rosbag2(tmp_path / "a", payloads, "sqlite3") / "a.db3"
    content = bytearray(path.read_bytes())
    content[place : place + width] = b"\xff" * width
    path.write_bytes(content)
    with frugal():
        try:
            assert len(list(open_source(path, TOPIC))) == 4
        except D2RosError as error:
            reason = str(error)
        else:
            reason = ""
    assert "emory" not in reason


@pytest.mark.parametrize("storage", ["a.mcap", "cut.mcap", "mcap", "sqlite3", "a.bag"])
def test_array_in_a_message_that_claims_too_much(
    tmp_path: Path, little_memory: None, storage: str
) -> None:
    old = storage == "a.bag"
    payloads = [(serialized1 if old else serialized)(message) for message in messages()]
    payloads[2] = too_long(payloads[2])
    path = tmp_path / storage
    if old:
        write_rosbag1(path, payloads)
    elif path.suffix:
        write_mcap(path, payloads)
        content = path.read_bytes()
        path.write_bytes(content[:-8] if storage.startswith("cut") else content)
    else:
        write_rosbag2(path, payloads, storage)
    assert frames_before_the_error(path) == 2


def mcap_of_chunk(path: Path, compression: str, data: bytes, size: int, index: bool) -> Path:
    """Write a file of one chunk, without a summary; without its end unless `index`."""
    builder = RecordBuilder()
    builder.write(MAGIC)
    Header("ros2", "test").write(builder)
    Chunk(compression, data, 10**10, 0, 0, size).write(builder)
    if index:
        DataEnd(0).write(builder)
        Footer(0, 0, 0).write(builder)
        builder.write(MAGIC)
    path.write_bytes(builder.end())
    return path


def chunk_of(payloads: list[bytes], path: Path) -> bytes:
    """Return the records in the one chunk of a bag of `payloads`, not compressed."""
    content = write_mcap(path, payloads).read_bytes()
    records = StreamReader(BytesIO(content), emit_chunks=True).records
    return next(record.data for record in records if isinstance(record, Chunk))


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_mcap_chunk_that_claims_too_much(
    tmp_path: Path, little_memory: None, compression: str, index: bool
) -> None:
    records = chunk_of([serialized(message) for message in messages()], tmp_path / "a.mcap")
    honest = {"lz4": lz4_frame, "zstd": zstandard.compress}[compression](records)
    path = mcap_of_chunk(tmp_path / "b.mcap", compression, honest, len(records), index)
    if index:
        assert len(list(open_source(path, TOPIC))) == 4
    else:
        assert frames_before_the_error(path) == 4
    lying = LIES[compression](records)
    mcap_of_chunk(path, compression, lying, len(records), index)
    assert frames_before_the_error(path) == 0
    mcap_of_chunk(path, compression, honest, 2**40, index)
    assert frames_before_the_error(path) == 0


def test_compressed_rosbag1_chunk_that_claims_too_much(tmp_path: Path, little_memory: None) -> None:
    payloads = [serialized1(message) for message in messages()]
    assert len(list(open_source(write_rosbag1(tmp_path / "a.bag", payloads, "lz4")))) == 4
    write_rosbag1(tmp_path / "b.bag", [*payloads, LYING], "lz4")
    assert frames_before_the_error(tmp_path / "b.bag") == 0


@pytest.mark.parametrize("compression", ["lz4", "bz2", "zstd"])
def test_chunk_that_swells_is_refused(monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    monkeypatch.setattr(validation, "LARGEST", 4 * MEBIBYTE)
    squeeze = {"lz4": lz4.frame.compress, "bz2": bz2.compress, "zstd": zstandard.compress}
    bomb = squeeze[compression](bytes(64 * MEBIBYTE))
    with frugal(16 * MEBIBYTE), pytest.raises(ValueError, match="holds more than that"):
        validation.decompress(compression, bomb, 4 * MEBIBYTE)
    fits = squeeze[compression](bytes(4 * MEBIBYTE))
    assert validation.decompress(compression, fits, 4 * MEBIBYTE) == bytes(4 * MEBIBYTE)
    with pytest.raises(ValueError, match=r"claims 5 MiB, more than the 4 MiB"):
        validation.decompress(compression, fits, 5 * MEBIBYTE)


def test_record_that_is_there_but_beyond_measure_is_refused(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "a.mcap", [serialized(messages(1)[0])] * 2000)
    content = bytearray(path.read_bytes())
    _, place = (start for code, start in mcap_records(content) if code == 6)
    content[place + 1 : place + 9] = struct.pack("<Q", 2**31)
    content[place + 41 : place + 49] = struct.pack("<Q", 2**31 - 40)
    path.write_bytes(content[:-8])
    with path.open("r+b") as file:
        file.truncate(2**32)  # sparse: takes no room on the disk
    frames: list[Any] = []
    with frugal(), pytest.raises(D2RosError, match=r"claims 2048 MiB, more than the 256 MiB"):
        frames.extend(open_source(path))
    assert len(frames) > 1000


def test_file_gives_what_it_holds(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(3 * MEBIBYTE)
    path = validation.BoundedPath(tmp_path) / "file"
    path.write_bytes(content)
    assert isinstance(path, validation.BoundedPath)
    with frugal(16 * MEBIBYTE), path.open("rb") as file:
        assert file.read(10) == content[:10]
        assert file.read(2**50) == content[10:]
        assert file.read(2**50) == file.read(5) == file.read() == b""
        file.seek(-7, 2)
        assert file.read() == content[-7:]
        file.seek(5)
        assert file.read(2 * MEBIBYTE) == content[5 : 2 * MEBIBYTE + 5]
        file.seek(2**40)
        assert file.read(2**40) == b""
    with path.open("rb") as file, path.open("ab") as more:
        file.read(2**50)
        more.write(b"still recording")
        more.flush()
        assert file.read(2**50) == b"still recording"


@pytest.mark.parametrize("storage", ["lz4.mcap", "zstd.mcap", "zstd", "messages", "lz4", "bz2"])
def test_honest_compressed_bags_are_read(tmp_path: Path, storage: str) -> None:
    items, path = (
        messages(200),
        tmp_path / f"{storage}{'.bag' if storage in ('lz4', 'bz2') else ''}",
    )
    if storage.endswith(".mcap"):
        with path.open("wb") as file:
            kind = CompressionType[storage.split(".")[0].upper()]
            writer = Writer(file, chunk_size=10_000, compression=kind)
            writer.start(profile="ros2", library="test")
            text = build.TYPES.generate_msgdef(IMAGE, ros_version=2)[0].encode()
            channel = writer.register_channel(
                TOPIC, "cdr", writer.register_schema(IMAGE, "ros2msg", text)
            )
            for message in items:
                stamp = build.stamp_of(message)
                writer.add_message(channel, stamp, serialized(message), stamp)
            writer.finish()
    elif path.suffix:
        write_rosbag1(path, [serialized1(message) for message in items], storage)
    else:
        mode = CompressionMode.MESSAGE if storage == "messages" else CompressionMode.STORAGE
        write_rosbag2(path, [serialized(message) for message in items], "mcap", mode)
    frames = list(open_source(path))
    assert [frame.stamp for frame in frames] == [build.stamp_of(message) for message in items]
    np.testing.assert_array_equal(frames[-1].image, PICTURE)
    if storage.endswith(".mcap"):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert 50 < frames_before_the_error(path) < 150
