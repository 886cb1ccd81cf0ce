"""Pose errors, areas and pair figures, where the answer is known beforehand."""

import os

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from d2_ros.camera import Camera
from d2_ros.config import MatchingConfig
from d2_ros.errors import D2RosError
from d2_ros.evaluation.geometry import (
    epipolar_errors,
    pose_auc,
    pose_errors,
    relative,
)
from d2_ros.evaluation.match_sets import MatchSets, select, verified
from d2_ros.evaluation.pairfile import check_images, load_views, read_pairs, write_pairs
from d2_ros.evaluation.pairs import (
    PairResult,
    flatten,
    judge_match_sets,
    judge_pair,
    match_set_figures,
    pair_figures,
    reference_pose_figures,
)
from d2_ros.matching.pose import estimate_pose
from d2_ros.sources.synthetic import open_synthetic

CAMERA = Camera(640, 480, [[400, 0, 320], [0, 410, 240], [0, 0, 1]], [-0.1, 0.02, 1e-3, 0.0])


def pose(rotation_deg, translation):
    result = np.eye(4)
    result[:3, :3] = Rotation.from_rotvec(np.radians(rotation_deg)).as_matrix()
    result[:3, 3] = translation
    return result


MOTION = pose([3.0, -5.0, 2.0], [0.4, 0.1, 0.15])


def views(count=200, seed=0):
    """Exact matches of two views of a cloud of points."""
    random = np.random.default_rng(seed)
    points = random.uniform([-2, -1.5, 4], [2, 1.5, 9], (count, 3))
    return CAMERA.project(points), CAMERA.project(points @ MOTION[:3, :3].T + MOTION[:3, 3])


def test_relative_pose_takes_points_of_the_first_to_the_second():
    first, second = pose([10, 20, 30], [1, 2, 3]), pose([-5, 0, 40], [2, 2, 1])
    point = np.array([0.3, -0.2, 4.0, 1.0])
    np.testing.assert_allclose(
        relative(first, second) @ point, np.linalg.inv(second) @ (first @ point), atol=1e-12
    )


def test_exact_matches_have_no_error():
    points = views()
    judged = judge_pair(points, (CAMERA, CAMERA), MOTION, MatchingConfig())
    assert len(judged.epipolar) == 200
    assert judged.epipolar.max() < 1e-6
    assert judged.rotation < 1e-3
    assert judged.translation < 1e-2


def test_epipolar_error_is_the_distance_from_the_line():
    """Sideways motion: the lines are the rows, so the error is the distance in v."""
    sideways = pose([0, 0, 0], [0.3, 0, 0])
    plain = Camera(640, 480, [[400, 0, 320], [0, 400, 240], [0, 0, 1]], [0, 0, 0, 0])
    first = np.array([[100.0, 50], [300, 200]])
    off = epipolar_errors(first, np.add(first, [[-9, 0.75], [-20, 0]]), (plain, plain), sideways)
    np.testing.assert_allclose(off, [0.75, 0], atol=1e-9)


def test_matches_without_a_bearing_are_wrong_and_do_not_disturb_the_pose():
    fisheye = Camera(640, 480, [[150, 0, 320], [0, 150, 240], [0, 0, 1]], [0] * 4, "equidistant")
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-1, 1, (100, 2)), np.ones(100)])
    points *= rng.uniform(2, 8, (100, 1))
    blind = rng.uniform([0, 0], [60, 60], (30, 2))
    first = np.concatenate([fisheye.project(points), blind])
    second = np.concatenate([fisheye.project(points @ MOTION[:3, :3].T + MOTION[:3, 3]), blind])
    off = epipolar_errors(first, second, (fisheye, fisheye), MOTION)
    assert (off[:100] < 1e-6).all()
    assert np.isinf(off[100:]).all()
    estimated = estimate_pose(first, second, (fisheye, fisheye), 1.0)
    assert max(pose_errors(estimated, MOTION)) < 0.01
    assert estimate_pose(blind, blind, (fisheye, fisheye), 1.0) is None


