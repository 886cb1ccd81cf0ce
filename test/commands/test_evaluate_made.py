"""The verbs whose data any installation can make: figures, page and errors."""

import json

import cv2
import numpy as np
import pytest

METHODS = ("d2", "d2_detected", "d2_published", "sift", "orb", "klt")
TINY = ("-p", "threads:=1", "-p", "features.max_keypoints:=100")

pytest.importorskip("skimage")


def check(folder, figures, groups):
    for method in METHODS:
        for group in groups:
            for figure in ("mma_1px", "correct_1px", "verified_mma_1px", "verified_correct_1px"):
                lower, higher = (
                    figures[f"{method}.{group}_{name}"] for name in (figure, figure[:-3] + "3px")
                )
                assert 0 <= lower <= higher
            raw, kept = (
                figures[f"{method}.{group}_{name}"] for name in ("matches", "verified_matches")
            )
            assert kept <= raw
    page = (folder / "report.html").read_text()
    assert "http" not in page
    for plot in ("right_raw_matches", "right_verified_matches"):
        assert cv2.imread(str(folder / f"{plot}.png")) is not None
    return page


@pytest.mark.slow
def test_illumination_judges_every_kind_and_strength(tmp_path, d2_ros):
    told = tmp_path / "i.json"
    outcome = d2_ros(
        "evaluate", "illumination", "--out", tmp_path / "out", "--json", told,
        "--width", 160, "--photo", "astronaut", "--seed", 3, *TINY,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    figures = json.loads(told.read_text())
    kinds = ("gamma", "shading", "night", "exposure", "blur")
    steps = [f"{kind}{step}" for kind in kinds for step in range(1, 6)]
    page = check(tmp_path / "out", figures, ["unchanged", *kinds, *steps])
    assert page.count("data:image/png;base64,") == 2
    assert (figures["pairs"], figures["seed"], figures["width"], figures["height"]) == (
        26, 3, 160, 120,
    )  # fmt: skip
    assert figures["source"] == "skimage.data: astronaut"
    for method in ("d2", "sift", "orb"):
        assert figures[f"{method}.unchanged_mma_3px"] > 0.3
        assert figures[f"{method}.unchanged_pairs"] == 1
        assert figures[f"{method}.night_pairs"] == 5
        for kind in kinds:
            of_kind = [figures[f"{method}.{kind}{step}_mma_1px"] for step in range(1, 6)]
            assert figures[f"{method}.{kind}_mma_1px"] == pytest.approx(np.mean(of_kind))
    assert figures["d2.unchanged_mma_1px"] > 2 * figures["d2_detected.unchanged_mma_1px"]
    assert figures["sift.night5_correct_3px"] < figures["sift.night1_correct_3px"]


def test_gaps_are_judged_without_the_frames_between(tmp_path, d2_ros):
    told = tmp_path / "g.json"
    outcome = d2_ros(
        "evaluate", "gaps", "synthetic:size=160x120,frames=24", "--every", 12,
        "--out", tmp_path / "out", "--json", told, *TINY,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "too short for gaps of 40, 60 frames" in outcome.err
    figures = json.loads(told.read_text())
    page = check(tmp_path / "out", figures, ["gap10", "gap20"])
    assert page.count("data:image/png;base64,") == 3
    assert not any("gap40" in name for name in figures)
    for method in METHODS:
        assert figures[f"{method}.gap10_pairs"] == 2
        areas = [figures[f"{method}.gap10_auc_{limit}deg"] for limit in (5, 10, 20)]
        assert areas == sorted(areas)
    assert figures["gap20_share_seen_in_both"] < figures["gap10_share_seen_in_both"] < 1
    assert figures["d2.gap10_mma_1px"] > 2 * figures["d2_detected.gap10_mma_1px"]


def test_what_is_wrong_is_named_with_exit_code_2(tmp_path, d2_ros):
    out = ["--out", tmp_path / "out"]
    images = tmp_path / "images"
    images.mkdir()
    cv2.imwrite(str(images / "1.png"), np.zeros((60, 80), np.uint8))
    for arguments, words in (
        (["illumination", *out, "--photo", "mona_lisa"], "mona_lisa is none of astronaut"),
        (["illumination", *out, "--width", 100], "--width"),
        (["illumination", "--out", images / "1.png" / "x"], "cannot write"),
        (["gaps", "synthetic:size=160x120,frames=8", *out], "use frames=11"),
        (["gaps", images, *out], "needs exact ground truth"),
        (["gaps", "synthetic:size=1x1", *out], "is not possible"),
        (["gaps", tmp_path / "none", *out], "does not exist"),
    ):
        outcome = d2_ros("evaluate", *arguments)
        assert outcome.code == 2, arguments
        assert words in outcome.err, outcome.err
