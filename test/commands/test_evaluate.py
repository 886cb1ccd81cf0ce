"""The verb: figures, page and errors."""

import json

import cv2
import numpy as np
import pytest

METHODS = ("d2", "d2_detected", "d2_published", "sift", "orb", "klt", "klt150")
SEQUENCE = "synthetic:size=160x120,frames=8"
ONE_THREAD = ("-p", "threads:=1")


def test_sequence_writes_the_agreed_figures_and_a_page(tmp_path, d2_ros):
    told = tmp_path / "s.json"
    outcome = d2_ros(
        "evaluate", "sequence", SEQUENCE, "--out", tmp_path / "out", "--json", told,
        "--gap", 3, "--every", 2, "--ablation", "-p", "window.min_tracked_share:=1.0", *ONE_THREAD,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    figures = json.loads(told.read_text())
    for method in METHODS:
        for name in (
            "median_epipolar_px", "share_below_1px", "inlier_matches", "rotation_error_deg",
            "translation_error_deg", "mean_track_length", "auc_5deg",
        ):  # fmt: skip
            assert np.isfinite(figures[f"{method}.{name}"]), (method, name)
    for name in (
        "median_error_px", "p90_error_px", "median_error_detected_px", "p90_error_detected_px",
        "observations", "frames", "share_inside_95pct_ellipse", "share_inside_50pct_ellipse",
    ):  # fmt: skip
        assert np.isfinite(figures[name]), name
    assert figures["d2.pairs"] == 3  # 0-3, 2-5, 4-7
    assert figures["d2.median_epipolar_px"] < figures["d2_detected.median_epipolar_px"]
    for scheme in ("two_view", "two_view_newest", "multi_view", "multi_view_paper"):
        stage, detected = (
            figures[f"ablation.{name}.median_error_px"] for name in (scheme, "detected")
        )
        assert 0 < stage < 0.5 * detected, scheme
    assert "ablation.multi_view_paper" in outcome.out
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page
    for plot in ("epipolar_errors", "pose_errors", "track_lengths"):
        assert cv2.imread(str(tmp_path / "out" / f"{plot}.png")) is not None
    assert "d2_published" in outcome.out


@pytest.fixture
def scenes(tmp_path):
    """An image, and it turned and enlarged, as a scene."""
    photo = pytest.importorskip("skimage.data").astronaut()
    photo = cv2.resize(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), (200, 200))
    warp = np.eye(3)
    warp[:2] = cv2.getRotationMatrix2D((100, 100), 12, 1.1)
    folder = tmp_path / "scenes" / "astronaut"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "1.png"), photo)
    cv2.imwrite(str(folder / "2.png"), cv2.warpAffine(photo, warp[:2], (200, 200)))
    np.savetxt(folder / "H_1_2", warp)
    return folder.parent


def test_homographies_with_the_real_front_end(tmp_path, d2_ros, scenes):
    told = tmp_path / "h.json"
    arguments = ["--out", tmp_path / "out", "--json", told, *ONE_THREAD]
    outcome = d2_ros("evaluate", "homographies", scenes, *arguments)
    assert outcome.code == 0, outcome.err
    figures = json.loads(told.read_text())
    for method in METHODS[:5]:
        shares = [figures[f"{method}.mma_{limit}px"] for limit in (1, 2, 3, 5, 10)]
        assert shares == sorted(shares)
        assert figures[f"{method}.matches"] > 20
    assert figures["d2.mma_1px"] > 3 * figures["d2_published.mma_1px"]
    assert (tmp_path / "out" / "matching_accuracy.png").exists()
    assert "data:image/png;base64," in (tmp_path / "out" / "report.html").read_text()


def test_pairs_are_written_and_judged(tmp_path, d2_ros):
    file, told = tmp_path / "pairs.txt", tmp_path / "p.json"
    outcome = d2_ros("evaluate", "pairs", SEQUENCE, "--write", file, "--gap", 5, "--every", 2)
    assert outcome.code == 0, outcome.err
    assert "2 pairs" in outcome.out
    arguments = ["--out", tmp_path / "out", "--json", told, *ONE_THREAD]
    outcome = d2_ros("evaluate", "pairs", file, *arguments)
    assert outcome.code == 0, outcome.err
    figures = json.loads(told.read_text())
    for method in METHODS[:5]:
        areas = [figures[f"{method}.auc_{limit}deg"] for limit in (5, 10, 20)]
        assert areas == sorted(areas)
    assert figures["d2.pairs"] == 2
    assert figures["d2.median_epipolar_px"] < figures["d2_detected.median_epipolar_px"]


def test_what_is_wrong_is_named_with_exit_code_2(tmp_path, d2_ros, scenes):
    file = tmp_path / "pairs.txt"
    file.write_text("a.png b.png\n")
    out = ["--out", tmp_path / "out"]
    for arguments, words in (
        (["homographies", tmp_path, *out], "holds no scenes"),
        (["homographies", tmp_path / "none", *out], "holds no scenes"),
        (["pairs", file, *out], "a line of 2 words"),
        (["pairs", tmp_path / "none.txt", *out], "none.txt cannot be read"),
        (["pairs", file], "needs --out"),
        (["sequence", tmp_path / "none", *out], "does not exist"),
        (["sequence", SEQUENCE, "--out", file / "x"], "cannot write"),
        (["sequence", SEQUENCE, *out, "-p", "a:=1"], "unknown parameter a"),
        (["sequence", SEQUENCE, *out, "--gap", 0], "--gap"),
        (["sequence", scenes / "astronaut", *out, "--ablation"], "needs exact ground truth"),
    ):
        outcome = d2_ros("evaluate", *arguments)
        assert outcome.code == 2, arguments
        assert words in outcome.err, outcome.err
