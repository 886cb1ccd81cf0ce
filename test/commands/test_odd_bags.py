"""What the commands that read a bag do with odd ones: every frame, and a sentence for the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mcap.writer import IndexType
from mcap.writer import Writer as McapWriter

from d2_ros.sources import messages as build
from d2_ros.sources import open_source

IMAGE = "/camera/image_raw"


def write(path: Path, first: int, last: int, index: IndexType = IndexType.ALL) -> Path:
    """Write one image of 32x24 for each tenth of a second from `first` to `last`."""
    with path.open("wb") as file:
        writer = McapWriter(file, chunk_size=2000, index_types=index)
        writer.start(profile="ros2", library="test")
        kind = "sensor_msgs/msg/Image"
        words = build.TYPES.generate_msgdef(kind, ros_version=2)[0].encode()
        channel = writer.register_channel(
            IMAGE, "cdr", writer.register_schema(kind, "ros2msg", words)
        )
        for number in range(first, last):
            stamp = 10**9 + number * 10**8
            pixels = np.random.default_rng(number).integers(0, 200, (24, 32), np.uint8)
            data = bytes(build.TYPES.serialize_cdr(build.image(stamp, "o", pixels), kind))
            writer.add_message(channel, stamp, data, stamp)
        writer.finish()
    return path


def arguments(command: str, source: Path, out: Path) -> list[Any]:
    return ["replay", source, "--out", out] if command == "replay" else [command, source, out]


def frames_in(out: Path, command: str) -> int:
    if command == "convert":
        return len(list(open_source(out)))
    from d2_ros.sources.bagfiles import Bag

    return Bag([out]).topics["/d2_frontend/camera/features"][1]


COMMANDS = pytest.mark.parametrize("command", ["replay", "convert"])


@COMMANDS
def test_a_recording_killed_while_it_split(
    tmp_path: Path, d2_ros: Any, fake_frontend: Any, command: str
) -> None:
    folder = tmp_path / "my recording"
    folder.mkdir()
    for number in range(13):
        write(folder / f"rec_{number}.mcap", 2 * number, 2 * number + 2)
    last = folder / "rec_12.mcap"
    last.write_bytes(last.read_bytes()[:100])
    (folder / "rec_5.mcap").write_bytes(b"")
    outcome = d2_ros(*arguments(command, folder, tmp_path / "out.mcap"))
    assert outcome.code == 2
    assert "rec_12.mcap is cut short" in outcome.err
    assert "rec_5.mcap is empty" in outcome.err
    assert frames_in(tmp_path / "out.mcap", command) == 22


@COMMANDS
def test_a_file_that_is_gone(tmp_path: Path, d2_ros: Any, fake_frontend: Any, command: str) -> None:
    (tmp_path / "bag").mkdir()
    write(tmp_path / "bag" / "bag_0.mcap", 0, 3)
    told = {"relative_file_paths": ["bag_0.mcap", "bag_1.mcap"]}
    text = yaml.safe_dump({"rosbag2_bagfile_information": told})
    (tmp_path / "bag" / "metadata.yaml").write_text(text)
    outcome = d2_ros(*arguments(command, tmp_path / "bag", tmp_path / "out.mcap"))
    assert outcome.code == 2
    assert "lacks bag_1.mcap, which its metadata.yaml names" in " ".join(outcome.err.split())
    assert frames_in(tmp_path / "out.mcap", command) == 3


@COMMANDS
def test_mcap_without_message_index(
    tmp_path: Path, d2_ros: Any, fake_frontend: Any, command: str
) -> None:
    path = write(tmp_path / "a.mcap", 0, 4, IndexType.CHUNK)
    outcome = d2_ros(*arguments(command, path, tmp_path / "out.mcap"))
    assert outcome.code == 0, outcome.err
    assert frames_in(tmp_path / "out.mcap", command) == 4


def test_calibration_under_another_name_is_said_on_the_command_line(tmp_path: Path) -> None:
    from d2_ros.sources.writer import BagWriter

    with BagWriter(tmp_path / "a.mcap") as bag:
        bag.write(IMAGE, build.image(10**9, "o", np.zeros((24, 32), np.uint8)))
        bag.write("/calib", build.camera_info(10**9, "o", None, 32, 24))
    command = [sys.executable, "-c", "from d2_ros.cli import main; main()"]
    ran = subprocess.run(
        [*command, "convert", str(tmp_path / "a.mcap"), str(tmp_path / "b.mcap")],
        capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip
    assert f"no /camera/camera_info beside {IMAGE}: all bearings will be NaN" in ran.stderr
    assert "camera_info on /calib" in ran.stderr
