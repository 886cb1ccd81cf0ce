"""Corrupted bags of every storage: frames, or the one error, quickly and in little memory."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.sources import messages as build
from d2_ros.sources import open_source
from d2_ros.sources.writer import BagWriter

COUNT = 2000 if os.environ.get("D2_ROS_FUZZ") else 60
CAMERA = Camera(32, 24, [[50, 0, 15.5], [0, 51, 11.5], [0, 0, 1]], [])
GIBIBYTE = 1 << 30


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    folder = tmp_path_factory.mktemp("bags")
    items: list[tuple[str, Any]] = []
    for number in range(6):
        stamp = 10**9 * (number + 1)
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32), np.uint8)
        items.append(("/camera/camera_info", build.camera_info(stamp, "o", CAMERA, 32, 24)))
        items.append(("/camera/image_raw", build.image(stamp, "o", pixels)))
    with BagWriter(folder / "bare.mcap") as bag:
        for topic, message in items:
            bag.write(topic, message)
    write_rosbag2(folder / "mcap", items, StoragePlugin.MCAP)
    write_rosbag2(folder / "db3", items, StoragePlugin.SQLITE3)
    write_rosbag1(folder / "bag.bag", items)
    plain = {
        "bag.bag": folder / "bag.bag",
        "bare.mcap": folder / "bare.mcap",
        "folder.mcap": next((folder / "mcap").glob("*.mcap")),
        "bag.db3": next((folder / "db3").glob("*.db3")),
    }
    write_rosbag2(folder / "zstd", items, StoragePlugin.MCAP, compressed=True)
    write_lz4_mcap(folder / "lz4.mcap", items)
    for compression in (Writer1.CompressionFormat.LZ4, Writer1.CompressionFormat.BZ2):
        write_rosbag1(folder / f"{compression.name}.bag", items, compression)
    compressed = {
        "lz4.bag": folder / "LZ4.bag",
        "bz2.bag": folder / "BZ2.bag",
        "zstd.mcap": next((folder / "zstd").glob("*.mcap")),
        "lz4.mcap": folder / "lz4.mcap",
    }
    return {"plain": plain, "compressed": compressed}


def write_rosbag2(
    path: Path, items: list[tuple[str, Any]], storage: StoragePlugin, compressed: bool = False
) -> None:
    writer = Writer2(path, version=9, storage_plugin=storage)
    if compressed:
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for topic, message in items:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=build.TYPES)
            raw = build.TYPES.serialize_cdr(message, kind)
            writer.write(connections[topic], build.stamp_of(message), raw)


def write_lz4_mcap(path: Path, items: list[tuple[str, Any]]) -> None:
    with path.open("wb") as file:
        writer = McapWriter(file, compression=CompressionType.LZ4)
        writer.start(profile="ros2", library="test")
        channels: dict[str, int] = {}
        for topic, message in items:
            kind = message.__msgtype__
            if topic not in channels:
                text = build.TYPES.generate_msgdef(kind, ros_version=2)[0].encode()
                schema = writer.register_schema(kind, "ros2msg", text)
                channels[topic] = writer.register_channel(topic, "cdr", schema)
            raw, stamp = bytes(build.TYPES.serialize_cdr(message, kind)), build.stamp_of(message)
            writer.add_message(channels[topic], stamp, raw, stamp)
        writer.finish()


def write_rosbag1(path: Path, items: list[tuple[str, Any]], compression: Any = None) -> None:
    writer = Writer1(path)
    if compression:
        writer.set_compression(compression)
    with writer:
        store = get_typestore(Stores.ROS1_NOETIC)
        kind = "sensor_msgs/msg/Image"
        connection = writer.add_connection("/camera/image_raw", kind, typestore=store)
        for topic, message in items:
            if topic == "/camera/image_raw":
                fields = {key: getattr(message, key) for key in message.__dataclass_fields__}
                fields.pop("__msgtype__", None)
                header = store.types["std_msgs/msg/Header"](0, message.header.stamp, "o")
                old = store.types[kind](**{**fields, "header": header})
                raw = store.serialize_ros1(old, kind)
                writer.write(connection, build.stamp_of(message), raw)


def corrupt(content: bytes, rng: np.random.Generator) -> bytes:
    """Return `content` with one to four wounds of different kinds."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(0, max(len(data), 1)))
        length = int(rng.integers(1, 40))
        kind = rng.integers(0, 6)
        if kind == 0:
            data[place : place + 1] = rng.bytes(1)
        elif kind == 1:
            data[place : place + length] = rng.bytes(length)
        elif kind == 2:  # a length field that claims a lot
            size = int(rng.choice([2**63 - 1, 2**40, 2**31 - 1, 2**32 - 1, 0]))
            data[place : place + 8] = size.to_bytes(8, "little")
        elif kind == 3:
            del data[place:]
        elif kind == 4:
            del data[place : place + length]
        else:
            data[place:place] = data[place : place + length]
    return bytes(data)


@pytest.mark.parametrize(
    "storages", [pytest.param("plain", id="plain"), pytest.param("compressed", id="compressed")]
)
def test_corrupted_bags_give_frames_or_the_one_error(
    originals: dict[str, dict[str, Path]], storages: str, tmp_path: Path, little_memory: None
) -> None:
    good = damaged = 0
    greedy: list[tuple[int, str]] = []
    slowest = 0.0
    paths = originals[storages]
    for number in range(COUNT):
        rng = np.random.default_rng(number)
        name = list(paths)[number % len(paths)]
        path = tmp_path / name
        path.write_bytes(corrupt(paths[name].read_bytes(), rng))
        begin = time.monotonic()
        try:
            for frame in open_source(path, "/camera/image_raw"):
                assert frame.image.nbytes < GIBIBYTE
            good += 1
        except D2RosError as error:
            damaged += 1
            if re.search("memory|allocate", str(error), re.IGNORECASE):
                greedy.append((number, str(error)))
        except BaseException:
            shutil.copy(path, f"/tmp/d2_ros_fuzz_{number}_{name}")
            raise
        slowest = max(slowest, time.monotonic() - begin)
    print(
        f"{COUNT} {storages} bags: {good} read to the end, {damaged} refused ({len(greedy)} of "
        f"them for want of memory), slowest {slowest:.2f} s"
    )
    assert greedy == []
    assert damaged > COUNT / 4
    assert slowest < 5
