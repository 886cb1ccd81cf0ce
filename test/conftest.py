"""What holds for every test."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"

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


class Estimator:
    """A reader of ``feature_tracks`` written after the estimators' own parsers.

    Asserts what they rely on; ids must belong to one run of frames, ever, unless `wraps`.
    """

    def __init__(self, layout, camera=None, wraps=False):
        self.layout = layout
        self.camera = camera
        self.wraps = wraps
        self.stamp = None
        self.last = {}
        self.runs = {}
        self.ended = set()
        self.longest = 0

    def restart(self):
        """As on the estimators' restart topic: time may start over."""
        self.ended |= set(self.runs)
        self.stamp, self.last, self.runs = None, {}, {}

    def feature_callback(self, message):
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        assert self.stamp is None or stamp > self.stamp
        seconds = None if self.stamp is None else (stamp - self.stamp) * 1e-9
        count = len(message.points)
        assert len(message.channels) == {"fusion": 9, "mono": 5}[self.layout]
        assert all(len(channel.values) == count for channel in message.channels)
        assert count <= 300
        values = np.array([channel.values for channel in message.channels], np.float32)
        if self.layout == "fusion":
            ids, camera_ids, u, v, x_rate, y_rate, *truth = values
            assert not np.any(truth)
        else:
            ids, u, v, x_rate, y_rate = values
            camera_ids = (ids + np.float32(0.5)).astype(np.int64) % 1
        assert not np.any(camera_ids)  # every feature is seen by camera 0
        assert np.all((ids >= 0) & (ids < 2**24) & (ids == np.rint(ids)))
        assert len(set(ids.tolist())) == count
        now = {}
        for row, point in enumerate(message.points):
            assert point.z == 1
            assert np.isfinite([point.x, point.y, u[row], v[row]]).all()
            before = self.last.get(int(ids[row]))
            expected = (0.0, 0.0)
            if before:
                expected = ((point.x - before[0]) / seconds, (point.y - before[1]) / seconds)
            np.testing.assert_allclose((x_rate[row], y_rate[row]), expected, rtol=1e-5, atol=1e-9)
            now[int(ids[row])] = (point.x, point.y)
        if self.camera is not None and count:
            bearings = self.camera.bearings(np.column_stack([u, v]))
            sent = [(point.x, point.y) for point in message.points]
            np.testing.assert_allclose(bearings[:, :2], sent, atol=1e-4)
        if not self.wraps:
            assert not self.ended & set(now), "an id came back after a gap"
        self.ended |= set(self.runs) - set(now)
        self.runs = {key: self.runs.get(key, 0) + 1 for key in now}
        self.longest = max([self.longest, *self.runs.values()])
        self.stamp, self.last = stamp, now


@pytest.fixture(scope="session")
def estimator():
    return Estimator
