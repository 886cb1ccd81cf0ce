"""Real commands that are told to end: what is done is kept, whatever the signal."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from processes import start_command
from rosbags.highlevel import AnyReader

from d2_ros.errors import D2RosError
from d2_ros.interruption import held
from d2_ros.sources.bagfiles import Bag

ROOT = Path(__file__).resolve().parents[2]
FEATURES = "/d2_frontend/camera/features"
FRAMES = 2000
RESTORE = (signal.SIGINT, signal.SIGHUP)  # a shell in the background leaves them ignored


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """More frames than any of these tests waits for."""
    path = tmp_path_factory.mktemp("images")
    texture = np.random.default_rng(0).integers(0, 256, (96, 128), np.uint8)
    texture = cv2.GaussianBlur(texture, (0, 0), 2)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    for number in range(FRAMES):
        cv2.imwrite(str(path / f"{number}.png"), np.roll(texture, number % 40, axis=1))
    return path


def start(*arguments):
    """With the signals of a shell in the foreground."""
    return start_command(
        *arguments,
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in RESTORE] and None,
    )


def readable(path, topic):
    """How many messages of a topic can be had from the file, complete or not."""
    try:
        return Bag([path]).topics.get(topic, ("", 0))[1]
    except (D2RosError, OSError):
        return 0


def end(process, number, path, topic=FEATURES, enough=2):
    """Send a signal once `enough` frames can be read; return how many, and what was said."""
    deadline = time.monotonic() + 120
    try:
        while (count := readable(path, topic)) < enough:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        out, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in errors
    return count, out, errors


SIGNALS = [
    "SIGTERM",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGINT", "SIGHUP")),
]


@pytest.mark.parametrize("name", SIGNALS)
def test_replay_ends_on_every_signal_alike_and_keeps_whole_frames(folder, tmp_path, name):
    out, number = tmp_path / "out.mcap", getattr(signal, name)
    process = start("replay", folder, "--out", out, "-p", "threads:=1")
    before, said, errors = end(process, number, out)
    assert process.returncode == 128 + number
    with AnyReader([out]) as reader:  # its index is there
        counts = {topic: info.msgcount for topic, info in reader.topics.items()}
    frames = counts[FEATURES]
    assert before <= frames < FRAMES
    assert counts["/camera/camera_info"] == counts["/d2_frontend/camera/matches"] == frames
    assert f"interrupted; the {frames} frames until then are in {out}" in errors
    assert f"{out}: {frames} frames" in said


def test_replay_that_is_killed_has_lost_none_of_the_frames_it_had_written(folder, tmp_path):
    out = tmp_path / "out.mcap"
    process = start("replay", folder, "--out", out, "-p", "threads:=1")
    before, _, _ = end(process, signal.SIGKILL, out, enough=3)
    assert process.returncode == -signal.SIGKILL
    assert before <= readable(out, FEATURES) < FRAMES
    with pytest.raises(D2RosError, match="cut short or damaged"):
        list(Bag([out]).messages([FEATURES]))


def test_replay_that_is_killed_leaves_the_bag_that_was_there(folder, tmp_path):
    out, part = tmp_path / "out.mcap", tmp_path / "out.part.mcap"
    out.write_text("precious")
    process = start("replay", folder, "--out", out, "-p", "threads:=1")
    end(process, signal.SIGKILL, part)
    assert out.read_text() == "precious"
    assert readable(part, FEATURES) >= 2


def test_convert_ends_on_sigterm_with_a_whole_bag(folder, tmp_path):
    out = tmp_path / "out.mcap"
    process = start("convert", folder, out)
    _, said, errors = end(process, signal.SIGTERM, out, "/camera/image_raw")
    if process.returncode == 0:
        pytest.skip("this machine was done before the signal came")
    assert process.returncode == 128 + signal.SIGTERM
    with AnyReader([out]) as reader:
        frames = reader.topics["/camera/image_raw"].msgcount
    assert f"{out}: {frames} frames" in said
    assert re.search(rf"interrupted; the {frames} frames until then", errors)


def test_a_signal_that_the_caller_ignores_stays_ignored():
    code = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from d2_ros.interruption import end_on_signals, held; end_on_signals()\n"
        "with held(): os.kill(os.getpid(), signal.SIGHUP)\n"
        "print('alive')"
    )
    path = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_a_signal_waits_for_the_end_of_the_block():
    passed = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012, the rest of the block is the point
        with held():
            signal.raise_signal(signal.SIGINT)
            passed.append("block")
        passed.append("after it")
    assert passed == ["block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