def test_pose_errors_are_the_angles():
    turned = MOTION @ pose([0.7, 0, 0], [0, 0, 0])
    rotation, translation = pose_errors(turned, MOTION)
    assert rotation == pytest.approx(0.7, abs=1e-9)
    assert translation == pytest.approx(0, abs=1e-6)
    aside = pose([0, 0, 0], [np.cos(np.radians(3)), np.sin(np.radians(3)), 0])
    ahead = pose([170, 0, 0], [-1, 0, 0])  # the sign of the translation is not seen
    rotation, translation = pose_errors(aside, ahead)
    assert rotation == pytest.approx(170)
    assert translation == pytest.approx(3)


def test_no_pose_from_too_few_or_degenerate_matches():
    first, second = views()
    assert estimate_pose(first[:7], second[:7], (CAMERA, CAMERA), 1.0) is None
    same = np.tile(first[:1], (20, 1))
    found = estimate_pose(same, same, (CAMERA, CAMERA), 1.0)
    assert found is None or np.isfinite(found).all()


def test_area_under_the_curve_by_hand():
    # Half of the pairs at 2, the other half failed: the curve rises to 0.5 at 2 and stays.
    assert pose_auc([2.0, np.inf], [4]) == [pytest.approx((2 * 0.25 + 2 * 0.5) / 4)]
    assert pose_auc([0.0, 0.0], [5, 10]) == [pytest.approx(1), pytest.approx(1)]
    assert pose_auc([np.inf] * 3, [5]) == [0]
    assert pose_auc([], [5]) == [0]
    assert pose_auc([1, 3, 8], [10]) == [pytest.approx((1 / 6 + 2 * 0.5 + 5 * 5 / 6 + 2) / 10)]


def test_figures_pool_matches_and_count_failures():
    results = [
        PairResult(np.array([0.2, 0.4, 0.6]), 1.0, 2.0),
        PairResult(np.array([2.0]), 3.0, 1.0),
        PairResult(np.empty(0), np.inf, np.inf),
    ]
    figures = pair_figures(results)
    assert figures["inlier_matches"] == pytest.approx(4 / 3)
    assert figures["correct_1px"] == 1
    assert figures["correct_3px"] == pytest.approx(4 / 3)
    assert figures["share_below_3px"] == 1
    assert figures["median_epipolar_px"] == pytest.approx(0.5)
    assert figures["share_below_1px"] == 0.75
    assert figures["rotation_error_deg"] == 3
    assert figures["translation_error_deg"] == 2
    assert figures["auc_10deg"] == pytest.approx(pose_auc([2, 3, np.inf], [10])[0])
    assert flatten({"a": figures})["a.auc_5deg"] == figures["auc_5deg"]
    alone = pair_figures(results[2:])
    assert (alone["rotation_error_deg"], alone["translation_error_deg"]) == (180, 90)
    assert "median_epipolar_px" not in alone
    assert pair_figures([]) == {}


def test_every_match_set_is_judged_by_what_is_in_it():
    """Of 200 exact matches 60 are wrong: raw ones all count, verified ones are the exact ones."""
    first, second = views()
    second[:60] = np.random.default_rng(1).uniform([0, 0], [640, 480], (60, 2))
    points, cameras = (first, second), (CAMERA, CAMERA)
    kept = verified(points, cameras, MatchingConfig())
    some = np.arange(200) >= 190
    found = MatchSets(points, kept, select(points, some), select(points, ~some & (first[:, 0] < 0)))
    judged = judge_match_sets(found, cameras, MOTION, MatchingConfig())
    figures = match_set_figures([judged])
    assert figures["raw_matches"] == 200
    assert 140 <= figures["raw_correct_1px"] <= 145  # a wrong one may lie near its line
    assert figures["raw_share_below_1px"] == pytest.approx(figures["raw_correct_1px"] / 200)
    assert 140 <= figures["correct_1px"] <= figures["inlier_matches"] <= 145
    assert figures["share_below_1px"] > 0.97 > figures["raw_share_below_1px"]
    assert figures["auc_5deg"] > 0.9
    assert (figures["published_matches"], figures["published_correct_1px"]) == (10, 10)
    assert figures["published_auc_5deg"] > 0.9
    assert (figures["guided_matches"], figures["guided_correct_3px"]) == (0, 0)
    assert "raw_auc_5deg" not in figures  # a pose from raw matches is one of verified ones


