import sys
from typing import NamedTuple

import numpy as np
import pytest

from d2_ros import records
from d2_ros.cli import main
from d2_ros.errors import D2RosError


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def d2_ros(monkeypatch, capsys):
    """Run the command line in this process; returns its exit code, stdout and stderr."""

    def run(*arguments) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["d2-ros", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        return Outcome(int(exit_.value.code or 0), captured.out, captured.err)

    return run


class FakeFrontEnd:
    """Says of each image what its first pixels tell, so that a test knows what must come out.

    Frame n has n % 5 + 2 features at (u, v) = (10 n + row, n); every one matches the same row of
    the frame before; every third frame is a keyframe; an image whose first pixel is 255 is refused.
    """

    def __init__(self, config):
        self.config = config
        self.resets = 0
        self.count = 0
        self.last = None

    def reset(self):
        self.resets += 1
        self.last = None

    def process(self, image, stamp, camera=None):
        if image.flat[0] == 255:
            raise D2RosError("the image is unusable")
        number, self.count = self.count, self.count + 1
        features = np.zeros(number % 5 + 2, records.FEATURES)
        features["u"] = 10 * number + np.arange(len(features))
        features["v"] = number
        features["u_detected"] = features["u"] + 0.5
        features["v_detected"] = features["v"] - 0.5
        features["sigma_uu"], features["sigma_uv"], features["sigma_vv"] = 0.4, 0.1, 0.2
        features["x"] = features["y"] = features["z"] = 1 if camera else np.nan
        matches = np.zeros(0 if self.last is None else 2, records.MATCHES)
        if self.last is not None:
            before = self.last
            matches["index"] = matches["keyframe_index"] = [1, 0]
            sec, nanosec = records.split_stamp(before.stamp)
            matches["keyframe_sec"], matches["keyframe_nanosec"] = sec, nanosec
            matches["u"], matches["v"] = features["u"][[1, 0]], number
            matches["keyframe_u"] = before.features["u"][[1, 0]]
            matches["keyframe_v"] = before.features["v"][[1, 0]]
            matches["similarity"] = [0.9, 0.8]
            matches["inlier"] = [1, 0]
        descriptors = np.zeros((len(features), 512), np.float32)
        descriptors[:, number % 512] = 1
        self.last = records.FrameResult(
            stamp=stamp,
            is_keyframe=number % 3 == 0,
            features=features,
            matches=matches,
            tracks=np.ones(number, records.TRACKS) if number % 3 == 0 else None,
            descriptors=descriptors,
            timings_ms={"network": 10.0 + number},
        )
        return self.last


@pytest.fixture
def fake_frontend(monkeypatch):
    """Put the fake in the front-end's place; returns the list of those that were built."""
    built = []

    def build(config, *_):
        built.append(FakeFrontEnd(config))
        return built[-1]

    monkeypatch.setattr("d2_ros.frontend.FrontEnd", build)
    return built
