"""Frames that cannot be used, cameras that change and stretches, on the real commands."""

import json
import struct

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from d2_ros.camera import Camera
from d2_ros.sources import messages as build
from d2_ros.sources import open_source
from d2_ros.sources.writer import BagWriter

PREFIX = "/d2_frontend/camera/"


def picture(number, shape=(24, 32)):
    return np.random.default_rng(number).integers(0, 255, shape, np.uint8)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(6):
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), picture(number))
    return tmp_path / "images"


def run(d2_ros, verb, source, out, *others):
    figures = out.with_suffix(".json")
    option = ["--out"] if verb == "replay" else []
    outcome = d2_ros(verb, source, *option, out, "--json", figures, *others)
    return outcome, json.loads(figures.read_text()) if figures.exists() else {}


def camera(focal=120.0, width=32, height=24, **other):
    matrix = [[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]
    return Camera(width, height, matrix, np.zeros(5), **other)


def spoil_jpeg(path):
    content = cv2.imencode(".jpg", picture(0, (240, 320)))[1].tobytes()
    path.with_suffix(".jpg").write_bytes(content[: len(content) // 2])
    path.unlink()


SPOILED = {
    "half a JPEG": spoil_jpeg,
    "an empty file": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("<html>404 not found</html>"),
    "a PNG that claims a billion pixels": lambda path: path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 1 << 15, 1 << 15) + b"IEND"
    ),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("/nowhere.png")),
    "a folder of that name": lambda path: (path.unlink(), path.mkdir()),
    "float values": lambda path: (
        path.unlink(),
        cv2.imwrite(str(path.with_suffix(".tiff")), picture(0).astype(np.float32)),
    ),
}


@pytest.mark.parametrize("verb", ["replay", "convert"])
@pytest.mark.parametrize("fault", SPOILED)
def test_one_bad_image_of_a_folder_is_left_out(
    tmp_path, folder, fault, verb, d2_ros, fake_frontend
):
    SPOILED[fault](folder / "2.png")
    out = tmp_path / "out.mcap"
    outcome, figures = run(d2_ros, verb, folder, out)
    assert outcome.code == 2
    assert "1 of 6 frames were left out" in outcome.err
    assert str(folder / "2.") in outcome.err
    assert (figures["frames"], figures["frames_refused"]) == (5, 1)
    topic = PREFIX + "features" if verb == "replay" else "/camera/image_raw"
    with AnyReader([out]) as reader:
        stamps = [time for _, time, _ in reader.messages(
            [item for item in reader.connections if item.topic == topic]
        )]  # fmt: skip
    assert stamps == [10**8 * number for number in (1, 2, 4, 5, 6)]


@pytest.mark.parametrize("verb", ["replay", "convert"])
def test_one_bad_image_of_a_bag_is_left_out(tmp_path, verb, d2_ros, fake_frontend):
    with BagWriter(tmp_path / "in.mcap") as bag:
        for number in range(6):
            message = build.image(10**9 * (number + 1), "c", picture(number))
            if number == 3:
                message.encoding = "h265"
            bag.write("/camera/image_raw", message)
    outcome, figures = run(d2_ros, verb, tmp_path / "in.mcap", tmp_path / "out.mcap")
    assert outcome.code == 2
    assert "1 of 6 frames were left out: /camera/image_raw at 4000000000 ns" in outcome.err
    assert "'h265' is not supported" in outcome.err
    assert figures["frames"] == 5


def test_poses_stay_with_their_images_when_one_is_left_out(tmp_path, d2_ros):
    folder = tmp_path / "kitti"
    (folder / "image_0").mkdir(parents=True)
    for number in range(4):
        cv2.imwrite(str(folder / "image_0" / f"{number:06}.png"), picture(number))
    (folder / "calib.txt").write_text("P0: 50 0 15.5 0 0 51 11.5 0 0 0 1 0\n")
    (folder / "times.txt").write_text("1\n2\n3\n4\n")
    rows = [f"1 0 0 {number} 0 1 0 0 0 0 1 0\n" for number in range(4)]
    (folder / "poses.txt").write_text("".join(rows))
    (folder / "image_0" / "000001.png").write_bytes(b"")
    outcome, figures = run(d2_ros, "convert", folder, tmp_path / "out.mcap")
    assert outcome.code == 2
    assert (figures["frames"], figures["poses"]) == (3, 3)
    written = open_source(tmp_path / "out.mcap")
    assert [frame.stamp for frame in written] == [10**9, 3 * 10**9, 4 * 10**9]
    np.testing.assert_allclose(written.poses()[:, 0, 3], [0, 2, 3])


