"""Whatever is typed or stands in a file, a verb ends with a sentence or its result: no traceback.

The network is replaced (:mod:`conftest`), and what takes long behind the reading of input stops.
``D2_ROS_FUZZ=1`` takes ten times as many examples.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from d2_ros.camera import Camera
from d2_ros.cli import main
from d2_ros.errors import D2RosError
from d2_ros.evaluation.match_sets import MatchSets
from d2_ros.records import FEATURES
from d2_ros.sources import messages as build
from d2_ros.sources.writer import BagWriter

FACTOR = 10 if os.environ.get("D2_ROS_FUZZ") else 1
STAMP = 1_403_715_273_262_142_976
CALIBRATION = """\
image_width: 32
image_height: 24
camera_name: camera
distortion_model: plumb_bob
camera_matrix: {rows: 3, cols: 3, data: [50.0, 0.0, 15.5, 0.0, 51.0, 11.5, 0.0, 0.0, 1.0]}
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, -0.2, 0.001, 0.002, 0.3]}
"""
SENSOR = """\
%YAML:1.0
T_BS: !!opencv-matrix
  data: [0.0, -1.0, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, -0.25, 0.0, 0.0, 0.0, 1.0]
resolution: [32, 24]
intrinsics: [50.0, 51.0, 15.5, 11.5]
distortion_model: radial-tangential
distortion_coefficients: [0.1, -0.2, 0.001, 0.002]
"""
POSE = "0.1 0.2 0.3 0.0 0.0 0.0 1.0"
K_WORDS = "50 0 15.5 0 51 11.5 0 0 1"
TRAINING = """\
device: cpu
data: {sources: ['photos:PHOTOS'], crop: 64, points: 16, held_back: 0.5}
optimiser: {steps: 1, batch: 1, learning_rate: 1e-4}
network: {stride: 4, layers: [conv4_3]}
"""

ODD_TOKENS = [
    "", "x", "0", "-1", "-0.0", "nan", ".nan", "inf", "-.inf", "1e999", "1e30", "1e-320", "9" * 30,
    "-" + "9" * 20, "2147483648", "4294967296", "1e308", "'", '"', "[", "]", "{", "}", ":", "#",
    "\0", "é", "\ud83d\ude00", "\x1b[31m", "../..", "/dev/null", "~nobody/x", "a" * 300, "%s",
    "null", "true", "[[1]]", "{a: 1}", "*a", "&a", "!!python/none", "!!binary x", "1_0", "0x10",
    "2001-01-01", "٣", "²", "1,5", "\t", "\r", "\ufeff", "\n\n",
]  # fmt: skip
"""What is put in the place of a word of a file, or typed as an argument."""

ENDINGS = ("", ".bag", ".mcap", ".db3", ".png", ".mp4", ".yaml")

ODD_PLACES = [
    "", ".", "-", "~", "~nobody/x", "absent", "/dev/null", "/dev/null/x", "/proc/self/mem",
    "a" * 300, "x" * 5000, "folder", "folder.mcap", "loop", "a\nb", "\x1b[31m", "\udcff\udcfe",
    "synthetic:", "synthetic:size=1x1", "synthetic:frames=", "synthetic:size=x",
    "synthetic:frames=" + "9" * 5000, "synthetic:frames=٣²", "http://example.org/x.bag",
    "euroc/mav0/cam0/data.csv",
    *(f"{kind}{end}" for kind in ("empty", "noise") for end in ENDINGS),
]  # fmt: skip


class StopError(D2RosError):
    """Ends a verb where the network would begin."""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one small source of each kind, and odd files."""
    root = tmp_path_factory.mktemp("ground")
    rng = np.random.default_rng(0)
    content = cv2.imencode(".png", rng.integers(0, 256, (24, 32), np.uint8))[1].tobytes()

    def put(name: str, text: str | bytes) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    stamps = [STAMP + 50_000_000 * number for number in range(3)]
    for stamp in stamps:
        put(f"euroc/mav0/cam0/data/{stamp}.png", content)
    put("euroc/mav0/cam0/data.csv", "#t,name\n" + "".join(f"{t},{t}.png\n" for t in stamps))
    put("euroc/mav0/cam0/sensor.yaml", SENSOR)
    body = ",".join(["0.1", "0.2", "0.3", "1.0", "0.0", "0.0", "0.0"])
    put(
        "euroc/mav0/state_groundtruth_estimate0/data.csv",
        "#t,p,q\n" + "".join(f"{t},{body}\n" for t in stamps),
    )
    for number in range(3):
        put(f"tum/rgb/{number}.png", content)
        put(f"kitti/image_0/{number:06}.png", content)
        put(f"images/{number}.png", content)
        put(f"scenes/one/{number + 1}.png", content)
    put("tum/rgb.txt", "# t name\n" + "".join(f"{n}.5 rgb/{n}.png\n" for n in range(3)))
    put("tum/groundtruth.txt", "".join(f"{n}.5 {POSE}\n" for n in range(3)))
    put("tum/camera.yaml", CALIBRATION)
    put("kitti/times.txt", "0.0\n0.1\n0.2\n")
    put("kitti/calib.txt", "P0: 50 0 15.5 0 0 51 11.5 0 0 0 1 0\n")
    put("kitti/poses.txt", "1 0 0 0.5 0 1 0 0 0 0 1 0\n" * 3)
    put("scenes/one/H_1_2", "1 0 2\n0 1 3\n0 0 1\n")
    put("scenes/one/H_1_3", "1 0 2\n0 1 3\n0 0 1\n")
    put("pairs.txt", f"images/0.png images/1.png 0 0 {K_WORDS} {K_WORDS} "
        "1 0 0 0.1 0 1 0 0 0 0 1 0 0 0 0 1\n")  # fmt: skip
    put("camera.yaml", CALIBRATION)
    put("params.yaml", "/**:\n  ros__parameters:\n    window: {size: 4}\n    threads: 1\n")
    put("train.yaml", TRAINING.replace("PHOTOS", str(root / "images")))
    with BagWriter(root / "bag.mcap") as bag:
        for stamp in stamps:
            pixels = rng.integers(0, 256, (24, 32), np.uint8)
            bag.write("/camera/image_raw", build.image(stamp, "camera", pixels))
    write_outputs(root / "features.mcap", stamps)
    put("path.txt", "".join(f"{stamp / 1e9:.9f} {POSE}\n" for stamp in stamps))
    put("map.ply", "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\n"
        "property float y\nproperty float z\nend_header\n1 2 3\n4 5 6\n")  # fmt: skip
    for ending in ENDINGS:
        put(f"noise{ending}", rng.bytes(300))
        put(f"empty{ending}", b"")
    (root / "folder").mkdir()
    (root / "folder.mcap").mkdir()
    (root / "loop").symlink_to("loop")
    return root


