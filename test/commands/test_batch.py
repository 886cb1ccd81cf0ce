"""The verb with real processes: failures, kills, resuming; on a Ray cluster as well."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from processes import start_command

from d2_ros import interruption
from d2_ros.errors import D2RosError
from d2_ros.sources.bagfiles import Bag

ROOT = Path(__file__).resolve().parents[2]
VERB = ("--", "replay", "-p", "threads:=1")


def images(path, count):
    path.mkdir(parents=True)
    texture = np.random.default_rng(0).integers(0, 256, (96, 128), np.uint8)
    texture = cv2.GaussianBlur(texture, (0, 0), 2)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    for number in range(count):
        cv2.imwrite(str(path / f"{number}.png"), np.roll(texture, number, axis=1))
    return path


def at_work(folder, frames=2):
    """Id of the process that writes to the folder, once so many frames are there."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        time.sleep(0.1)
        assert not (folder / "batch.json").exists(), "it has ended before it was looked at"
        try:
            bag = Bag([folder / "features.mcap"])
            count = bag.topics.get("/d2_frontend/camera/features", ("", 0))[1]
        except (D2RosError, OSError):
            continue
        if count < frames:
            continue
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"replay" in words and str(folder / "features.mcap").encode() in words:
                return int(process.name)
    raise AssertionError(f"nothing has worked on {folder}")


def summary(out):
    return json.loads((out / "summary.json").read_text())


def alive(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_failure_does_not_stop_the_rest_and_is_tried_again(tmp_path, d2_ros):
    good, late, out = images(tmp_path / "good", 2), tmp_path / "late", tmp_path / "out"
    outcome = d2_ros("batch", late, good, "--out", out, *VERB)
    assert outcome.code == 2
    assert "1 of 2 recordings failed, the first of them late" in outcome.err
    assert "late does not exist" in outcome.err
    figures = summary(out)
    assert (figures["recordings"], figures["done"], figures["failed"]) == (2, 1, 1)
    assert figures["good.frames"] == 2
    assert figures["good.status"] == "done"
    assert figures["late.status"].startswith("failed: ")
    page = (out / "report.html").read_text()
    assert "good" in page
    assert "does not exist" in page
    assert "does not exist" in (out / "late" / "log.txt").read_text()

    finished = (out / "good" / "features.mcap").stat().st_mtime_ns
    images(late, 3)
    outcome = d2_ros("batch", late, good, "--out", out, *VERB)
    assert outcome.code == 0, outcome.err
    assert "good: finished before" in outcome.out
    assert "1/1 late: done" in outcome.out
    assert (out / "good" / "features.mcap").stat().st_mtime_ns == finished
    figures = summary(out)
    assert (figures["done"], figures["failed"], figures["late.frames"]) == (2, 0, 3)


def test_one_that_is_killed_is_resumed_alone(tmp_path, d2_ros):
    sources, out = [images(tmp_path / name, 6) for name in "ab"], tmp_path / "out"
    arguments = ("batch", *sources, "--out", out, "--jobs", 2, *VERB)
    process = start_command(*arguments)
    try:
        os.kill(at_work(out / "b"), signal.SIGKILL)
        said, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 2
    assert "b: failed, ended by signal 9" in said
    assert "Traceback" not in errors
    figures = summary(out)
    assert [figures[f"{name}.status"] for name in "ab"] == ["done", "failed: ended by signal 9"]
    before = (out / "a" / "features.mcap").read_bytes()
    outcome = d2_ros(*arguments)
    assert outcome.code == 0, outcome.err
    assert summary(out)["failed"] == 0
    assert "a: finished before" in outcome.out
    assert (out / "a" / "features.mcap").read_bytes() == before
    # The same images give the same messages, killed before or not.
    assert (out / "b" / "features.mcap").read_bytes() == before


@pytest.mark.slow
def test_told_to_end_it_ends_its_processes_and_keeps_what_is_done(tmp_path):
    sources = [images(tmp_path / "a", 2), images(tmp_path / "b", 400)]
    out = tmp_path / "out"
    process = start_command("batch", *sources, "--out", out, *VERB)
    try:
        child = at_work(out / "b")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in errors
    assert not alive(child)
    assert summary(out)["a.status"] == "done"
    assert Bag([out / "b" / "features.mcap"]).topics["/d2_frontend/camera/features"][1] >= 2


@pytest.mark.slow
def test_outputs_of_another_command_are_not_taken_for_this_one_s(tmp_path, d2_ros):
    source, out = images(tmp_path / "a", 2), tmp_path / "out"
    assert d2_ros("batch", source, "--out", out, *VERB).code == 0
    outcome = d2_ros("batch", source, "--out", out, *VERB, "--frames", 1)
    assert outcome.code == 2
    assert "choose another --out" in outcome.err
    assert summary(out)["a.frames"] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["SRC", "--out", "OUT"], "cannot run 'nothing'"),
        (["SRC", "SRC", "--out", "OUT", "--", "replay"], "is given 2 times"),
        (["SRC", "--out", "SRC/out", "--", "replay"], "lies inside the input"),
        (["SRC", "--out", "OUT", "--gpus", 1, "--", "replay"], "--gpus goes with --cluster"),
    ],
)
def test_what_cannot_be_meant_is_told_before_any_work(tmp_path, d2_ros, arguments, words):
    source = images(tmp_path / "a", 1)
    places = {"SRC": source, "OUT": tmp_path / "out", "SRC/out": source / "out"}
    outcome = d2_ros("batch", *(places.get(word, word) for word in arguments))
    assert outcome.code == 2
    assert words in outcome.err
    assert not (tmp_path / "out").exists()


