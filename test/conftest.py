"""What holds for every test."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"

# The same examples in every run: what CI says is about the commit, not about its luck. New ones
# are drawn with `--hypothesis-profile=default`.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# A shell that starts the tests in the background leaves Ctrl-C ignored, and every process the
# tests start would inherit that; the tests that press Ctrl-C need it to work.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def real_data():
    """Path of a file or folder of the shared recordings; skips where it is absent."""

    def find(name: str) -> Path:
        path = DATA / name
        if not path.exists():
            pytest.skip(f"real recording {path} is not on this machine")
        return path

    return find


# Side by side, test processes with as many threads as there are cores get in each other's way.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# `runtime: auto` and `precision: auto` are then torch and fp32 on every machine, so that the tests'
# bounds hold on all of them.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")


class Estimator:
    """A reader of ``feature_tracks`` written after the estimators' own parsers.

    Asserts what they rely on; ids must belong to one run of frames, ever, unless `wraps`. With a
    `right` camera it is one for a stereo pair.
    """

    def __init__(self, layout, camera=None, wraps=False, right=None, cameras=1):
        self.layout = layout
        self.calibrations = (camera, right)
        self.cameras = 2 if right is not None else cameras
        self.wraps = wraps
        self.stamp = None
        self.last = {}
        self.runs = {}
        self.ended = set()
        self.longest = 0
        self.pairs = 0

    def restart(self):
        """As on the estimators' restart topic: time may start over."""
        self.ended |= set(self.runs)
        self.stamp, self.last, self.runs = None, {}, {}

    def parse(self, message):
        """Ids, camera numbers, pixels and velocities, as the layout has them."""
        assert len(message.channels) == {"fusion": 9, "mono": 5}[self.layout]
        assert all(len(channel.values) == len(message.points) for channel in message.channels)
        values = np.array([channel.values for channel in message.channels], np.float32)
        if self.layout == "fusion":
            assert not np.any(values[6:])
            numbers, cameras, rest = values[0], values[1], values[2:6]
        else:
            whole = (values[0] + np.float32(0.5)).astype(np.int64)
            numbers, cameras, rest = whole // self.cameras, whole % self.cameras, values[1:]
        assert np.all((values[0] >= 0) & (values[0] < 2**24) & (values[0] == np.rint(values[0])))
        assert np.all((cameras >= 0) & (cameras < self.cameras) & (cameras == np.rint(cameras)))
        return [*zip(numbers.astype(int).tolist(), cameras.astype(int).tolist(), strict=True)], rest

    def feature_callback(self, message):
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        assert self.stamp is None or stamp > self.stamp
        seconds = None if self.stamp is None else (stamp - self.stamp) * 1e-9
        seen, (u, v, x_rate, y_rate) = self.parse(message)
        assert len(set(seen)) == len(seen)
        now = {}
        for row, (key, point) in enumerate(zip(seen, message.points, strict=True)):
            assert key[1] == 0 or (key[0], 0) in now, "the left camera's observation comes first"
            assert point.z == 1
            assert np.isfinite([point.x, point.y, u[row], v[row]]).all()
            before = self.last.get(key)
            expected = (0.0, 0.0)
            if before:
                expected = ((point.x - before[0]) / seconds, (point.y - before[1]) / seconds)
            np.testing.assert_allclose((x_rate[row], y_rate[row]), expected, rtol=1e-5, atol=1e-9)
            now[key] = (point.x, point.y)
            if self.calibrations[key[1]] is not None:
                bearing = self.calibrations[key[1]].bearings([[u[row], v[row]]])[0, :2]
                np.testing.assert_allclose(bearing, now[key], atol=1e-4)
        ids = {number for number, _ in seen}
        assert len(ids) <= 300
        self.pairs += len(seen) - len(ids)
        if not self.wraps:
            assert not self.ended & ids, "an id came back after a gap"
        self.ended |= set(self.runs) - ids
        self.runs = {key: self.runs.get(key, 0) + 1 for key in ids}
        self.longest = max([self.longest, *self.runs.values()])
        self.stamp, self.last = stamp, now


@pytest.fixture(scope="session")
def estimator():
    return Estimator
