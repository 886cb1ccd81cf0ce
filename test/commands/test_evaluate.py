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
        for match_set in ("", "verified_", "published_", "guided_"):
            right = [figures[f"{method}.{match_set}correct_{limit}px"] for limit in (1, 3)]
            assert 0 <= right[0] <= right[1] <= figures[f"{method}.{match_set}matches"]
        assert figures[f"{method}.verified_mma_3px"] > figures[f"{method}.mma_3px"]
    assert figures["d2.mma_1px"] > 3 * figures["d2_published.mma_1px"]
    # Three stages of the same raw matches: none is added, none is left out.
    raw = {figures[f"{method}.matches"] for method in METHODS[:3]}
    assert len(raw) == 1
    for heading in ("raw 1 px", "verified 1 px", "published 1 px", "guided 1 px"):
        assert heading in outcome.out
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


def test_a_homography_and_its_negative_are_judged_alike(tmp_path, d2_ros, scenes):
    told = []
    for sign in (1, -1):
        warp = sign * np.loadtxt(scenes / "astronaut" / "H_1_2")
        folder = tmp_path / str(sign) / "astronaut"
        folder.mkdir(parents=True)
        for name in ("1.png", "2.png"):
            (folder / name).write_bytes((scenes / "astronaut" / name).read_bytes())
        np.savetxt(folder / "H_1_2", warp)
        file = tmp_path / f"{sign}.json"
        arguments = ["--out", tmp_path / "out", "--json", file, *ONE_THREAD]
        assert d2_ros("evaluate", "homographies", folder.parent, *arguments).code == 0
        told.append(json.loads(file.read_text()))
    for figures in told:
        del figures["source"]
        assert figures["sift.mma_3px"] > 0.4
    assert told[0] == told[1]


def test_pairs_with_a_missing_image_are_refused_before_any_work(tmp_path, d2_ros):
    file = tmp_path / "pairs.txt"
    outcome = d2_ros("evaluate", "pairs", SEQUENCE, "--write", file, "--gap", 5, "--every", 2)
    last = file.read_text().split("\n")[1].split()[1]
    (tmp_path / last).unlink()
    outcome = d2_ros("evaluate", "pairs", file, "--out", tmp_path / "out", *ONE_THREAD)
    assert outcome.code == 2
    assert f"1 of the 4 images of {file} are missing, the first of them {tmp_path / last}" in (
        outcome.err
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["pairs", "homographies"])
def test_a_damaged_image_keeps_the_results_before_it(tmp_path, d2_ros, scenes, verb):
    if verb == "pairs":
        data = tmp_path / "pairs.txt"
        d2_ros("evaluate", "pairs", SEQUENCE, "--write", data, "--gap", 5, "--every", 2)
        damaged = tmp_path / data.read_text().split("\n")[1].split()[1]
    else:
        data, damaged = scenes, scenes / "astronaut" / "3.png"
        np.savetxt(scenes / "astronaut" / "H_1_3", np.eye(3))
    damaged.write_bytes(b"no picture")
    told = tmp_path / "t.json"
    arguments = ["--out", tmp_path / "out", "--json", told, *ONE_THREAD]
    outcome = d2_ros("evaluate", verb, data, *arguments)
    assert outcome.code == 2
    assert damaged.name in outcome.err
    assert json.loads(told.read_text())["sift.pairs"] == 1
    assert (tmp_path / "out" / "report.html").exists()


def folder_with_truth(folder, shift_s):
    """A TUM folder of eight frames at 1 to 1.7 s, with poses from `shift_s` on."""
    (folder / "rgb").mkdir(parents=True)
    for number in range(8):
        cv2.imwrite(str(folder / "rgb" / f"{number}.png"), np.full((120, 160), 99, np.uint8))
    rows = [f"{1 + number / 10:.1f} rgb/{number}.png" for number in range(8)]
    (folder / "rgb.txt").write_text("\n".join(rows))
    poses = [f"{shift_s + number / 10:.1f} {number} 0 0 0 0 0 1" for number in range(8)]
    (folder / "groundtruth.txt").write_text("\n".join(poses))
    return folder


