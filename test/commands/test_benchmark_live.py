"""``d2-ros benchmark --live``: known times give known figures; the real path gives all of them."""

import itertools
import json
import multiprocessing
import os
import signal
import threading
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from d2_ros.benchmark.live import back_and_forth, live_figures, of_one_size, play
from d2_ros.benchmark.machine import usage
from d2_ros.commands import benchmark_live
from d2_ros.errors import D2RosError
from d2_ros.sources import Frame

LIGHT = Path(__file__).resolve().parents[2] / "config" / "light.yaml"
SOURCE = "synthetic:size=160x120,frames=10"


@pytest.fixture(autouse=True)
def own_graph(monkeypatch):
    """Forget the ROS graph that publishing makes for itself."""
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def frames(count=3, size=(24, 32)):
    return [Frame(10**9 + n, np.full(size, n, np.uint8), None) for n in range(count)]


class Sleeper:
    """A front-end whose frames take a known time, some another one."""

    def __init__(self, seconds, others=()):
        self.seconds = defaultdict(lambda: seconds, others)
        self.count = 0
        self.stamps = []

    def __call__(self, frame):
        time.sleep(self.seconds[self.count])
        self.count += 1
        self.stamps.append(frame.stamp)
        return {"tracks": 7, "followed": self.count % 2, "extracted": 1 - self.count % 2}


def test_known_times_give_known_latency_and_drops():
    run = play(frames(), rate=25, seconds=2, warmup=0.2, process=Sleeper(0.1))
    figures = live_figures(run)
    assert figures["offered"] == 50
    assert 18 <= figures["processed"] <= 21
    assert figures["dropped"] == 50 - figures["processed"]
    assert 9 < figures["frames_per_second"] <= 10
    assert 100 < figures["latency_p50_ms"] < 145  # the frame that is taken is up to 40 ms old
    assert figures["latency_p50_ms"] <= figures["latency_p95_ms"] <= figures["latency_max_ms"]
    assert 100 <= figures["longest_stop_ms"] < 200
    assert figures["tracks"] == 7
    assert figures["followed"] + figures["extracted"] == figures["processed"]
    assert 0 <= figures["cpu_share"] < 0.5  # it sleeps
    assert figures["memory_start_mib"] > 20
    assert run.ending is None


def test_a_camera_that_can_be_kept_up_with_loses_nothing_and_the_warmup_is_left_out():
    sleeper = Sleeper(0.002, {0: 0.5, 3: 0.3})
    figures = live_figures(play(frames(), rate=20, seconds=1, warmup=0.6, process=sleeper))
    assert figures["offered"] == figures["processed"] == 20
    assert figures["frames_per_second"] == pytest.approx(20, rel=0.05)
    assert 2 <= figures["latency_p50_ms"] < 25
    assert figures["latency_max_ms"] < 250
    assert sleeper.count > 20
    assert np.diff(sleeper.stamps).min() >= 50_000_000


def test_a_stop_is_as_long_as_it_is_and_latency_counts_from_when_the_frame_was_due():
    figures = live_figures(
        play(frames(), rate=20, seconds=1.5, warmup=0.1, process=Sleeper(0.002, {10: 0.4}))
    )
    assert 400 <= figures["longest_stop_ms"] < 550
    assert 400 <= figures["latency_max_ms"] < 500
    assert 6 <= figures["dropped"] <= 9


def test_frames_that_are_too_old_at_their_turn_are_dropped_as_in_the_node():
    ages = []

    def process(frame):
        ages.append(time.perf_counter() - begin - (frame.stamp - 10**9) * 1e-9)
        time.sleep(0.1)
        return {"tracks": 0}

    begin = time.perf_counter()
    run = play(frames(), rate=25, seconds=1, warmup=0.1, process=process, max_age=0.02)
    assert max(ages) < 0.03
    assert 4 <= len(run.results) <= 9  # every third frame, where it is every second without


def test_where_no_frame_gets_through_the_figures_say_so():
    run = play(frames(), rate=50, seconds=0.5, warmup=0.1, process=Sleeper(0.0), max_age=1e-9)
    figures = live_figures(run)
    assert (figures["offered"], figures["processed"], figures["dropped"]) == (25, 0, 25)
    assert figures["longest_stop_ms"] >= 500
    assert "latency_p50_ms" not in figures


def test_what_the_front_end_raises_is_raised_and_no_thread_is_left():
    def process(frame):
        if frame.stamp > 10**9 + 300_000_000:
            raise D2RosError("the image is unusable")
        return {"tracks": 0}

    for seconds in (0.1, 10):
        with pytest.raises(D2RosError, match="unusable"):
            play(frames(), rate=50, seconds=seconds, warmup=0.25, process=process)
    assert not [t for t in threading.enumerate() if t.name == "d2_frontend_worker"]


def test_ctrl_c_keeps_what_was_measured_and_waits_for_the_frame_at_hand():
    done = []

    def process(frame):
        done.append(frame.stamp)
        if len(done) == 20:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
        return {"tracks": 0}

    run = play(frames(), rate=50, seconds=60, warmup=0.1, process=process)
    assert isinstance(run.ending, KeyboardInterrupt)
    assert 10 <= len(run.results) <= 16
    assert len(done) == 20
    assert run.offered >= len(run.results)
    assert live_figures(run)["seconds"] < 1


