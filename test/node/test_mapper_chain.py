"""Player, front-end, mapper and recorder over DDS, the real ones, each node a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rosbags.highlevel import AnyReader
from std_srvs.srv import Trigger

from d2_ros.evaluation.trajectories import Path3D, judge
from d2_ros.node.recorder import Recorder
from d2_ros.node.source_publisher import SourcePublisher
from d2_ros.sources import open_source
from d2_ros.sources.messages import stamp_of
from d2_ros.sources.writer import BagWriter

ROOT = Path(__file__).resolve().parents[2]
SECOND = 1_000_000_000
ODOMETRY = "/d2_mapper/odometry"
PATIENCE = 120.0
"""s; the network takes some tenths of a second a frame on one core, which others may share."""

PART = 16
"""Frames of each part; the maps of the first two begin with the ninth and the sixth."""


@pytest.fixture
def spawn() -> Iterator[Callable[..., None]]:
    """Return a function that starts an executable of the package."""
    started: list[subprocess.Popen[bytes]] = []

    def start(module: str, *parameters: str) -> None:
        command = [sys.executable, "-m", module, "--ros-args"]
        command += [part for parameter in parameters for part in ("-p", parameter)]
        path = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
        started.append(subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}))

    yield start
    for process in started:
        process.kill()
        process.wait()


class Watcher(Node):
    """Hears the diagnostics of both nodes, and odometry."""

    def __init__(self) -> None:
        super().__init__("watcher", use_global_arguments=False)
        self.states: dict[str, dict[str, str]] = {}
        self.stamps: list[int] = []
        self.create_subscription(Odometry, ODOMETRY, self._on_odometry, 1000)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)

    def _on_odometry(self, message: Odometry) -> None:
        self.stamps.append(stamp_of(message))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.states[status.name] = {entry.key: entry.value for entry in status.values}


class Part(NamedTuple):
    """What happens before its frames, which of the source's is the first, and when they come."""

    event: str
    start: int
    stamps: list[int]


def parts_of(events: list[str], recorded: list[int]) -> list[Part]:
    """Cut a recording at the events, which change its time."""
    parts, start, shift = [], 0, 0
    for event in ["", *events]:
        if event == "back":  # as where a recording is played in a loop
            start, shift = 0, 0
        shift += 5 * SECOND if event == "gap" else 0
        parts.append(
            Part(event, start, [stamp + shift for stamp in recorded[start : start + PART]])
        )
        start += PART
    return parts


def path_of(messages: list[Any]) -> Path3D:
    poses = np.tile(np.eye(4), (len(messages), 1, 1))
    places = [message.pose.pose.position for message in messages]
    poses[:, :3, 3] = [(place.x, place.y, place.z) for place in places]
    return Path3D(np.array([stamp_of(message) for message in messages]), poses)


@pytest.mark.parametrize(
    "events", [["reset"], pytest.param(["reset", "gap", "back"], marks=pytest.mark.slow)]
)
def test_the_chain_maps_through_a_reset_a_gap_and_time_that_jumps_back(
    graph: Any, spawn: Callable[..., None], tmp_path: Path, events: list[str]
) -> None:
    source = open_source(f"synthetic:size=160x120,rate=10,frames={3 * PART}")
    frames, true = list(source), source.poses()
    parts = parts_of(events, [frame.stamp for frame in frames])
    spawn("d2_ros.node.frontend_node", "autostart:=true", "input.qos:=replay", "threads:=1")
    spawn("d2_ros.node.mapper_node")

    def wait(condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, (watcher.states, watcher.stamps)
            time.sleep(0.02)

    def placed(stamp: int) -> bool:
        return watcher.stamps[-1:] == [stamp]

    with BagWriter(tmp_path / "heard.mcap") as bag:
        watcher, player = graph.add(Watcher()), graph.add(SourcePublisher())
        recorder = graph.add(Recorder(bag, {ODOMETRY: Odometry}))
        names = ("d2_frontend: camera", "d2_mapper: map")
        # What a node has sent has come here: it has found this process.
        wait(lambda: all(name in watcher.states for name in names) and recorder.connected())
        wait(player.connected)
        ends = []
        for part in parts:
            if part.event == "reset":
                client = watcher.create_client(Trigger, "/d2_frontend/reset")
                assert graph.call(client, Trigger.Request()).success
            for frame, stamp in zip(frames[part.start :], part.stamps, strict=False):
                player.publish(replace(frame, stamp=stamp))
            wait(partial(placed, part.stamps[-1]))
            ends.append(len(watcher.stamps))
        wait(lambda: recorder.counts[ODOMETRY] == len(watcher.stamps))
    with AnyReader([tmp_path / "heard.mcap"]) as reader:
        heard = [reader.deserialize(raw, kind.msgtype) for kind, _, raw in reader.messages()]
    for part, begin, end in zip(parts, [0, *ends], ends, strict=False):
        told, poses = path_of(heard[begin:end]), true[part.start : part.start + PART]
        assert len(told.stamps) > PART / 3, part.event
        assert set(told.stamps.tolist()) <= set(part.stamps), part.event
        judged = judge(told, Path3D(np.array(part.stamps), poses))
        way = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).sum()
        assert judged.figures["absolute_error_m"] < 0.05 * way, part.event
    if "back" in events:
        wait(lambda: watcher.states["d2_mapper: map"]["restarts"] == "1")
    else:
        wait(lambda: watcher.states["d2_mapper: map"]["segments"] == "2")
