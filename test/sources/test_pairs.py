"""Frames of two cameras that were taken together."""

from __future__ import annotations

import numpy as np

from d2_ros.sources.base import Frame
from d2_ros.sources.pairs import Partners


def frames(*stamps):
    return [Frame(stamp, np.zeros((2, 2), np.uint8), None) for stamp in stamps]


def test_frames_meet_within_the_tolerance_and_once():
    partners = Partners(frames(95, 203, 204, 310, 400), 5)
    found = [partners.at(stamp) for stamp in (100, 200, 300, 401, 402)]
    assert [frame and frame.stamp for frame in found] == [95, 203, None, 400, None]


def test_no_frames_are_no_partners():
    assert Partners([], 5).at(1) is None