@pytest.mark.parametrize(
    ("given", "cut"),
    [("sequence", ()), ("sequence", ("--start", "2")), ("pairs", ()), ("bag", ())],
)
def test_ground_truth_of_another_clock_is_named_with_both_ranges(tmp_path, d2_ros, given, cut):
    source = folder_with_truth(tmp_path / "tum", shift_s=1_700_000_000)
    if given == "bag":
        write_bag_of_two_clocks(source, tmp_path / "both.mcap")
        source = tmp_path / "both.mcap"
    verb, *rest = {
        "pairs": ("pairs", "--write", tmp_path / "pairs.txt"),
    }.get(given, ("sequence", "--out", tmp_path / "out", *cut))
    outcome = d2_ros("evaluate", verb, source, *rest)
    assert outcome.code == 2
    first = "1.200" if cut else "1.000"
    assert (
        f"no frame of {source} has a ground-truth pose: its images are from {first} to 1.700 s, "
        "its poses from 1700000000.000 to 1700000000.700 s"
    ) in outcome.err
    assert not (tmp_path / "out").exists()


def write_bag_of_two_clocks(folder, path):
    from d2_ros.sources import messages, open_source
    from d2_ros.sources.bags import POSE_TOPIC
    from d2_ros.sources.writer import BagWriter

    with BagWriter(path) as bag:
        for number, frame in enumerate(open_source(folder)):
            bag.write("/camera/image_raw", messages.image(frame.stamp, "camera", frame.image))
            stamp = 1_700_000_000 * 10**9 + number * 10**8
            bag.write(POSE_TOPIC, messages.pose(stamp, "world", np.eye(4)))


def test_a_part_of_a_sequence_is_judged_as_that_part(tmp_path, d2_ros):
    told = tmp_path / "s.json"
    arguments = ["--out", tmp_path / "out", "--json", told, "--gap", 2, *ONE_THREAD]
    outcome = d2_ros("evaluate", "sequence", SEQUENCE, *arguments, "--start", 3, "--frames", 4)
    assert outcome.code == 0, outcome.err
    figures = json.loads(told.read_text())
    assert (figures["start"], figures["frames"], figures["sift.pairs"]) == (3, 4, 2)
    assert figures["median_error_px"] < 1  # judged by the truth of its own frames
    for cut, words in (
        (["--start", 8], "has no frame after the first 8"),
        (["--frames", 0], "--frames"),
        (["--start", -1], "--start"),
    ):
        outcome = d2_ros("evaluate", "sequence", SEQUENCE, *arguments, *cut)
        assert outcome.code == 2
        assert words in outcome.err


def test_a_sequence_that_ends_in_damage_is_told_up_to_there(tmp_path, d2_ros):
    from d2_ros.sources import open_source

    folder = tmp_path / "images"
    folder.mkdir()
    for number, frame in enumerate(open_source(SEQUENCE)):
        cv2.imwrite(str(folder / f"{number}.png"), frame.image)
    damaged = folder / "6.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    told = tmp_path / "s.json"
    arguments = ["--out", tmp_path / "out", "--json", told, *ONE_THREAD]
    outcome = d2_ros("evaluate", "sequence", folder, *arguments)
    assert outcome.code == 2
    assert "6.png" in outcome.err
    figures = json.loads(told.read_text())
    assert figures["frames"] == 6
    assert figures["d2.mean_track_length"] > 2
    assert (tmp_path / "out" / "report.html").exists()


def test_tables_in_a_file_cut_no_name_and_no_figure(tmp_path, capsys):
    from d2_ros.evaluation.tables import show

    names = [f"a_method_with_a_name_of_{number}_which_is_long" for number in range(3)]
    columns = tuple((f"f{n}", f"a heading of many words {n}", "{:.3f}") for n in range(30))
    figures = {name: {key: 123456.789 for key, _, _ in columns} for name in names}
    show(figures, {"Title": columns})
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert all(name in printed for name in names)
    assert all(heading in printed for _, heading, _ in columns)
    assert printed.count("123456.789") == 90


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
