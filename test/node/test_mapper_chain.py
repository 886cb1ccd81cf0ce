"""Player, front-end, mapper and recorder over DDS, the real ones, each node a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

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

PARTS = 16
"""Frames before each event; the map of the first part begins with the tenth."""


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


@pytest.mark.parametrize(
    "events", [["reset"], pytest.param(["reset", "gap", "back"], marks=pytest.mark.slow)]
)
def test_the_chain_maps_through_a_reset_a_gap_and_time_that_jumps_back(
    graph: Any, spawn: Callable[..., None], tmp_path: Path, events: list[str]
) -> None:
    source = open_source(f"synthetic:size=160x120,rate=10,frames={PARTS * (1 + len(events))}")
    frames, true = list(source), source.poses()
    spawn("d2_ros.node.frontend_node", "autostart:=true", "input.qos:=replay", "threads:=1")
    spawn("d2_ros.node.mapper_node")

    def wait(condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, (watcher.states, watcher.stamps)
            time.sleep(0.02)

    with BagWriter(tmp_path / "heard.mcap") as bag:
        watcher, player = graph.add(Watcher()), graph.add(SourcePublisher())
        recorder = graph.add(Recorder(bag, {ODOMETRY: Odometry}))
        names = ("d2_frontend: camera", "d2_mapper: map")
        # What a node has sent has come here: it has found this process.
        wait(lambda: all(name in watcher.states for name in names) and recorder.connected())
        wait(player.connected)
        stamps, shift = [], 0
        for number, frame in enumerate(frames):
            event = events[number // PARTS - 1] if number and number % PARTS == 0 else ""
            if event:
                wait(lambda: watcher.stamps[-1:] == stamps[-1:])
            if event == "reset":
                client = watcher.create_client(Trigger, "/d2_frontend/reset")
                assert graph.call(client, Trigger.Request()).success
            shift += {"gap": 5 * SECOND, "back": -20 * SECOND}.get(event, 0)
            stamps.append(frame.stamp + shift)
            player.publish(replace(frame, stamp=stamps[-1]))
        wait(lambda: watcher.stamps[-1:] == stamps[-1:])
        wait(lambda: recorder.counts[ODOMETRY] == len(watcher.stamps))
    with AnyReader([tmp_path / "heard.mcap"]) as reader:
        heard = [reader.deserialize(raw, kind.msgtype) for kind, _, raw in reader.messages()]
    at = np.array([stamp_of(message) for message in heard])
    places = [message.pose.pose.position for message in heard]
    poses = np.tile(np.eye(4), (len(heard), 1, 1))
    poses[:, :3, 3] = [(place.x, place.y, place.z) for place in places]
    for first in range(0, len(frames), PARTS):
        part = np.array(stamps[first : first + PARTS])
        own = np.isin(at, part)
        assert np.count_nonzero(own) > PARTS / 3, events[first // PARTS - 1]
        told = Path3D(at[own], poses[own])
        judged = judge(told, Path3D(part, true[first : first + PARTS]))
        way = np.linalg.norm(np.diff(true[first : first + PARTS, :3, 3], axis=0), axis=1).sum()
        assert judged.figures["absolute_error_m"] < 0.05 * way, events[first // PARTS - 1]
    mapper = watcher.states["d2_mapper: map"]
    if "back" in events:
        assert mapper["restarts"] == "1"
        assert at[np.isin(at, stamps[-PARTS:])].max() < stamps[0]
    else:
        wait(lambda: watcher.states["d2_mapper: map"]["segments"] == "2")