@pytest.mark.parametrize("verb", ["replay", "convert"])
def test_what_macos_leaves_beside_images_is_ignored(tmp_path, folder, verb, d2_ros, fake_frontend):
    (folder / "._1.png").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
    outcome, figures = run(d2_ros, verb, folder, tmp_path / "out.mcap")
    assert outcome.code == 0, outcome.err
    assert figures["frames"] == 6


@pytest.mark.parametrize(
    ("changes", "resets"),
    [
        pytest.param([{}, {}, {"focal": 240.0}, {"focal": 240.0}], 1, id="focal length"),
        pytest.param([{}, {}, {"height": 20}, {"height": 20}], 1, id="image size"),
        pytest.param([{}, {"focal": 120.001}, {}, {"focal": 119.999}], 0, id="jitter"),
        pytest.param([{}, {"focal": 240.0}, {}, {"focal": 240.0}], 3, id="two publishers"),
        pytest.param([{"focal": 120 + 0.5 * n} for n in range(30)], 5, id="drift"),
    ],
)
def test_another_camera_drops_the_window_of_replay(
    tmp_path, changes, resets, d2_ros, fake_frontend
):
    """The same rule as the node's. Drift: within 16 px of the centre 0.05 px are 0.3 px of f."""
    with BagWriter(tmp_path / "in.mcap") as bag:
        for number, change in enumerate(changes):
            seen, stamp = camera(**change), 10**9 * (number + 1)
            size = seen.width, seen.height
            bag.write("/camera/camera_info", build.camera_info(stamp, "c", seen, *size))
            bag.write("/camera/image_raw", build.image(stamp, "c", picture(number, size[::-1])))
    outcome, figures = run(d2_ros, "replay", tmp_path / "in.mcap", tmp_path / "out.mcap")
    assert outcome.code == 0, outcome.err
    assert figures["frames"] == len(changes)
    if resets == 5:  # drift: not at every frame, and not never
        assert 5 <= figures["resets"] < len(changes)
    else:
        assert figures["resets"] == resets
    assert fake_frontend[0].resets == figures["resets"]


def test_images_of_several_sizes_in_a_folder_drop_the_window(
    tmp_path, folder, d2_ros, fake_frontend
):
    for number in (2, 3):
        cv2.imwrite(str(folder / f"{number}.png"), picture(number, (48, 64)))
    outcome, figures = run(d2_ros, "replay", folder, tmp_path / "out.mcap")
    assert outcome.code == 0, outcome.err
    assert (figures["frames"], figures["resets"]) == (6, 2)


@pytest.mark.parametrize("verb", ["replay", "convert"])
def test_start_and_frames_choose_a_stretch(tmp_path, folder, verb, d2_ros, fake_frontend):
    out = tmp_path / "out.mcap"
    outcome, figures = run(d2_ros, verb, folder, out, "--start", "1", "--frames", "3")
    assert outcome.code == 0, outcome.err
    assert figures["frames"] == 3
    topic = PREFIX + "features" if verb == "replay" else "/camera/image_raw"
    with AnyReader([out]) as reader:
        times = [time for item, time, _ in reader.messages() if item.topic == topic]
    assert times == [2 * 10**8, 3 * 10**8, 4 * 10**8]


@pytest.mark.parametrize("verb", ["replay", "convert"])
@pytest.mark.parametrize(
    ("option", "value", "words"),
    [("--start", "6", "no frame after the first 6"), ("--start", "-1", "--start"),
     ("--frames", "0", "--frames"), ("--frames", "x", "--frames")],
)  # fmt: skip
def test_a_stretch_without_frames_is_refused(
    tmp_path, folder, verb, option, value, words, d2_ros, fake_frontend
):
    outcome, _ = run(d2_ros, verb, folder, tmp_path / "out.mcap", option, value)
    assert outcome.code == 2
    assert words in outcome.err
    assert not (tmp_path / "out.mcap").exists()


def test_convert_says_how_many_frames_a_damaged_source_gave(tmp_path, d2_ros):
    with BagWriter(tmp_path / "in.mcap") as bag:
        for number in range(8):
            image = picture(number, (700, 900))
            bag.write("/camera/image_raw", build.image(10**9 * (number + 1), "c", image))
    content = (tmp_path / "in.mcap").read_bytes()
    (tmp_path / "in.mcap").write_bytes(content[: int(0.7 * len(content))])
    out = tmp_path / "out.mcap"
    outcome, figures = run(d2_ros, "convert", tmp_path / "in.mcap", out)
    assert outcome.code == 2
    frames = len(open_source(out))
    assert 0 < frames == figures["frames"] < 8
    assert f"{out}: {frames} frames" in outcome.out
    assert "in.mcap is cut short" in outcome.err
    assert f"the {frames} frames until then are in {out}" in outcome.err
