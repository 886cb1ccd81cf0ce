"""Accuracy beside that of the last release: a fifth less of any figure fails, time never does."""

import json
import os
from collections import deque
from pathlib import Path

import numpy as np
import pytest

import d2_ros
from d2_ros.config import Config
from d2_ros.evaluation.accuracy import accuracy_figures, track_errors
from d2_ros.evaluation.geometry import relative
from d2_ros.evaluation.pairs import judge_pair, pair_figures
from d2_ros.evaluation.peers import Observed
from d2_ros.evaluation.stages import stage_points
from d2_ros.evaluation.tracking import track_figures
from d2_ros.frontend import FrontEnd
from d2_ros.records import columns
from d2_ros.sources.synthetic import open_synthetic

FILE = Path(__file__).resolve().parents[1] / "release_figures.json"
SEQUENCE = "size=320x240,frames=18"
GAP = 5  # frames between the two of a pair, as `d2-ros evaluate sequence` has it
LOSS = 0.2
ERRORS = ("median_error_px", "p90_error_px")  # the rest is better the larger it is


def measure():
    source, frontend = open_synthetic(SEQUENCE), FrontEnd(Config())
    poses, recent = source.poses(), deque(maxlen=GAP + 1)
    published, tracks, pairs = [], [], []
    for number, frame in enumerate(source):
        result = frontend.process(frame.image, frame.stamp, frame.camera)
        published.append((frame.stamp, result.features))
        ids = result.features["track_id"].astype(np.int64)
        tracks.append(Observed(ids, columns(result.features, "u", "v")))
        recent.append(result)
        if number >= GAP:
            first, shapes = recent[0], (frame.image.shape, frame.image.shape)
            points = stage_points(first.features, result, first.stamp, shapes, 1600)["d2"]
            motion = relative(poses[number - GAP], poses[number])
            pairs.append(judge_pair(points, (frame.camera,) * 2, motion, Config().matching))
    size = (source.options.width, source.options.height)
    figures = accuracy_figures(track_errors(published, source)) | track_figures(tracks, size)
    figures |= pair_figures(pairs)
    names = (*ERRORS, "auc_5deg", "mean_track_length", "active_tracks")
    return {name: float(f"{figures[name]:.4g}") for name in names}


def losses(now, release):
    """Share of each figure's worth that is lost: positive is worse."""
    return {
        name: 1 - (release[name] / now[name] if name in ERRORS else now[name] / release[name])
        for name in release
    }


def test_no_figure_is_a_fifth_worse_than_at_the_last_release():
    now = measure()
    if os.environ.get("D2_ROS_RELEASE"):
        content = {"version": d2_ros.__version__, "sequence": SEQUENCE, "figures": now}
        FILE.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    told = json.loads(FILE.read_text(encoding="utf-8"))
    assert told["sequence"] == SEQUENCE
    lost = losses(now, told["figures"])
    assert {name: loss for name, loss in lost.items() if loss > LOSS} == {}, now


@pytest.mark.parametrize(
    ("name", "factor"), [("median_error_px", 1.26), ("auc_5deg", 0.79), ("active_tracks", 0.79)]
)
def test_a_loss_of_more_than_a_fifth_is_seen_and_a_gain_is_none(name, factor):
    release = json.loads(FILE.read_text(encoding="utf-8"))["figures"]
    assert losses(release | {name: release[name] * factor}, release)[name] > LOSS
    assert losses(release | {name: release[name] / factor}, release)[name] < 0
    assert max(losses(release, release).values()) == 0
