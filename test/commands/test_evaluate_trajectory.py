"""``d2-ros evaluate trajectory``: one mapper behind refined and detected tracks, KLT and SIFT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def test_refinement_makes_the_trajectory_better(d2_ros: Any, tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="--loops needs the extra places")
    figures = tmp_path / "f.json"
    source = "synthetic:size=160x120,frames=30"
    done = d2_ros(
        "evaluate", "trajectory", source, "--out", tmp_path / "out", "--json", figures, "--loops"
    )
    assert done.code == 0, done.err
    found = json.loads(figures.read_text())
    # 1.5 s come round to nothing.
    assert (found["d2_loops.loops"], found["d2_loops.loops_refused"]) == (0, 0)
    assert found["d2_loops.absolute_error_m"] == found["d2.absolute_error_m"]
    assert (tmp_path / "out" / "report.html").is_file()
    assert (tmp_path / "out" / "trajectories.png").is_file()
    methods = ("d2", "d2_equal", "d2_detected", "klt", "sift")
    assert all(found[f"{method}.frames"] == 30 for method in methods)
    assert found["d2.frames_placed"] == 30
    assert found["d2.absolute_error_m"] < 0.01
    assert found["d2.absolute_error_m"] < found["d2_detected.absolute_error_m"] / 3
    assert found["d2.relative_error_m"] < found["d2_detected.relative_error_m"] / 3


def test_a_source_without_true_poses_is_refused(d2_ros: Any, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((60, 80), np.uint8))
    done = d2_ros("evaluate", "trajectory", tmp_path, "--out", tmp_path.with_name("out_of_it"))
    assert done.code == 2
    assert "has no ground truth" in done.err


@pytest.mark.slow
def test_a_stereo_pair_is_judged_in_metres(d2_ros: Any, tmp_path: Path) -> None:
    figures, source = tmp_path / "f.json", "synthetic:size=160x120,frames=16"
    done = d2_ros(
        "evaluate", "trajectory", source, "--right", f"{source},baseline=120",
        "--out", tmp_path / "out", "--json", figures,
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(figures.read_text())
    assert found["d2.frames_placed"] == 16
    assert abs(found["d2.scale"] - 1) < 0.01
    assert found["d2.absolute_error_m"] < 0.005
    assert found["d2.absolute_error_m"] < found["d2_detected.absolute_error_m"] / 3
    assert all(f"{name}.absolute_error_m" in found for name in ("d2_equal", "klt", "sift"))


def test_cameras_whose_distance_is_not_known_are_refused(d2_ros: Any, tmp_path: Path) -> None:
    source = "synthetic:size=160x120,frames=4"
    done = d2_ros("evaluate", "trajectory", source, "--right", source, "--out", tmp_path / "out")
    assert done.code == 2
    assert "how far synthetic is from synthetic is not known" in done.err