def test_without_ray_it_says_how_to_get_it(tmp_path, d2_ros, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    source = images(tmp_path / "a", 1)
    outcome = d2_ros("batch", source, "--out", tmp_path / "out", "--cluster", "auto", *VERB)
    assert outcome.code == 2
    assert "pip install ray" in outcome.err


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Address of a Ray cluster on this machine with two cores, and one GPU by its own account."""
    pytest.importorskip("ray", reason="Ray is not installed (extra cluster)")
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    port = 20000 + os.getpid() % 20000
    place = ["--temp-dir", f"/tmp/d2_ray_{os.getpid()}"]
    options = ["--num-cpus=2", "--num-gpus=1", "--include-dashboard=false", "--disable-usage-stats"]
    path = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    head = subprocess.Popen(
        [*ray, "start", "--head", "--block", f"--port={port}", *options, *place],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:  # a batch that comes before it listens is refused
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.2)
    yield f"127.0.0.1:{port}"
    os.killpg(head.pid, signal.SIGKILL)  # all that it has started: on SIGTERM it takes 30 s
    head.wait(timeout=30)
    shutil.rmtree(place[1], ignore_errors=True)


def test_a_cluster_runs_a_recording_again_whose_worker_is_killed(tmp_path, cluster):
    sources, out = [images(tmp_path / name, 40) for name in "abc"], tmp_path / "out"
    sources.append(tmp_path / "absent")
    arguments = ("batch", *sources, "--out", out, "--cluster", cluster, "--gpus", 0.5, *VERB)
    process = start_command(*arguments)
    try:
        child = at_work(out / "b")
        stat = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        worker = int(stat[1])
        assert b"ray::" in Path(f"/proc/{worker}/cmdline").read_bytes()
        os.kill(worker, signal.SIGKILL)
        said, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 2, said + errors
    assert "1 of 4 recordings failed, the first of them absent" in errors
    assert "Traceback" not in errors
    figures = summary(out)
    assert [figures[f"{name}.status"] for name in "abc"] == ["done"] * 3
    contents = {(out / name / "features.mcap").read_bytes() for name in "abc"}
    assert len(contents) == 1


def test_gpus_that_a_cluster_does_not_have_are_told(tmp_path, cluster, d2_ros):
    source = images(tmp_path / "a", 1)
    options = ["--cluster", cluster, "--gpus", 3]
    outcome = d2_ros("batch", source, "--out", tmp_path / "out", *options, *VERB)
    assert outcome.code == 2
    assert "--gpus 3 is more than the 1 GPUs of the cluster" in outcome.err
    assert signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, interruption._unwind)  # not Ray's


def test_a_cluster_that_is_not_there_is_told(tmp_path, d2_ros):
    pytest.importorskip("ray", reason="Ray is not installed (extra cluster)")
    source = images(tmp_path / "a", 1)
    options = ["--cluster", "127.0.0.1:1"]
    outcome = d2_ros("batch", source, "--out", tmp_path / "out", *options, *VERB)
    assert outcome.code == 2
    assert "no Ray cluster at 127.0.0.1:1" in outcome.err