def write_outputs(path: Path, stamps: list[int]) -> None:
    """A bag as of d2-ros replay: four tracks that all frames see."""
    camera = Camera(32, 24, [[50, 0, 15.5], [0, 51, 11.5], [0, 0, 1]], [])
    with BagWriter(path) as bag:
        for number, stamp in enumerate(stamps):
            bag.write("/camera/camera_info", build.camera_info(stamp, "camera", camera, 32, 24))
            rows = np.zeros(4, FEATURES)
            rows["track_id"], rows["track_length"] = 1 + np.arange(4), number + 1
            rows["u"], rows["v"] = [3, 20, 4, 21], [number, 3, 20, 22]
            bag.write("/d2_frontend/camera/features", build.cloud(stamp, "camera", rows))


@pytest.fixture
def world(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_frontend: Any
) -> Path:
    """Stand in a copy of the ground; what takes long is replaced."""
    here = tmp_path / "here"
    shutil.copytree(ground, here, symlinks=True)
    monkeypatch.chdir(here)

    def stop(*arguments: Any, **options: Any) -> Any:
        raise StopError("stopped by the test")

    def matches(frontend: Any, images: Any, cameras: Any = None) -> Any:
        places = np.random.default_rng(1).uniform(0, 20, (30, 2))
        points = (places, places + 1.0)
        return {"d2": MatchSets(points, points, points, points)}

    monkeypatch.setattr("d2_ros.evaluation.match_sets.match_images", matches)
    monkeypatch.setattr("d2_ros.evaluation.sequences.run_sequence", stop)
    monkeypatch.setattr("d2_ros.features.extractor.Extractor", stop)
    monkeypatch.setattr("d2_ros.evaluation.reconstruction.record", stop)
    monkeypatch.setattr("d2_ros.batch.jobs._in_a_process", lambda *_: 0)
    monkeypatch.setattr("d2_ros.commands.demo._write_sequence", stop)
    monkeypatch.setattr("d2_ros.training.trainer.Trainer.run", stop)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "logs"))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")
    monkeypatch.setattr("d2_ros.commands.play._play", lambda *_: None)
    monkeypatch.setattr("d2_ros.commands.play._wait", lambda *_: None)
    return here