def test_written_pairs_are_read_back(tmp_path):
    source = open_synthetic("size=160x120,frames=8")
    path = tmp_path / "pairs.txt"
    assert write_pairs(source, gap=3, every=2, path=path) == 3  # 0-3, 2-5, 4-7
    pairs = read_pairs(path, tmp_path)
    poses = source.poses()
    for number, pair in zip((0, 2, 4), pairs, strict=True):
        truth = relative(poses[number], poses[number + 3])
        np.testing.assert_allclose(pair.T_second_first, truth, atol=1e-9)
    found = load_views(pairs[1])
    # Without the distortion, an exact match projects by the intrinsics alone.
    pixels = np.array([[40.0, 30], [80, 60], [120, 90]])
    raw = source.camera.project(found.cameras[0].bearings(pixels))
    points, planes = source.surface(2, raw)
    there, _ = source.project(points, planes, 5)
    flat = found.cameras[1].project(source.camera.bearings(there))
    off = epipolar_errors(pixels, flat, found.cameras, found.T_second_first)
    assert off.max() < 1e-6
    assert found.images[0].shape[:2] == (120, 160)


def test_names_that_are_not_utf8_are_written_and_read_back(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.txt")
    assert write_pairs(open_synthetic("size=160x120,frames=2"), gap=1, every=1, path=path) == 1
    assert load_views(read_pairs(path, tmp_path)[0]).images[0].shape[:2] == (120, 160)


def test_quarter_turns_turn_the_geometry_along(tmp_path):
    import cv2

    image = np.random.default_rng(0).integers(0, 255, (90, 120), np.uint8)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), image)
    k = "100 0 61 0 102 44 0 0 1"
    text = " ".join(f"{value:.12g}" for value in MOTION.ravel())
    (tmp_path / "upright.txt").write_text(f"a.png b.png 0 0 {k} {k} {text}\n")
    (tmp_path / "turned.txt").write_text(f"a.png b.png 1 3 {k} {k} {text}\n")
    upright = load_views(read_pairs(tmp_path / "upright.txt", tmp_path)[0])
    turned = load_views(read_pairs(tmp_path / "turned.txt", tmp_path)[0])
    assert turned.images[0].shape == (120, 90)
    np.testing.assert_array_equal(turned.images[1], np.rot90(image, 3))
    points = np.random.default_rng(1).uniform([-1, -1, 3], [1, 1, 6], (20, 3))
    second = points @ MOTION[:3, :3].T + MOTION[:3, 3]
    first_px, second_px = upright.cameras[0].project(points), upright.cameras[1].project(second)
    u, v = first_px.T
    first_turned = np.column_stack([v, 119 - u])  # counter-clockwise: the right edge goes up
    u, v = second_px.T
    second_turned = np.column_stack([89 - v, u])
    off = epipolar_errors(first_turned, second_turned, turned.cameras, turned.T_second_first)
    assert off.max() < 1e-9


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a.png b.png 0 0 1 2 3\n", "a line of 7 words"),
        ("a b " + "x " * 36 + "\n", "malformed"),
        ("a b " + "nan " * 36 + "\n", "NaN"),
        ("", "is empty"),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, words):
    path = tmp_path / "pairs.txt"
    path.write_text(content)
    with pytest.raises(D2RosError, match=words):
        read_pairs(path, tmp_path)


LINE = ["a.png", "b.png", "0", "0", *["100", "0", "61", "0", "102", "44", "0", "0", "1"] * 2]


