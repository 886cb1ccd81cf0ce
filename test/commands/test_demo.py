from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader
from scene import CAMERA, Scene, tracks

from d2_ros import records
from d2_ros.commands.demo_map import map_demo
from d2_ros.config import Config, with_values
from d2_ros.frontend import FrontEnd
from d2_ros.sources import messages, open_source
from d2_ros.sources.writer import BagWriter

pytest.importorskip("rclpy", reason="rclpy is not installed")

ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, "-c", "from d2_ros.cli import main; main()", "demo"]
SMALL = ["--size", "160x120", "--frames", "6", "-p", "threads:=1"]
PREFIX = "/d2_frontend/camera/"


def environment(cache: Path) -> dict[str, str]:
    path = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    return {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}


def nodes_of(folder: Path) -> list[int]:
    """Process ids of the nodes that were started with this folder's parameters."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().decode(errors="replace")
        except OSError:  # ended meanwhile
            continue
        if "frontend_node" in line and str(folder) in line:
            found.append(int(file.parent.name))
    return found


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the demo once: player, node and recorder over real DDS, with the real front-end."""
    folder = tmp_path_factory.mktemp("demo")
    figures = folder / "figures.json"
    command = [*RUN, *SMALL, "-p", "output.descriptors:=uint8"]
    done = subprocess.run(
        [*command, "--out", str(folder / "out"), "--json", str(figures)],
        env=environment(folder / "cache"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(
        out=folder / "out",
        cache=folder / "cache",
        text=done.stdout,
        figures=json.loads(figures.read_text()),
    )


def read(bag: Path) -> dict[str, list[Any]]:
    """Topic -> messages, by the definitions in the file alone."""
    content: dict[str, list[Any]] = {}
    with AnyReader([bag]) as reader:
        for connection, _, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            content.setdefault(connection.topic, []).append(message)
    return content


def assert_alike(data: bytes, rows: NDArray[Any], topic: str) -> None:
    """Equal but for the last bits of numbers.

    Machine code that was compiled for another test of this process may add in another order.
    """
    told = np.frombuffer(data, rows.dtype)
    assert len(told) == len(rows), topic
    for name in rows.dtype.names or ():
        if rows[name].dtype.kind in "iu":
            np.testing.assert_array_equal(told[name], rows[name], f"{topic} {name}")
        else:
            np.testing.assert_allclose(
                told[name], rows[name], rtol=1e-2, atol=2e-3, err_msg=f"{topic} {name}"
            )


def test_the_node_publishes_over_dds_what_the_front_end_gives(
    ran: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = read(ran.out / "features.mcap")
    frontend = FrontEnd(with_values(Config(), {"threads": 1}))
    expected: dict[str, list[NDArray[Any]]] = {}
    stamps, descriptors = [], []
    for frame in open_source(ran.out / "sequence.mcap"):
        result = frontend.process(frame.image, frame.stamp, frame.camera)
        stamps.append(frame.stamp)
        expected.setdefault("features", []).append(result.features)
        expected.setdefault("matches", []).append(result.matches)
        descriptors.append(records.pack_descriptors(result.descriptors, "uint8"))
        if result.tracks is not None:
            expected.setdefault("tracks", []).append(result.tracks)
    for topic, payloads in expected.items():
        messages = recorded[PREFIX + topic]
        assert len(messages) == len(payloads)
        for message, rows in zip(messages, payloads, strict=True):
            assert_alike(message.data.tobytes(), rows, topic)
    for message, packed in zip(recorded[PREFIX + "descriptors"], descriptors, strict=True):
        told = np.frombuffer(message.data.tobytes(), np.uint8).astype(int)
        given = np.frombuffer(packed.tobytes(), np.uint8)
        assert np.abs(told - given).max() <= 1
    for topic in ("features", "matches", "descriptors", "overlay/compressed"):
        headers = [message.header for message in recorded[PREFIX + topic]]
        assert [h.stamp.sec * 10**9 + h.stamp.nanosec for h in headers] == stamps, topic
        assert {h.frame_id for h in headers} == {"camera"}


def test_the_figures_show_what_refinement_is_for(ran: Any) -> None:
    figures = ran.figures
    assert figures["frames"] == 6
    assert figures["observations"] > 100
    assert figures["median_error_px"] < 0.25 * figures["median_error_detected_px"]
    assert figures["p90_error_px"] < figures["p90_error_detected_px"]
    assert all(isinstance(value, (int, float, str)) for value in figures.values())
    assert f"{figures['median_error_px']:.3f} px" in ran.text
    report = (ran.out / "report.html").read_text()
    for key in ("median_error_px", "p90_error_px", "median_error_detected_px"):
        assert f"{figures[key]:.3f} px" in report


def test_the_overlays_can_be_looked_at(ran: Any) -> None:
    picture = cv2.imread(str(ran.out / "overlay.png"))
    assert picture.shape == (720, 960, 3)
    assert np.ptp(picture.astype(int), axis=2).max() > 100  # there is colour on the gray image
    film = cv2.VideoCapture(str(ran.out / "overlay.mp4"))
    pngs = list(ran.out.glob("overlay_*.png"))
    assert len(pngs) == 6 or film.get(cv2.CAP_PROP_FRAME_COUNT) == 6


def test_six_frames_are_no_trajectory_and_the_demo_says_so(ran: Any) -> None:
    assert ran.figures["trajectory_frames"] == 0
    assert "no map could begin in 6 frames" in ran.text
    assert not (ran.out / "trajectory.png").exists()


def test_the_trajectory_is_drawn_on_the_true_one(tmp_path: Path) -> None:
    scene = Scene()
    with BagWriter(tmp_path / "features.mcap") as bag:
        for number in range(scene.frames):
            stamp, rows = scene.stamp(number), scene.features(number)
            told = {"features": rows} | ({} if number % 4 else {"tracks": tracks(stamp, rows)})
            for topic, content in told.items():
                bag.write(PREFIX + topic, messages.cloud(stamp, "camera", content))
    stamps = [scene.stamp(number) for number in range(scene.frames)]
    source = SimpleNamespace(camera=CAMERA, stamps=stamps, poses=lambda: scene.poses)
    figures, picture = map_demo(tmp_path / "features.mcap", source)
    assert figures["trajectory_frames"] == scene.frames
    assert figures["trajectory_error_m"] < 0.006
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape[2] == 3


def test_no_process_is_left(ran: Any) -> None:
    assert nodes_of(ran.out) == []


@pytest.mark.parametrize(
    "name",
    ["SIGINT", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGTERM", "node"))],
)
def test_nothing_is_left_after_an_interrupt_or_the_death_of_the_node(
    ran: Any, tmp_path: Path, name: str
) -> None:
    demo = subprocess.Popen(
        [*RUN, *SMALL, "--out", str(tmp_path)],
        env=environment(ran.cache),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline = time.monotonic() + 120
        while not nodes_of(tmp_path):
            assert time.monotonic() < deadline
            assert demo.poll() is None
            time.sleep(0.05)
        if name == "node":
            for process in nodes_of(tmp_path):
                os.kill(process, signal.SIGKILL)
        else:
            demo.send_signal(getattr(signal, name))
        _, errors = demo.communicate(timeout=120)
    finally:
        demo.kill()
    assert demo.returncode not in (0, -9)
    assert nodes_of(tmp_path) == []
    assert "Traceback" not in errors
    if name == "node":
        assert "the node ended with exit code -9" in errors


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--out", "/proc/nope"], "cannot write to folder /proc/nope"),
        (["--size", "1x1"], "synthetic size 1x1 is not possible"),
        (["-p", "window.sise:=3"], "unknown parameter window.sise"),
        (["-p", "weights:=/nowhere.pth"], "/nowhere.pth"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(
    arguments: list[str], sentence: str, d2_ros: Any, tmp_path: Path
) -> None:
    outcome = d2_ros("demo", *(["--out", tmp_path] if "--out" not in arguments else []), *arguments)
    assert outcome.code == 2
    assert sentence in outcome.err


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_node_that_cannot_be_configured_ends_the_demo_in_its_own_words(
    ran: Any, tmp_path: Path
) -> None:
    command = [*RUN, *SMALL, "-p", "device:=cuda", "--out", str(tmp_path)]
    done = subprocess.run(
        command, env=environment(ran.cache), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "torch sees no GPU" in done.stderr.strip().splitlines()[-1]
    assert nodes_of(tmp_path) == []