def run(*arguments: str) -> tuple[int, str]:
    """Run d2-ros in this process; an exception that would be a traceback gets out."""

    with CliRunner().isolation() as streams, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["d2-ros", *arguments])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        text = streams[1].getvalue().decode("utf-8", "replace")
    assert code in (0, 1, 2), (arguments, text)
    assert "Traceback" not in text, (arguments, text)
    if "d2-ros: " in text:
        last = text[text.rindex("d2-ros: ") :]
        assert last.count("\n") == 1, (arguments, last)
    return code, text


TOKENS = st.sampled_from(ODD_TOKENS) | st.text(
    st.characters(exclude_characters="\0/", codec="utf-8"), max_size=12
)
SOURCES = st.sampled_from(
    ["euroc", "tum", "kitti", "images", "bag.mcap", "synthetic:size=160x120,frames=2", *ODD_PLACES]
) | st.text(st.characters(exclude_characters="\0/", codec="utf-8"), max_size=20)
OUTPUTS = st.sampled_from(
    ["o.mcap", "new/o.mcap", "bag.mcap", "folder.mcap", "noise/o.mcap", "/dev/null/o.mcap",
     "folder", "o", "", ".", "a" * 300 + ".mcap", "\udcff.mcap", "loop", "loop/o.mcap",
     "/proc/o.mcap"]
)  # fmt: skip
FILES = st.sampled_from(
    ["params.yaml", "camera.yaml", "train.yaml", "pairs.txt", "images/0.png", "images", *ODD_PLACES]
)
BAGS = st.sampled_from(["features.mcap", "bag.mcap", *ODD_PLACES])
PLACES = st.sampled_from(["euroc", "tum", "path.txt", "map.ply", "synthetic:frames=2", *ODD_PLACES])
NUMBERS = st.sampled_from(
    ["1", "2", "0", "-1", "nan", "inf", "1e999", "x", "", "9" * 30, "٣", "1e1"]
)
NAMES = st.sampled_from(
    ["window.size", "weights", "cameras", "device", "input.stereo", "matching.seed", "use_sim_time",
     "data.sources", "optimiser.learning_rate", "network.weights", "qos_overrides.x", "window", "x"]
)  # fmt: skip


@st.composite
def parameters(draw: st.DrawFn) -> list[str]:
    text = f"{draw(NAMES)}:={draw(TOKENS)}" if draw(st.booleans()) else draw(TOKENS)
    return ["-p", text]