def test_the_factor_of_a_camera_matrix_says_nothing(tmp_path):
    path = tmp_path / "pairs.txt"
    pose = [f"{value:.12g}" for value in MOTION.ravel()]
    scaled = ["-200", "0", "-122", "0", "-204", "-88", "0", "0", "-2"]
    path.write_text(" ".join([*LINE[:13], *scaled, *pose]))
    matrices = read_pairs(path, tmp_path)[0].matrices
    np.testing.assert_allclose(matrices[1], matrices[0])


@pytest.mark.parametrize("change", [{0: "-1"}, {0: "2"}, {5: "0"}])
def test_a_pose_that_is_no_rotation_is_refused(tmp_path, change):
    path = tmp_path / "pairs.txt"
    pose = [change.get(index, f"{value:g}") for index, value in enumerate(np.eye(4).ravel())]
    path.write_text(" ".join([*LINE, *pose]))
    with pytest.raises(D2RosError, match=r"pair a\.png b\.png: T_0to1 holds no rotation"):
        read_pairs(path, tmp_path)


def test_missing_images_are_counted_and_the_first_is_named(tmp_path):
    path = tmp_path / "pairs.txt"
    pose = [f"{value:g}" for value in np.eye(4).ravel()]
    lines = [[first, second, *LINE[2:], *pose] for first, second in ("ab", "ac", "cd")]
    path.write_text("\n".join(map(" ".join, lines)))
    for name in "ab":
        (tmp_path / name).touch()
    with pytest.raises(D2RosError, match=r"2 of the 4 images .* the first of them .*c; give"):
        check_images(path, read_pairs(path, tmp_path))
    for name in "cd":
        (tmp_path / name).touch()
    check_images(path, read_pairs(path, tmp_path))


@pytest.mark.parametrize("sign", [-1, 1])
def test_errors_do_not_depend_on_the_sign_of_a_translation(sign):
    """An essential matrix has no sign: neither have distances from its lines."""
    first, second = views(20)
    second += np.array([1.0, -2.0])
    turned = MOTION.copy()
    turned[:3, 3] *= sign
    cameras = (CAMERA, CAMERA)
    np.testing.assert_allclose(
        epipolar_errors(first, second, cameras, turned),
        epipolar_errors(first, second, cameras, MOTION),
    )


def test_a_sequence_too_short_for_a_pair_is_refused(tmp_path):
    source = open_synthetic("size=160x120,frames=8")
    with pytest.raises(D2RosError, match="no pair 30 frames apart"):
        write_pairs(source, gap=30, every=1, path=tmp_path / "p.txt")


def turned(degrees, along):
    """A pose that turns about the vertical and moves along an axis of the ground."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    pose[:3, 3] = np.sin(np.radians(along)), 0.0, np.cos(np.radians(along))
    return pose


def test_reference_pose_figures_are_between_poses_whatever_the_truth_says():
    def result(pose):
        return PairResult(np.array([9.0]), 90.0, 90.0, pose)

    ours = [result(turned(10.0, 0.0)), result(turned(20.0, 0.0)), result(turned(30.0, 0.0))]
    theirs = [result(turned(10.5, 1.0)), result(turned(20.5, 1.0)), result(turned(30.5, 1.0))]
    figures = reference_pose_figures(ours, theirs)
    assert figures["rotation_from_klt_deg"] == pytest.approx(0.5)
    assert figures["translation_from_klt_deg"] == pytest.approx(1.0)
    # All three are off by 1 degree: trapezoids through (0, 0), (1, 1/3), (1, 2/3), (1, 1), (5, 1).
    assert figures["auc_5deg_from_klt"] == pytest.approx((1 / 6 + 4) / 5)
    assert reference_pose_figures(ours, ours)["auc_5deg_from_klt"] == pytest.approx(1.0, abs=1e-9)
    none = reference_pose_figures(ours, [result(None)] * 3)
    assert none["rotation_from_klt_deg"] == 180
    assert none["auc_5deg_from_klt"] == 0
    assert reference_pose_figures([], []) == {}
