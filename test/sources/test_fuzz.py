"""Corrupted bags of every storage: frames, or the one error, quickly and in little memory."""

from __future__ import annotations

import os
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
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


@pytest.fixture
def little_memory():
    """Let no allocation take the process more than a gibibyte beyond what it has.

    The libraries trust the lengths in a bag and ask for that much before they look at the file's
    own size; here they are denied it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + GIBIBYTE, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
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
    for name, storage in (("mcap", StoragePlugin.MCAP), ("db3", StoragePlugin.SQLITE3)):
        with Writer2(folder / name, version=9, storage_plugin=storage) as writer:
            connections: dict[str, Any] = {}
            for topic, message in items:
                kind = message.__msgtype__
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=build.TYPES)
                raw = build.TYPES.serialize_cdr(message, kind)
                writer.write(connections[topic], build.stamp_of(message), raw)
    with Writer1(folder / "bag.bag") as writer:
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
    return {
        "bag.bag": folder / "bag.bag",
        "bare.mcap": folder / "bare.mcap",
        "folder.mcap": next((folder / "mcap").glob("*.mcap")),
        "bag.db3": next((folder / "db3").glob("*.db3")),
    }


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


def test_corrupted_bags_give_frames_or_the_one_error(
    originals: dict[str, Path], tmp_path: Path, little_memory: None
) -> None:
    good = damaged = greedy = 0
    slowest = 0.0
    for number in range(COUNT):
        rng = np.random.default_rng(number)
        name = list(originals)[number % len(originals)]
        path = tmp_path / name
        path.write_bytes(corrupt(originals[name].read_bytes(), rng))
        begin = time.monotonic()
        try:
            for frame in open_source(path, "/camera/image_raw"):
                assert frame.image.nbytes < GIBIBYTE
            good += 1
        except D2RosError as error:
            damaged += 1
            greedy += "MemoryError" in str(error)
        except BaseException:
            shutil.copy(path, f"/tmp/d2_ros_fuzz_{number}_{name}")
            raise
        slowest = max(slowest, time.monotonic() - begin)
    print(
        f"{COUNT} bags: {good} read to the end, {damaged} refused ({greedy} of them as they asked "
        f"for more than a gibibyte), slowest {slowest:.2f} s"
    )
    assert damaged > COUNT / 4
    assert slowest < 5
