"""The verb: figures, page and errors."""

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("pycolmap", reason="pycolmap is not installed (extra mapping)")

METHODS = ("d2", "d2_matches", "d2_detected", "d2_matches_detected", "sift", "klt")


def test_the_verb_tells_all_methods_on_one_page(tmp_path, d2_ros):
    told = tmp_path / "told.json"
    sequence = "synthetic:size=240x180,frames=10"
    options = ["-p", "window.min_tracked_share:=1.0", "-p", "threads:=1"]
    arguments = [sequence, "--out", tmp_path / "out", "--json", told, *options]
    outcome = d2_ros("evaluate", "reconstruction", *arguments)
    assert outcome.code == 0, outcome.err
    figures = json.loads(told.read_text())
    assert figures["frames"] == 10
    for method in METHODS:
        assert figures[f"{method}.points"] > 50
        assert 0 < figures[f"{method}.points_below_1px"] <= 1
        assert method in outcome.out
    error = {name: figures[f"{name}.reprojection_error_px"] for name in METHODS}
    assert error["d2"] < 0.1 * error["d2_detected"]
    assert error["d2"] < error["sift"]
    assert figures["d2.camera_error_mm"] < figures["sift.camera_error_mm"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1


def test_the_verb_refuses_what_has_no_poses(tmp_path, d2_ros):
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "0.png"), np.zeros((24, 32), np.uint8))
    outcome = d2_ros("evaluate", "reconstruction", tmp_path / "photos", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "has no ground-truth poses" in outcome.err
    assert not (tmp_path / "out").exists()
