"""No command destroys what it reads, nor a good file by failing."""

import os
import resource
import shutil
import signal

import cv2
import numpy as np
import pytest

from d2_ros.sources import messages as build
from d2_ros.sources import open_source
from d2_ros.sources.bagfiles import Bag
from d2_ros.sources.writer import BagWriter


def store(folder, count=3):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = np.random.default_rng(number).integers(0, 255, (24, 32), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


@pytest.fixture
def images(tmp_path):
    return store(tmp_path / "images")


@pytest.fixture
def bag(tmp_path):
    """A rosbag2 folder that a killed recorder has left: one file, no metadata.yaml."""
    (tmp_path / "bag").mkdir()
    with BagWriter(tmp_path / "bag" / "bag_0.mcap") as writer:
        for number in range(3):
            image = np.full((24, 32), 10 * number, np.uint8)
            writer.write("/camera/image_raw", build.image(10**9 + number, "c", image))
    return tmp_path / "bag"


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


SPELLINGS = ["itself", "beside", "new folder", "relative", "link to it", "link to the folder",
             "hard link", "link as source"]  # fmt: skip


def spelled(bag, spelling, monkeypatch):
    """A source and an output that is, or lies inside, it."""
    file, near = bag / "bag_0.mcap", bag.parent
    if spelling == "relative":
        monkeypatch.chdir(bag)
        return ".", "../bag/bag_0.mcap"
    if spelling == "link to it":
        (near / "link.mcap").symlink_to(file)
        return bag, near / "link.mcap"
    if spelling == "link to the folder":
        (near / "link").symlink_to(bag)
        return bag, near / "link" / "new.mcap"
    if spelling == "hard link":
        os.link(file, near / "hard.mcap")
        return bag, near / "hard.mcap"
    if spelling == "link as source":
        (near / "link").symlink_to(bag)
        return near / "link", file
    names = {"itself": "bag_0.mcap", "beside": "out.mcap", "new folder": "new/out.mcap"}
    return bag, bag / names[spelling]


@pytest.mark.parametrize("verb", ["replay", "convert"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_output_inside_the_recording_is_refused(
    bag, spelling, verb, d2_ros, fake_frontend, monkeypatch
):
    source, out = spelled(bag, spelling, monkeypatch)
    before = content(bag)
    outcome = d2_ros(verb, source, *(["--out"] if verb == "replay" else []), out)
    assert outcome.code == 2
    assert "lies inside the input" in outcome.err
    assert content(bag) == before


def test_an_output_inside_a_folder_that_the_recording_links_to_is_refused(tmp_path, d2_ros):
    store(tmp_path / "disk")
    (tmp_path / "seq" / "cam0").mkdir(parents=True)
    (tmp_path / "seq" / "cam0" / "data").symlink_to(tmp_path / "disk")
    outcome = d2_ros("convert", tmp_path / "seq", tmp_path / "disk" / "out.mcap")
    assert outcome.code == 2
    assert "lies inside the input" in outcome.err


COMMANDS = {
    "replay --json": "replay {bag} --out {new}.mcap --json {bag}/f.json",
    "replay --json over the bag": "replay {bag} --out {new}.mcap --json {bag}/bag_0.mcap",
    "replay --json, parameters": "replay {bag} --out {new}.mcap --json {p} --params-file {p}",
    "convert --json": "convert {bag} {new}.mcap --json {bag}/f.json",
    "match": "match {images}/0.png {images}/1.png --out {images}/1.png",
    "match --json": "match {images}/0.png {images}/1.png --out {new} --json {images}/0.png",
    "match --camera": "match {images}/0.png {images}/1.png --out {p} --camera {p}",
    "evaluate sequence": "evaluate sequence {images} --out {images}",
    "evaluate sequence, inside": "evaluate sequence {images} --out {images}/report",
    "evaluate sequence --json": "evaluate sequence {images} --out {new} --json {images}/0.png",
    "evaluate homographies": "evaluate homographies {scenes} --out {scenes}/1",
    "evaluate pairs --json": "evaluate pairs {p} --out {new} --json {p}",
    "evaluate pairs --write": "evaluate pairs {images} --write {images}/pairs.txt",
    "benchmark": "benchmark {images} --out {images}/report",
    "benchmark --json": "benchmark {images} --json {images}/0.png",
    "demo --json": "demo --out {new} --params-file {p} --json {p}",
    "two outputs": "replay {bag} --out {new}.mcap --json {new}.mcap",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_output_of_any_command_is_an_input(
    tmp_path, name, bag, images, d2_ros, fake_frontend, monkeypatch
):
    params = tmp_path / "params.txt"
    calibration = "image_width: 32\nimage_height: 24\nk: [50, 0, 15, 0, 50, 12, 0, 0, 1]\nd: []\n"
    pair = "0.png 1.png 0 0 " + " ".join(["1"] * 34) + "\n"
    yaml = "d2_frontend:\n  ros__parameters:\n    threads: 2\n"
    params.write_text({"match": calibration, "evaluate": pair}.get(name.split()[0], yaml))
    scenes = tmp_path / "scenes"
    store(scenes / "1")
    for old, new in (("0", "2"), ("1", "1")):
        shutil.move(scenes / "1" / f"{old}.png", scenes / "1" / f"{new}.png")
    (scenes / "1" / "H_1_2").write_text("1 0 0\n0 1 0\n0 0 1\n")
    places = {"bag": bag, "images": images, "p": params, "scenes": scenes, "new": tmp_path / "new"}
    before = content(tmp_path)
    outcome = d2_ros(*COMMANDS[name].format(**places).split())
    assert outcome.code == 2
    assert any(words in outcome.err for words in ("inside the input", "is the input", "one output"))
    assert {path: data for path, data in content(tmp_path).items() if path in before} == before


@pytest.mark.parametrize("verb", ["replay", "convert"])
def test_an_image_folder_with_an_earlier_output_stays_an_image_folder(
    tmp_path, images, verb, d2_ros, fake_frontend
):
    option = ["--out"] if verb == "replay" else []
    assert d2_ros(verb, images, *option, tmp_path / "out.mcap").code == 0
    shutil.copy(tmp_path / "out.mcap", images / "earlier.mcap")  # as older versions left it there
    assert d2_ros(verb, images, *option, tmp_path / "again.mcap").code == 0
    assert (tmp_path / "again.mcap").read_bytes() == (tmp_path / "out.mcap").read_bytes()


def test_a_killed_recording_with_an_earlier_output_is_read_without_that(tmp_path, bag, d2_ros):
    foreign = (bag / "bag_0.mcap").read_bytes().replace(b"d2_ros", b"rosbag")
    assert d2_ros("convert", bag, tmp_path / "a.mcap").code == 0
    (bag / "bag_0.mcap").write_bytes(foreign)
    shutil.copy(tmp_path / "a.mcap", bag / "a.mcap")
    assert len(list(open_source(bag))) == 3


@pytest.fixture
def small_disk():
    """No file grows beyond 64 KiB, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


def test_a_disk_that_is_full_leaves_the_file_that_was_there(
    tmp_path, images, d2_ros, fake_frontend, small_disk
):
    """With descriptors a frame has 2 KiB per feature: the disk is full after some frames."""
    out = tmp_path / "out.mcap"
    arguments = ["replay", images, "--out", out]
    assert d2_ros(*arguments).code == 0
    before = out.read_bytes()
    store(images, 40)
    outcome = d2_ros(*arguments, "-p", "output.descriptors:=float32")
    assert outcome.code == 2
    assert f"cannot write {out}: File too large ({out} is as it was" in outcome.err
    assert out.read_bytes() == before
    part = tmp_path / "out.part.mcap"
    assert str(part) in outcome.err
    topics = Bag([part]).topics
    assert 3 < topics["/d2_frontend/camera/features"][1] < 40


def test_a_full_device_is_one_sentence(tmp_path, images, d2_ros):
    (tmp_path / "full.mcap").symlink_to("/dev/full")
    outcome = d2_ros("convert", images, tmp_path / "full.mcap")
    assert outcome.code == 2
    assert "full.mcap: No space left on device" in outcome.err
    assert os.path.exists("/dev/full")


@pytest.mark.parametrize("verb", ["replay", "convert"])
def test_a_source_without_a_usable_frame_leaves_the_file_that_was_there(
    tmp_path, images, verb, d2_ros, fake_frontend
):
    for path in images.iterdir():
        path.write_bytes(b"")
    out = tmp_path / "out.mcap"
    option = ["--out"] if verb == "replay" else []
    outcome = d2_ros(verb, images, *option, out)
    assert outcome.code == 2
    assert "3 of 3 frames were left out" in outcome.err
    assert not out.exists()
    out.write_text("precious")
    assert d2_ros(verb, images, *option, out).code == 2
    assert out.read_text() == "precious"
    assert [path.name for path in tmp_path.glob("*.mcap")] == ["out.mcap"]


def test_a_link_stays_a_link_and_another_name_keeps_its_content(tmp_path, images, d2_ros):
    real, link, other = (tmp_path / f"{name}.mcap" for name in ("real", "link", "other"))
    real.write_text("old")
    link.symlink_to(real)
    os.link(real, other)
    assert d2_ros("convert", images, link).code == 0
    assert link.is_symlink()
    assert len(open_source(real)) == 3
    assert other.read_text() == "old"


def test_the_part_that_an_earlier_run_has_left_can_be_the_source(tmp_path, images, d2_ros):
    out, part = tmp_path / "out.mcap", tmp_path / "out.part.mcap"
    for path in (out, part):
        assert d2_ros("convert", images, path).code == 0
    before = part.read_bytes()
    assert d2_ros("convert", part, out).code == 0
    assert part.read_bytes() == before
    assert len(open_source(out)) == 3


@pytest.mark.parametrize("option", ["--out", "--json"])
def test_a_folder_as_an_output_file_is_refused_at_once(
    tmp_path, images, option, d2_ros, fake_frontend
):
    (tmp_path / "taken.mcap").mkdir()
    places = {"--out": tmp_path / "out.mcap", option: tmp_path / "taken.mcap"}
    arguments = [item for pair in places.items() for item in pair]
    outcome = d2_ros("replay", images, *arguments)
    assert outcome.code == 2
    assert "taken.mcap: it is a folder" in outcome.err
    assert not fake_frontend


def test_figures_can_go_to_a_device(tmp_path, images, d2_ros):
    figures = ["--json", "/dev/null"]
    outcome = d2_ros("convert", images, tmp_path / "out.mcap", *figures)
    assert outcome.code == 0, outcome.err
    assert not os.path.isfile("/dev/null")


@pytest.mark.parametrize("place", ["source", "--out", "--json"])
def test_a_name_that_is_too_long_is_one_sentence(tmp_path, images, place, d2_ros, fake_frontend):
    places = {"source": images, "--out": tmp_path / "o.mcap", "--json": tmp_path / "o.json"}
    places[place] = tmp_path / ("a" * 300 + ".mcap")
    outcome = d2_ros(
        "replay", places["source"], "--out", places["--out"], "--json", places["--json"]
    )
    assert outcome.code == 2
    assert "File name too long" in outcome.err
