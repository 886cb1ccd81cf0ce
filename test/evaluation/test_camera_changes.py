"""A sequence whose calibration or image size changes on the way."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.evaluation.sequences import run_sequence
from d2_ros.records import FEATURES, MATCHES, FrameResult
from d2_ros.sources import Frame
from d2_ros.sources.synthetic import open_synthetic

SOURCE = open_synthetic("size=160x120,frames=6")


class Blind:
    """A front-end that sees nothing and counts what it is asked for."""

    def __init__(self):
        self.config = Config()
        self.calls = Counter()

    def reset(self):
        self.calls["reset"] += 1

    def process(self, image, stamp, camera=None):
        self.calls["process"] += 1
        rows = np.zeros(0, FEATURES), np.zeros(0, MATCHES)
        return FrameResult(stamp, False, *rows, None, np.zeros((0, 512), np.float32))


def altered(change):
    """The sequence, its frames changed from the fourth on."""
    return [change(frame) if number >= 3 else frame for number, frame in enumerate(SOURCE)]


@pytest.mark.parametrize(("factor", "resets"), [(2.0, 1), (1 + 1e-6, 0)])
def test_another_calibration_drops_the_window_as_in_the_node(factor, resets):
    def zoomed(frame):
        matrix = frame.camera.matrix * [[factor], [factor], [1]]
        return replace(frame, camera=replace(frame.camera, matrix=matrix))

    frontend = Blind()
    run_sequence(altered(zoomed), SOURCE.poses(), frontend, gap=2, every=1)
    assert frontend.calls == Counter(process=6, reset=resets)


def test_images_of_another_size_are_refused_by_a_sentence():
    frames = altered(lambda frame: Frame(frame.stamp, frame.image[:100], None))
    with pytest.raises(D2RosError, match="is 160x100, those before it are 160x120"):
        run_sequence(frames, SOURCE.poses(), Blind(), gap=2, every=1)
