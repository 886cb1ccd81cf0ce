"""``d2-ros benchmark`` at tiny sizes: every promised figure is there and they fit together."""

import itertools
import json
import os
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from d2_ros.benchmark import machine
from d2_ros.benchmark.figures import stage_figures
from d2_ros.benchmark.floors import network_macs
from d2_ros.benchmark.frames import endless, resized
from d2_ros.benchmark.machine import mean_power
from d2_ros.benchmark.measure import Channel, Measurement, measure
from d2_ros.camera import Camera
from d2_ros.commands import benchmark
from d2_ros.config import Config, with_values
from d2_ros.errors import D2RosError
from d2_ros.features.extractor import Extractor
from d2_ros.frontend import FrontEnd
from d2_ros.sources import Frame, open_source
from d2_ros.timing import Stopwatch

SOURCE = "synthetic:size=160x120,frames=5"
SMALL = ("-p", "features.max_edge:=64", "-p", "window.size:=2", "-p", "features.max_keypoints:=100")


class Few:
    name = "few"

    def __init__(self, stamps):
        self.frames = [Frame(stamp, np.zeros((24, 32), np.uint8), None) for stamp in stamps]

    def __iter__(self):
        return iter(self.frames)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Measure the machine in no time; forget the ROS graph that publishing makes for itself."""
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    measure = machine.measure_machine
    monkeypatch.setattr(machine, "measure_machine", lambda *device: measure(*device, 0.0))


def test_figures_table_page_and_scaling(tmp_path, d2_ros, monkeypatch):
    monkeypatch.setitem(benchmark.STEPS, benchmark.Scaling.cameras, (1, 2))
    monkeypatch.setitem(benchmark.STEPS, benchmark.Scaling.size, (96,))
    monkeypatch.setitem(benchmark.STEPS, benchmark.Scaling.keypoints, (10,))
    monkeypatch.setitem(benchmark.STEPS, benchmark.Scaling.window, (3,))
    path, folder = tmp_path / "f.json", tmp_path / "out"
    scaling = [f"--scaling={kind.value}" for kind in benchmark.Scaling]
    outcome = d2_ros(
        "benchmark", SOURCE, "--frames", 3, "--warmup", 1, *scaling, *SMALL,
        "--out", folder, "--json", path,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    figures = json.loads(path.read_text())
    assert all(isinstance(value, (float, int, str)) for value in figures.values())
    stages = ("decode", "upload", "network", "detection", "description", "matching")
    stages += ("verification", "alignment", "graph", "optimisation", "serialisation")
    for stage in (*stages, "rest", "total"):
        order = [figures[f"{stage}.{name}_ms"] for name in ("p50", "p95", "p99", "max")]
        assert order == sorted(order), stage
        assert order[-1] > 0, stage
        assert stage in outcome.out
    assert figures["rest_over_network"] == pytest.approx(
        figures["rest.p50_ms"] / figures["network.p50_ms"]
    )
    assert figures["frames"] == 3
    assert figures["network.floor_ms"] > 0
    assert figures["host_peak_mib"] >= figures["host_mib"] > 50
    assert figures["keypoints.10.keypoints"] <= 10 < figures["keypoints"]
    assert figures["cameras.2.network_p50_ms"] > 0
    assert {"size.96.total_p50_ms", "window.3.host_mib"} <= set(figures)
    assert "floor" in outcome.out
    assert ("publishing.p50_ms" in figures) == (find_spec("rclpy") is not None)
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png") == 6
    assert "cameras 2" in page
    assert (folder / "stages.png").stat().st_size > 1000


def test_cameras_share_one_run_of_the_network_per_frame(monkeypatch):
    config = with_values(Config(), {"device": "cpu", "features.max_edge": 64, "window.size": 2})
    extractor, batches = Extractor(config), []
    respond = extractor.respond

    def counted(images, watch=None):
        batches.append(len(images))
        return respond(images, watch)

    monkeypatch.setattr(extractor, "respond", counted)
    for cameras in (1, 3):
        channels = [Channel(FrontEnd(config, extractor), {}) for _ in range(cameras)]
        measured = measure(endless(open_source(SOURCE)), channels, config, 1, 2)
        assert batches == [cameras] * 4  # two frames fill the window, two are measured
        batches.clear()
        stages = measured.stages_ms
        spent = sum(stages[name] for name in stages if name not in ("decode", "total"))
        assert (stages["total"] >= 0.9 * spent).all()  # the batch is part of it


def test_bad_input_is_one_sentence(tmp_path, d2_ros):
    empty = tmp_path / "images"
    empty.mkdir()
    for arguments in ([empty], [tmp_path / "absent.mcap"], [SOURCE, "-p", "window.sise:=3"]):
        outcome = d2_ros("benchmark", *arguments)
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
        assert "Traceback" not in outcome.err


def test_without_ros_publishing_is_left_out_and_said_so(monkeypatch, capsys):
    def absent():
        raise D2RosError("this command needs ROS 2")

    monkeypatch.setattr("d2_ros.node.require_ros", absent)
    with benchmark.publisher(Config()) as others:
        assert others == {}
    assert "Publishing is not timed" in capsys.readouterr().err


def test_a_short_source_starts_over_with_its_stamps_going_on():
    source = Few([100, 150, 140, 200])
    stamps = [frame.stamp for frame in itertools.islice(endless(source), 8)]
    assert stamps == [100, 150, 200, 250, 300, 350, 400, 450]
    with pytest.raises(D2RosError, match="few has no frames"):
        next(endless(Few([])))


def test_a_resized_frame_sees_the_same_bearings():
    camera = Camera(64, 48, [[50, 0, 31.5], [0, 52, 20], [0, 0, 1]], [])
    frame = resized(Frame(1, np.zeros((48, 64), np.uint8), camera), 32)
    assert frame.image.shape == (24, 32)
    corners = np.array([[-0.5, -0.5], [63.5, 47.5]])
    there = (corners + 0.5) / 2 - 0.5
    np.testing.assert_allclose(camera.bearings(corners), frame.camera.bearings(there), atol=1e-9)


def test_operations_of_the_network_are_counted():
    full, half, quarter = 640 * 480, 320 * 240, 160 * 120
    pooled = 159 * 119  # what the pool of stride 1 leaves
    macs = 9 * full * (3 * 64 + 64 * 64) + 9 * half * (64 * 128 + 128 * 128)
    macs += 9 * quarter * (128 * 256 + 2 * 256 * 256)
    macs += 9 * pooled * (256 * 512 + 2 * 512 * 512)
    assert network_macs("vgg16", 640, 480) == macs


def test_ratios_are_to_the_network_and_to_the_floor():
    times = {"network": np.array([10.0, 20, 30]), "total": np.array([12.0, 30, 32])}
    measured = Measurement(times, np.array([False, True, False]), 1.0, {}, {}, np.nan)
    figures = stage_figures(measured, {"network": 5.0})
    assert figures["network"]["over_floor"] == 4.0
    assert figures["rest"]["p50_ms"] == 2.0
    assert figures["rest"]["over_network"] == 0.1
    assert figures["total"]["keyframe_p50_ms"] == 30.0


def test_power_is_the_mean_of_what_is_a_number():
    assert mean_power("100.0\n[N/A]\n110.0\n") == 105.0
    assert np.isnan(mean_power("[N/A]\n"))


def test_the_extractor_tells_its_stages_and_the_watch_waits_for_the_device():
    waits = []
    watch = Stopwatch(lambda: waits.append(1))
    extractor = Extractor(Config(device="cpu"))
    with torch.inference_mode():
        extractor.extract([np.zeros((64, 64), np.uint8)], watch)
    assert list(watch.sections_ms) == ["upload", "network", "detection", "description"]
    assert len(waits) == 4