def test_frames_go_forwards_and_backwards_and_time_goes_on():
    seen = list(itertools.islice(back_and_forth(frames(4), 8), 9))
    assert [int(frame.image[0, 0]) for frame in seen] == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert np.diff([frame.stamp for frame in seen]).tolist() == [125_000_000] * 8
    alone = list(itertools.islice(back_and_forth(frames(1), 8), 3))
    assert [int(frame.image[0, 0]) for frame in alone] == [0, 0, 0]


def test_frames_of_several_sizes_and_none_are_refused():
    with pytest.raises(D2RosError, match=r"24 x 32 and then 30 x 40; use the first 2"):
        of_one_size([*frames(2), *frames(1, (30, 40))])
    with pytest.raises(D2RosError, match="no frames"):
        of_one_size([])


def test_children_count_while_they_run_and_afterwards():
    elsewhere = usage().cpu_s - time.process_time()
    before = usage().memory_mib
    child = multiprocessing.get_context("spawn").Process(target=sum, args=(range(10**10),))
    child.start()
    try:
        deadline = time.monotonic() + 60
        while usage().cpu_s - time.process_time() - elsewhere < 0.5:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert usage().memory_mib > before + 5
    finally:
        child.kill()
        child.join()
    assert usage().cpu_s - time.process_time() - elsewhere >= 0.5


def test_the_real_path_next_to_klt(tmp_path, d2_ros):
    path, folder = tmp_path / "f.json", tmp_path / "out"
    outcome = d2_ros(
        "benchmark", SOURCE, "--live", 10, "--seconds", 3, "--warmup", 1, "--params-file", LIGHT,
        "-p", "features.max_keypoints:=100", "--json", path, "--out", folder,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    figures = json.loads(path.read_text())
    assert all(isinstance(value, (float, int, str)) for value in figures.values())
    assert figures["rate_hz"] == 10
    assert figures["size_px"] == "160x120"
    for name in ("d2", "klt"):
        row = {key: figures[f"{name}.{key}"] for key in ("offered", "processed", "dropped")}
        assert row["offered"] == 30 == row["processed"] + row["dropped"]
        assert row["processed"] >= 2
        order = [figures[f"{name}.latency_{p}_ms"] for p in ("p50", "p95", "p99", "max")]
        assert order == sorted(order)
        assert order[0] > 0
        assert 0 < figures[f"{name}.cpu_share"] <= 1
        assert figures[f"{name}.memory_end_mib"] > 100
        assert figures[f"{name}.tracks"] > 20
        assert name in outcome.out
    assert figures["d2.followed"] + figures["d2.extracted"] == figures["d2.processed"]
    assert figures["d2.keyframes"] <= figures["d2.extracted"]
    assert "klt.keyframes" not in figures
    assert "longest stop" in outcome.out
    assert "are left out" in outcome.out
    page = (folder / "report.html").read_text()
    assert "longest stop" in page
    assert page.count("data:image/png") == 1


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_command_with_what_it_has(
    tmp_path, d2_ros, fake_frontend, monkeypatch, name
):
    number, path, calls = getattr(signal, name), tmp_path / "f.json", []
    process = benchmark_live._process

    def counted(*arguments):
        calls.append(1)
        if len(calls) == 70:
            os.kill(os.getpid(), number)
        return process(*arguments)

    monkeypatch.setattr(benchmark_live, "_process", counted)
    outcome = d2_ros("benchmark", SOURCE, "--live", 50, "--warmup", 1, "--json", path)
    assert outcome.code == 128 + number
    figures = json.loads(path.read_text())
    assert 10 <= figures["d2.processed"] <= 20
    assert "klt.processed" not in figures
    assert "interrupted; measured until then: 0." in outcome.err
    assert "frames/s" in outcome.out
    assert "Traceback" not in outcome.err


def test_numbers_that_are_none_and_options_that_do_not_go_together_are_a_sentence(tmp_path, d2_ros):
    for number, size in enumerate([(48, 64), (60, 80)]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros(size, np.uint8))
    for arguments, words in (
        ([SOURCE, "--seconds", 3], "--live RATE"),
        ([SOURCE, "--live", 10, "--scaling", "size"], "leave --scaling out"),
        ([SOURCE, "--live", 10, "-p", "input.qos:=replay"], "plays to a live node"),
        ([tmp_path, "--live", 10], "images of one size"),
    ):
        outcome = d2_ros("benchmark", *arguments)
        assert outcome.code == 2
        assert words in outcome.err
        assert outcome.err.count("\n") == 1
    for arguments in (["--live", "nan"], ["--live", 10, "--seconds", "nan"]):
        assert d2_ros("benchmark", SOURCE, *arguments).code == 2
    for rate, seconds, words in ((np.nan, 1, "--live is nan"), (1, np.nan, "--seconds is nan")):
        with pytest.raises(D2RosError, match=words):  # the check for a typer that passes it on
            benchmark_live.Plan(rate, seconds, 1, 1)
