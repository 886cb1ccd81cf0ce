"""Bags as they are found: split and killed, half indexed, compressed, with files that are gone."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
import zstandard
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.sources import Frame, open_source
from d2_ros.sources import messages as build
from d2_ros.sources.base import UnusableFrame

START = 1_700_000_000_000_000_000
STEP = 100_000_000
CAMERA = Camera(32, 24, [[50, 0, 15.5], [0, 51, 11.5], [0, 0, 1]], [])
IMAGE, INFO = "/camera/image_raw", "/camera/camera_info"
PLAIN = CompressionType.NONE
ROS1 = get_typestore(Stores.ROS1_NOETIC)
Item = tuple[int, str, str, bytes]
"""Time of recording, topic, type, bytes."""


def picture(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(number).integers(0, 256, (24, 32), np.uint8)


def stamp(number: int) -> int:
    return START + STEP * number


def item(topic: str, message: Any, time: int | None = None) -> Item:
    kind = message.__msgtype__
    data = bytes(build.TYPES.serialize_cdr(message, kind))
    return build.stamp_of(message) if time is None else time, topic, kind, data


def image(number: int, topic: str = IMAGE) -> Item:
    return item(topic, build.image(stamp(number), "optical", picture(number)))


def info(number: int = 0, topic: str = INFO, **changes: Any) -> Item:
    message = build.camera_info(stamp(number), "optical", CAMERA, 32, 24)
    for key, value in changes.items():
        setattr(message, key, value)
    return item(topic, message)


def recording(first: int = 0, last: int = 4) -> list[Item]:
    return [info(first), *map(image, range(first, last))]


def write_mcap(
    path: Path, items: Iterable[Item], definitions: bool = True, profile: str = "ros2",
    encoding: str = "cdr", **options: Any,
) -> Path:  # fmt: skip
    with path.open("wb") as file:
        writer = McapWriter(file, chunk_size=2000, **options)
        writer.start(profile=profile, library="test")
        channels: dict[tuple[str, str], int] = {}
        for time, topic, kind, data in items:
            if (topic, kind) not in channels:
                words = build.TYPES.generate_msgdef(kind, ros_version=2)[0].encode()
                told = ("ros2msg", words) if definitions or topic == INFO else ("", b"")
                schema = writer.register_schema(kind, *told)
                channels[topic, kind] = writer.register_channel(topic, encoding, schema)
            writer.add_message(channels[topic, kind], time, data, time)
        writer.finish()
    return path


def write_folder(
    path: Path, items: Iterable[Item], storage: StoragePlugin = StoragePlugin.MCAP,
    version: Any = 9, mode: CompressionMode = CompressionMode.NONE,
) -> Path:  # fmt: skip
    writer = Writer2(path, version=version, storage_plugin=storage)
    if mode != CompressionMode.NONE:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connections: dict[tuple[str, str], Any] = {}
        for time, topic, kind, data in items:
            if (topic, kind) not in connections:
                connections[topic, kind] = writer.add_connection(topic, kind, typestore=build.TYPES)
            writer.write(connections[topic, kind], time, data)
    return path


def write_db3(path: Path, items: Iterable[Item]) -> Path:
    folder = write_folder(path.parent / "written", items, StoragePlugin.SQLITE3)
    shutil.move(next(folder.glob("*.db3")), path)
    shutil.rmtree(folder)
    return path


def write_rosbag1(path: Path, count: int) -> Path:
    with Writer1(path) as bag:
        bag.chunk_threshold = 10_000
        connection = bag.add_connection(IMAGE, "sensor_msgs/msg/Image", typestore=ROS1)
        for number in range(count):
            bag.write(connection, stamp(number), ros1_image(number))
    return path


def ros1_image(number: int) -> bytes:
    message = build.image(stamp(number), "optical", picture(number))
    fields = {key: getattr(message, key) for key in message.__dataclass_fields__}
    fields.pop("__msgtype__", None)
    fields["header"] = ROS1.types["std_msgs/msg/Header"](number, message.header.stamp, "optical")
    made = ROS1.types["sensor_msgs/msg/Image"](**fields)
    return bytes(ROS1.serialize_ros1(made, "sensor_msgs/msg/Image"))


def cut(path: Path, share: float = 0.6) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def read(path: Path, topic: str | None = None) -> tuple[list[Frame], list[str], str]:
    """The frames, the sentences of those that are unusable, and that of the damage at the end."""
    frames, refused, damage = [], [], ""
    source = open_source(path, topic)
    iterator = iter(source)
    while True:
        try:
            frames.append(next(iterator))
        except StopIteration:
            break
        except UnusableFrame as error:
            refused.append(str(error))
        except D2RosError as error:
            damage = str(error)
            assert next(iterator, None) is None
    return frames, refused, damage


def assert_whole(path: Path, count: int = 4) -> None:
    frames, refused, damage = read(path)
    assert (refused, damage) == ([], "")
    assert [frame.stamp for frame in frames] == [stamp(number) for number in range(count)]
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, picture(number))
    assert len(open_source(path)) == count


SPLITS: dict[str, Callable[[Path, Iterable[Item]], Path]] = {"mcap": write_mcap, "db3": write_db3}


@pytest.mark.parametrize("kind", SPLITS)
def test_a_recording_killed_while_it_split_gives_all_its_frames_and_names_each_damaged_file(
    tmp_path: Path, kind: str
) -> None:
    for number in range(13):
        SPLITS[kind](tmp_path / f"rec_{number}.{kind}", recording(20 * number, 20 * number + 20))
    cut(tmp_path / f"rec_4.{kind}")
    cut(tmp_path / f"rec_12.{kind}")
    (tmp_path / f"rec_7.{kind}").write_bytes(b"")
    (tmp_path / f"._rec_0.{kind}").write_bytes(b"macOS")
    frames, refused, damage = read(tmp_path)
    assert refused == []
    found = {(frame.stamp - START) // STEP for frame in frames}
    assert len(found) == len(frames)
    assert found >= {n for n in range(260) if n // 20 not in (4, 7, 12)}
    if kind == "mcap":  # whose files can be read up to the damage
        assert {n // 20 for n in found} == set(range(13)) - {7}
    stamps = [frame.stamp for frame in frames]
    assert stamps == sorted(stamps)
    for number in range(13):
        assert (f"/rec_{number}.{kind} " in damage) == (number in (4, 7, 12))


def test_files_that_a_recorder_split_keep_their_order_when_its_clock_jumps_back(
    tmp_path: Path,
) -> None:
    write_mcap(tmp_path / "rec_0.mcap", [image(10), image(11)])
    write_mcap(tmp_path / "rec_1.mcap", [image(0), image(1)])
    stamps = [frame.stamp for frame in read(tmp_path)[0]]
    assert stamps == [stamp(number) for number in (10, 11, 0, 1)]


def test_files_of_two_recorders_are_read_at_the_same_time(tmp_path: Path) -> None:
    write_mcap(tmp_path / "images.mcap", [image(0), image(2)])
    other = Camera(32, 24, [[70, 0, 15.5], [0, 71, 11.5], [0, 0, 1]], [])
    late = build.camera_info(stamp(1), "optical", other, 32, 24)
    write_mcap(tmp_path / "infos.mcap", [info(0), item(INFO, late)])
    focal = [frame.camera.matrix[0, 0] for frame in read(tmp_path)[0] if frame.camera]
    assert focal == [50, 70]


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_file_that_metadata_names_and_that_is_gone_is_named_after_the_rest(
    tmp_path: Path, storage: StoragePlugin
) -> None:
    bag = write_folder(tmp_path / "bag", recording(), storage)
    ending = storage.name.lower().replace("sqlite3", "db3")
    text = yaml.safe_load((bag / "metadata.yaml").read_text())
    told = text["rosbag2_bagfile_information"]
    told["relative_file_paths"] = [f"bag.{ending}", f"bag_1.{ending}", f"bag_2.{ending}"]
    (bag / "metadata.yaml").write_text(yaml.safe_dump(text))
    frames, _, damage = read(bag)
    assert len(frames) == 4
    assert f"lacks bag_1.{ending}, bag_2.{ending}, which its metadata.yaml names" in damage
    (bag / f"bag.{ending}").unlink()
    with pytest.raises(D2RosError, match=f"lacks bag.{ending}, bag_1"):
        open_source(bag)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"index_types": IndexType.CHUNK}, id="no message index"),
        pytest.param({"index_types": IndexType.CHUNK, "use_statistics": False}, id="nor counts"),
        pytest.param({"index_types": IndexType.NONE}, id="no index"),
        pytest.param({"index_types": IndexType.MESSAGE}, id="no chunk index"),
        pytest.param({"use_chunking": False}, id="no chunks"),
        pytest.param({"use_chunking": False, "use_statistics": False}, id="no chunks nor counts"),
        pytest.param({"repeat_channels": False, "repeat_schemas": False}, id="nothing repeated"),
        pytest.param({"use_summary_offsets": False, "enable_crcs": False}, id="no sums"),
        pytest.param({"definitions": False}, id="no definition of images"),
        pytest.param({"profile": ""}, id="no profile"),
    ],
)
def test_mcap_is_read_whatever_its_writer_left_out(tmp_path: Path, options: Any) -> None:
    assert_whole(write_mcap(tmp_path / "a.mcap", recording(), **options))


def test_chunks_of_which_one_has_lost_its_message_index_are_all_read(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "a.mcap", recording(0, 8))
    content = bytearray(path.read_bytes())
    place, record = next(
        (start, content[start : start + 9 + size])
        for start, code, size in mcap_records(content)
        if code == 8 and struct.unpack_from("<I", content, start + 41)[0]
    )
    offsets = struct.unpack_from("<I", record, 41)[0]
    for start in range(place + 45, place + 45 + offsets, 10):  # of a channel that there is not
        struct.pack_into("<H", content, start, 999)
    footer = len(content) - 8 - 20
    struct.pack_into("<I", content, footer + 16, 0)  # no checksum of the summary
    path.write_bytes(content)
    assert_whole(path, 8)


def mcap_records(content: bytes) -> Iterable[tuple[int, int, int]]:
    place = 8
    while place < len(content) - 8:
        size = struct.unpack_from("<Q", content, place + 1)[0]
        yield place, content[place], size
        place += 9 + size


def test_unchunked_messages_out_of_order_are_read_in_the_order_of_recording(
    tmp_path: Path,
) -> None:
    items = [info(), image(1), image(0), image(2)]
    frames, _, damage = read(write_mcap(tmp_path / "a.mcap", items, use_chunking=False))
    assert damage == ""
    assert [(frame.stamp - START) // STEP for frame in frames] == [1, 0, 2]


def test_an_index_that_promises_more_than_there_is_ends_in_an_error(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "a.mcap", recording(), enable_crcs=False, compression=PLAIN)
    content = bytearray(path.read_bytes())
    place = content.rindex(picture(2).tobytes())
    content[content.rindex(b"\x05", 0, content.rindex(b"\x00\x01\x00\x00", 0, place) - 20)] = 0x99
    path.write_bytes(content)
    frames, _, damage = read(path)
    assert [(frame.stamp - START) // STEP for frame in frames] == [0, 1, 3]
    assert f"{path} is cut short or damaged (messages that its index promises are missing: 1)" in (
        damage
    )


def test_counts_that_promise_more_than_there_is_do_not_keep_from_reading(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "a.mcap", recording())
    content = bytearray(path.read_bytes())
    for start, code, size in list(mcap_records(content)):
        if code == 0x0B:
            struct.pack_into("<Q", content, start + 9, 100)  # messages in all
        if code == 0x0F:  # data end: no checksum
            content[start + 9 : start + 9 + size] = bytes(size)
    struct.pack_into("<I", content, len(content) - 12, 0)
    path.write_bytes(content)
    assert_whole(path)  # scanned: all that there is


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("how", ["folder", "file", "no metadata"])
def test_compressed_messages_are_read_from_folder_and_file(
    tmp_path: Path, storage: StoragePlugin, how: str
) -> None:
    bag = write_folder(tmp_path / "bag", recording(), storage, mode=CompressionMode.MESSAGE)
    if how == "no metadata":
        (bag / "metadata.yaml").unlink()
    assert_whole(next(bag.glob("bag.*")) if how == "file" else bag)


@pytest.mark.parametrize("writer", [write_mcap, write_db3])
@pytest.mark.parametrize("how", ["folder", "file", "named without"])
def test_files_compressed_as_a_whole_are_read(tmp_path: Path, writer: Any, how: str) -> None:
    kind = writer.__name__.split("_")[1]
    path = writer(tmp_path / f"a b.{kind}", recording())
    packed = path.with_name(path.name + ".zstd")
    packed.write_bytes(zstandard.compress(path.read_bytes()))
    path.unlink()
    if how == "named without":
        told = {"rosbag2_bagfile_information": {"relative_file_paths": [path.name]}}
        (tmp_path / "metadata.yaml").write_text(yaml.safe_dump(told))
    assert_whole(packed if how == "file" else tmp_path)
    cut(packed)
    try:
        frames, _, damage = read(packed)
    except D2RosError as error:
        frames, damage = [], str(error)
    assert len(frames) < 4
    assert f"{packed} is cut short or damaged" in damage
    assert sorted(tmp_path.iterdir()) == sorted(
        {packed, *tmp_path.glob("metadata.yaml")}
    )  # nothing is left beside it


@pytest.mark.parametrize("name", ["A.MCAP", "a b.mcap", "a?b=1.mcap", "été#1.mcap"])
def test_names_of_mcap_files(tmp_path: Path, name: str) -> None:
    assert_whole(write_mcap(tmp_path / name, recording()))


@pytest.mark.parametrize("name", ["A.DB3", "a b.db3", "a?mode=rwc.db3", "a#1.db3", "a%41.db3"])
def test_names_of_sqlite_files(tmp_path: Path, name: str) -> None:
    assert_whole(write_db3(tmp_path / name, recording()))


@pytest.mark.parametrize("name", ["A.BAG", "a b.bag", "a.bag.active", "a.orig.bag"])
def test_names_of_rosbag1_files(tmp_path: Path, name: str) -> None:
    write_rosbag1(tmp_path / "x.bag", 4).rename(tmp_path / name)
    assert_whole(tmp_path / name)


@pytest.mark.parametrize("killed", ["between chunks", "in a chunk", "in a message"])
def test_a_rosbag1_file_without_index_is_read_as_far_as_it_goes(
    tmp_path: Path, killed: str
) -> None:
    path = write_rosbag1(tmp_path / "a.bag.active", 40)
    content = bytearray(path.read_bytes())
    place = content.index(b"index_pos=") + 10
    index = int.from_bytes(content[place : place + 8], "little")
    content[place : place + 8] = bytes(8)
    del content[index:]
    if killed != "between chunks":  # rosbag fills in a chunk's length when it closes the chunk
        place = content.index(b"\n") + 1
        while place < len(content):
            head = int.from_bytes(content[place : place + 4], "little")
            length = place + 4 + head
            size = int.from_bytes(content[length : length + 4], "little")
            if b"compression=none" in content[place:length]:
                last, held = length, size
            place = length + 4 + size
        content[last : last + 4] = bytes(4)
        del content[last + 4 + held - (1000 if killed == "in a message" else 0) :]
    path.write_bytes(content)
    if killed != "in a message":
        assert_whole(path, 40)
        return
    frames, refused, damage = read(path)
    assert 20 < len(frames) < 40
    assert refused == []
    assert "a.bag.active is cut short" in damage
    assert "rosbag reindex" in damage


@pytest.mark.parametrize("damage", ["", "rubbish", "*"])
def test_rosbag1_with_a_definition_that_nobody_can_read(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.bag"
    with Writer1(path) as bag:
        odd = bag.add_connection("/odd", "my_msgs/msg/Odd", msgdef=damage or " ", md5sum="0" * 32)
        bag.write(odd, START, b"abcd")
        words = damage or " "
        connection = bag.add_connection(
            IMAGE, "sensor_msgs/msg/Image", msgdef=words, md5sum="0" * 32
        )
        for number in range(4):
            bag.write(connection, stamp(number), ros1_image(number))
    assert_whole(path)


def test_mcap_that_was_converted_from_ros1(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with path.open("wb") as file:
        writer = McapWriter(file)
        writer.start(profile="ros1", library="mcap go")
        words = ROS1.generate_msgdef("sensor_msgs/msg/Image")[0].encode()
        schema = writer.register_schema("sensor_msgs/Image", "ros1msg", words)
        channel = writer.register_channel(IMAGE, "ros1", schema)
        for number in range(4):
            writer.add_message(channel, stamp(number), ros1_image(number), stamp(number))
        writer.finish()
    assert_whole(path)


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_what_a_killed_recorder_left_beside_its_database(tmp_path: Path, mode: str) -> None:
    path = write_db3(tmp_path / "a.db3", recording(0, 2))
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA journal_mode={mode}")
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.execute("PRAGMA cache_size=1")
    known = dict(database.execute("SELECT name, id FROM topics"))
    for time, topic, _, data in map(image, (2, 3)):
        database.execute(
            "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)",
            (known[topic], time, data),
        )
    if mode == "WAL":
        database.commit()
    else:  # half of a transaction is in the file, the journal tells how to undo it
        database.execute("UPDATE messages SET data = zeroblob(9000)")
    folder = tmp_path / "killed"
    folder.mkdir()
    for file in tmp_path.glob("a.db3*"):
        if not file.name.endswith("-shm"):
            shutil.copy(file, folder)
    database.close()
    before = {file: file.read_bytes() for file in folder.iterdir()}
    assert len(before) == 2
    assert_whole(folder / "a.db3", 4 if mode == "WAL" else 2)
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


METADATA = {
    "Foxy": {"version": 4, "offered": "- history: 3\n  depth: 0\n  reliability: 1\n"},
    "Humble": {"version": 5, "offered": "- history: 3\n  depth: 0\n  reliability: 1\n"},
    "Jazzy": {"version": 9, "offered": [{"history": "keep_last", "depth": 10}]},
    "Rolling, later": {"version": 12, "offered": [{"history": "unheard_of"}], "new_key": [1]},
}


@pytest.mark.parametrize("distribution", METADATA)
@pytest.mark.parametrize("writer", [write_mcap, write_db3])
def test_metadata_of_every_distribution(tmp_path: Path, distribution: str, writer: Any) -> None:
    told = dict(METADATA[distribution])
    path = writer(tmp_path / f"bag_0.{writer.__name__.split('_')[1]}", recording())
    topic = {
        "name": IMAGE, "type": "sensor_msgs/msg/Image", "serialization_format": "cdr",
        "offered_qos_profiles": told.pop("offered"),
    }  # fmt: skip
    text = {
        "rosbag2_bagfile_information": {
            **told,
            "storage_identifier": {".mcap": "mcap", ".db3": "sqlite3"}[path.suffix],
            # As rosbag2 wrote them at first.
            "relative_file_paths": [f"bag/{path.name}"],
            "topics_with_message_count": [{"topic_metadata": topic, "message_count": 4}],
        }
    }
    (tmp_path / "metadata.yaml").write_text(yaml.safe_dump(text))
    assert_whole(tmp_path)


@pytest.mark.parametrize("text", ["", "a: [", "rosbag2_bagfile_information: 3", "\x00"])
def test_metadata_that_was_cut_short_does_not_hide_the_files(tmp_path: Path, text: str) -> None:
    write_mcap(tmp_path / "rec_0.mcap", recording(0, 2))
    write_mcap(tmp_path / "rec_1.mcap", recording(2, 4))
    (tmp_path / "metadata.yaml").write_text(text)
    assert_whole(tmp_path)


@pytest.mark.parametrize("name", ["a.mcap", "a.db3", "a.bag", "a.mcap.zstd"])
def test_a_file_of_no_length_is_called_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(D2RosError, match=rf"{name} is empty, without a single byte"):
        open_source(tmp_path / name)


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_bag_without_messages_says_so(tmp_path: Path, storage: StoragePlugin) -> None:
    bag = write_folder(tmp_path / "bag", [], storage)
    with pytest.raises(D2RosError, match=r"has no images.* \(it holds no messages\)"):
        open_source(bag)
    bag = write_folder(tmp_path / "other", [info()], storage)
    with pytest.raises(D2RosError, match=rf"has no images.* \(it holds {INFO}\)"):
        open_source(bag)


@pytest.mark.parametrize("writer", [write_mcap, write_folder])
def test_of_a_topic_with_two_types_the_frequent_one_is_read(tmp_path: Path, writer: Any) -> None:
    text = item(IMAGE, build.camera_info(stamp(1), "o", CAMERA, 32, 24))
    assert_whole(writer(tmp_path / "a.mcap", [*recording(0, 2), text, *recording(2, 4)[1:]]))


@pytest.mark.parametrize("writer", [write_mcap, write_folder])
def test_stamps_of_zero_are_kept(tmp_path: Path, writer: Any) -> None:
    items = [
        item(IMAGE, build.image(0, "o", picture(number)), stamp(number)) for number in range(3)
    ]
    frames, _, damage = read(writer(tmp_path / "a.mcap", items))
    assert damage == ""
    assert [frame.stamp for frame in frames] == [0, 0, 0]
    np.testing.assert_array_equal(frames[2].image, picture(2))


def test_topics_in_namespaces_keep_their_own_calibration(tmp_path: Path) -> None:
    items = [
        info(0, "/robot/front/camera_info"),
        image(0, "/robot/front/image_raw"),
        image(0, "/robot/rear/image_raw"),
    ]
    path = write_mcap(tmp_path / "a.mcap", items)
    (front,), _, _ = read(path, "/robot/front/image_raw")
    (rear,), _, _ = read(path, "/robot/rear/image_raw")
    assert front.camera is not None
    assert rear.camera is None


def test_calibration_under_another_name_is_pointed_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = [info(0, "/calib/left"), info(0, "/calib/right"), image(0)]
    path = write_mcap(tmp_path / "a.mcap", items)
    (frame,), _, _ = read(path)
    assert frame.camera is None
    (said,) = caplog.messages
    assert f"has no {INFO} beside {IMAGE}: all bearings will be NaN" in said
    assert "camera_info on /calib/left, /calib/right" in said
    assert caplog.records[0].levelno == logging.WARNING
    caplog.clear()
    read(write_mcap(tmp_path / "b.mcap", recording()))
    read(write_mcap(tmp_path / "c.mcap", [image(0)]))
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("changes", "focal"),
    [
        ({"width": 0, "height": 0}, 50),
        ({"width": 0, "height": 24}, 50),
        ({"width": 0, "height": 0, "binning_x": 2, "binning_y": 2}, 25),
    ],
)
def test_a_calibration_without_size_is_that_of_the_images(
    tmp_path: Path, changes: dict[str, int], focal: float
) -> None:
    (frame,), refused, _ = read(write_mcap(tmp_path / "a.mcap", [info(**changes), image(0)]))
    assert refused == []
    assert frame.camera is not None
    assert (frame.camera.width, frame.camera.height) == (32, 24)
    assert frame.camera.matrix[0, 0] == focal


def compressed(number: int, data: bytes) -> Item:
    kind = build.TYPES.types["sensor_msgs/msg/CompressedImage"]
    header = build.header(stamp(number), "optical")
    message = kind(header=header, format="jpeg", data=np.frombuffer(data, np.uint8))
    return item(f"{IMAGE}/compressed", message)


def test_frames_behind_an_unusable_one_are_read(tmp_path: Path) -> None:
    whole = cv2.imencode(".jpg", picture(0))[1].tobytes()
    time, topic, kind, data = compressed(3, whole)
    items = [
        info(),
        compressed(0, whole),
        compressed(1, whole[: len(whole) // 2]),
        compressed(2, b""),
        (time, topic, kind, data[:20]),
        compressed(4, whole),
    ]
    frames, refused, damage = read(write_mcap(tmp_path / "a.mcap", items))
    assert [(frame.stamp - START) // STEP for frame in frames] == [0, 4]
    assert damage == ""
    assert len(refused) == 3
    assert f"{topic} at {stamp(1)} ns: compressed image ('jpeg'" in refused[0]
    assert f"{topic} that was recorded at {stamp(3)} ns is damaged" in refused[2]


def test_a_bad_calibration_costs_the_frames_that_it_belongs_to(tmp_path: Path) -> None:
    items = [info(0), image(0), info(1, distortion_model="magic"), image(1), info(2), image(2)]
    frames, refused, damage = read(write_mcap(tmp_path / "a.mcap", items))
    assert [(frame.stamp - START) // STEP for frame in frames] == [0, 2]
    assert frames[0].camera is frames[1].camera
    (sentence,) = refused
    assert f"{IMAGE} at {stamp(1)} ns: {INFO} is unusable: " in sentence
    assert damage == ""


def test_poses_have_a_row_for_every_frame_the_unusable_among_them(tmp_path: Path) -> None:
    bad = build.image(stamp(1), "o", picture(1))
    bad.encoding = "32FC2"
    poses = [np.eye(4) for _ in range(3)]
    for number, pose in enumerate(poses):
        pose[0, 3] = number
    truth = [item("/ground_truth/pose", build.pose(stamp(n), "world", poses[n])) for n in range(3)]
    path = write_mcap(tmp_path / "a.mcap", [image(0), item(IMAGE, bad), image(2), *truth])
    found = open_source(path).poses()
    assert found is not None
    np.testing.assert_allclose(found[:, 0, 3], [0, 1, 2])
    assert len(read(path)[1]) == 1
