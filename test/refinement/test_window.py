"""What a frame publishes against what the window solution then says of the same observation."""

from __future__ import annotations

import numpy as np
import pytest

import d2_ros.frontend
from d2_ros.config import Config, with_values
from d2_ros.frontend import FrontEnd
from d2_ros.refinement.window import moved
from d2_ros.sources.synthetic import open_synthetic

FRAMES = 12


@pytest.fixture(scope="module")
def run():
    """Frame results, and the window before and after every solution."""
    source = open_synthetic(f"size=160x120,frames={FRAMES}")
    values = {"window.min_tracked_share": 0.95, "threads": 1}
    solutions = []

    def recorded(window, solved, pixels):
        refined = moved(window, solved, pixels)
        solutions.append((window, refined))
        return refined

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(d2_ros.frontend, "moved", recorded)
        frontend = FrontEnd(with_values(Config(), values))
        results = [frontend.process(frame.image, frame.stamp, frame.camera) for frame in source]
    return results, solutions


def test_a_frame_says_nearly_what_the_full_solution_says(run):
    """The newest keyframe as it would have been published without being one, and solved."""
    _, solutions = run
    moves = []
    for window, refined in solutions[1:]:
        known = np.concatenate([keyframe.obs.tracks for keyframe in window[:-1]])
        rows = (window[-1].obs.tracks > 0) & np.isin(window[-1].obs.tracks, known)
        off = np.linalg.norm(refined[-1].obs.pixels - window[-1].obs.pixels, axis=1)
        moves.append(off[rows])
    moves = np.concatenate(moves)
    assert len(solutions) >= 4
    assert len(moves) > 400
    assert np.median(moves) < 0.01
    assert np.percentile(moves, 95) < 0.05


def test_what_was_published_stays_nearly_true(run):
    """`features` of a frame at its time, against its observations in the last `tracks`."""
    results, _ = run
    published = {result.stamp: result.features for result in results}
    last = {}
    for result in results:
        if result.tracks is not None:
            stamps = result.tracks["sec"].astype(np.int64) * 10**9 + result.tracks["nanosec"]
            last |= {stamp: result.tracks[stamps == stamp] for stamp in np.unique(stamps).tolist()}
    moves = []
    for stamp, rows in last.items():
        then = published[stamp][rows["index"]]
        np.testing.assert_array_equal(then["track_id"], rows["track_id"])
        again = then["track_length"] > 1  # roots do not move at all
        moves.append(np.hypot(rows["u"] - then["u"], rows["v"] - then["v"])[again])
    moves = np.concatenate(moves)
    assert len(moves) > 400
    assert np.median(moves) < 0.01
    assert np.percentile(moves, 95) < 0.1