def option(name: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return values.map(lambda value: [name, value])


COMMON = [
    option("--params-file", FILES),
    parameters(),
    option("--json", OUTPUTS),
    option("--image-topic", TOKENS),
]
VERBS: dict[str, tuple[list[st.SearchStrategy[list[str]]], list[st.SearchStrategy[list[str]]]]] = {
    "demo": (
        [],
        [*COMMON, option("--size", TOKENS | st.just("160x120")), option("--frames", NUMBERS),
         option("--out", OUTPUTS)],
    ),
    "replay": ([SOURCES.map(lambda s: [s]), option("--out", OUTPUTS)], COMMON),
    "play": (
        [SOURCES.map(lambda s: [s])],
        [*COMMON, option("--rate", NUMBERS), option("--camera", TOKENS)],
    ),
    "convert": ([SOURCES.map(lambda s: [s]), OUTPUTS.map(lambda s: [s])], COMMON),
    "match": (
        [FILES.map(lambda s: [s]), FILES.map(lambda s: [s]), option("--out", OUTPUTS)],
        [*COMMON, option("--camera", FILES)],
    ),
    "evaluate sequence": (
        [SOURCES.map(lambda s: [s]), option("--out", OUTPUTS)],
        [*COMMON, option("--gap", NUMBERS), option("--every", NUMBERS), st.just(["--ablation"])],
    ),
    "evaluate homographies": (
        [st.sampled_from([["scenes"], ["scenes/one"]]) | SOURCES.map(lambda s: [s]),
         option("--out", OUTPUTS)],
        COMMON,
    ),
    "evaluate pairs": (
        [FILES.map(lambda s: [s]) | SOURCES.map(lambda s: [s])],
        [*COMMON, option("--out", OUTPUTS), option("--images", SOURCES), option("--gap", NUMBERS),
         option("--write", OUTPUTS), option("--every", NUMBERS)],
    ),
    "evaluate reconstruction": ([SOURCES.map(lambda s: [s]), option("--out", OUTPUTS)], COMMON),
    "export colmap": (
        [BAGS.map(lambda s: [s]), OUTPUTS.map(lambda s: [s])],
        [option("--images", SOURCES), option("--poses", PLACES), option("--json", OUTPUTS),
         option("--from", TOKENS | st.just("matches"))],
    ),
    "view": (
        [BAGS.map(lambda s: [s]), option("--out", OUTPUTS | st.just("o.rrd"))],
        [option("--images", SOURCES), option("--poses", PLACES), option("--points", FILES),
         option("--ellipse-scale", NUMBERS)],
    ),
    "batch": (
        [SOURCES.map(lambda s: [s]), option("--out", OUTPUTS)],
        [SOURCES.map(lambda s: [s]), option("--jobs", st.sampled_from(["1", "2", "0", "x"])),
         option("--gpus", NUMBERS), st.just(["--", "replay"]), st.just(["--", "evaluate"]),
         option("--", TOKENS), option("--cluster", st.sampled_from(["", "x", ":", "127.0.0.1:1"]))],
    ),
    "evaluate stereo": ([option("--out", OUTPUTS)], COMMON),
    "benchmark": (
        [SOURCES.map(lambda s: [s])],
        [*COMMON, option("--frames", NUMBERS), option("--warmup", NUMBERS),
         option("--out", OUTPUTS), option("--scaling", TOKENS | st.just("size")),
         option("--live", NUMBERS), option("--seconds", NUMBERS)],
    ),
    "train": (
        [option("--config", FILES), option("--out", OUTPUTS)],
        [*COMMON, st.just(["--resume"]), st.just(["--settings"])],
    ),
    "weights list": ([], COMMON),
    "weights import": ([FILES.map(lambda s: [s])], [option("--name", TOKENS)]),
    "weights verify": ([TOKENS.map(lambda s: [s])], []),
    "doctor": ([st.just(["--parameters"])], [option("--json", OUTPUTS)]),
}  # fmt: skip
"""Verb -> what it is given always, and what it may be given besides."""


@pytest.mark.parametrize("verb", VERBS)
def test_no_argument_ends_in_a_traceback(verb: str, world: Path) -> None:
    needed, besides = VERBS[verb]

    @settings(
        max_examples=20 * FACTOR,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(
        first=st.tuples(*needed), more=st.lists(st.one_of(*besides or [st.just([])]), max_size=3)
    )
    def check(first: tuple[list[str], ...], more: list[list[str]]) -> None:
        # What is empty, or begins with a dash, is an argument all the same.
        run(*verb.split(), *(word for part in [*first, *more] for word in part))

    check()


MEANT_FOR = {
    "euroc/mav0/cam0/data.csv": ["convert", "euroc", "o.mcap"],
    "euroc/mav0/cam0/sensor.yaml": ["convert", "euroc", "o.mcap"],
    "euroc/mav0/state_groundtruth_estimate0/data.csv": ["convert", "euroc", "o.mcap"],
    "tum/rgb.txt": ["replay", "tum", "--out", "o.mcap"],
    "tum/groundtruth.txt": ["convert", "tum", "o.mcap"],
    "tum/camera.yaml": ["replay", "tum", "--out", "o.mcap"],
    "kitti/times.txt": ["convert", "kitti", "o.mcap"],
    "kitti/calib.txt": ["replay", "kitti", "--out", "o.mcap"],
    "kitti/poses.txt": ["convert", "kitti", "o.mcap"],
    "scenes/one/H_1_2": ["evaluate", "homographies", "scenes", "--out", "out"],
    "pairs.txt": ["evaluate", "pairs", "pairs.txt", "--out", "out"],
    "camera.yaml": ["match", "images/0.png", "images/1.png", "--out", "m",
                    "--camera", "camera.yaml"],
    "params.yaml": ["replay", "images", "--out", "o.mcap", "--params-file", "params.yaml"],
    "train.yaml": ["train", "--config", "train.yaml", "--out", "out"],
    "images/0.png": ["convert", "images", "o.mcap"],
    "features.mcap": ["export", "colmap", "features.mcap", "out", "--images", "euroc"],
    "path.txt": ["export", "colmap", "features.mcap", "out", "--poses", "path.txt"],
    "map.ply": ["view", "features.mcap", "--points", "map.ply", "--out", "o.rrd"],
}  # fmt: skip
"""A file -> the verb that reads it."""


def spoil(content: bytes, odd: list[str], rng: random.Random) -> bytes:
    """Put odd words in the place of others, cut the file short, or take bytes out of it."""
    kind = rng.randrange(6)
    if kind == 0:
        return content[: rng.randrange(len(content))]
    if kind == 1:
        place = rng.randrange(len(content))
        return content[:place] + rng.randbytes(rng.randrange(5)) + content[place + 3 :]
    text = content.decode("latin-1")
    for word in odd:
        if kind == 2:
            lines = text.split("\n")
            lines[rng.randrange(len(lines))] = word
            text = "\n".join(lines)
        else:
            places = [at for at, sign in enumerate(text) if sign in " ,[]{}:\n"]
            start = rng.randrange(len(places))
            end = places[start + 1] if start + 1 < len(places) else len(text)
            text = text[: places[start] + 1] + word + text[end:]
    return text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("name", MEANT_FOR)
def test_no_content_of_a_file_ends_in_a_traceback(name: str, world: Path) -> None:
    content = (world / name).read_bytes()

    @settings(
        max_examples=30 * FACTOR,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(
        odd=st.lists(st.sampled_from(ODD_TOKENS), min_size=1, max_size=3),
        seed=st.integers(0, 2**32 - 1),
    )
    def check(odd: list[str], seed: int) -> None:
        (world / name).write_bytes(spoil(content, odd, random.Random(seed)))
        shutil.rmtree(world / "out", ignore_errors=True)
        run(*MEANT_FOR[name])

    check()
