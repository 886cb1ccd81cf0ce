"""Matches of pairs of frames with known relative pose, and the figures that sum them up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.config import MatchingConfig
from d2_ros.evaluation.geometry import epipolar_errors, pose_auc, pose_errors
from d2_ros.evaluation.match_sets import MATCH_SETS, MatchSets, prefixed, verified
from d2_ros.evaluation.peers import Points
from d2_ros.evaluation.tracking import Figures
from d2_ros.matching.pose import estimate_pose

AUC_DEG = (5, 10, 20)
"""Thresholds of the area under the pose-error curve, degrees."""

MIN_BASELINE = 0.005
"""Pairs closer than this have no epipolar geometry to judge by, m."""


@dataclass(frozen=True)
class PairResult:
    """One method on one pair.

    Attributes
    ----------
    epipolar
        ``(I,)`` distance of the matches from the true epipolar lines, px.
    rotation, translation
        Errors of the estimated pose, degrees; inf where none was found.
    pose
        ``(4, 4)`` estimated T_second_first, its translation of length 1; None where none was found.
    """

    epipolar: NDArray[np.float64]
    rotation: float
    translation: float
    pose: NDArray[np.float64] | None = None


def judge_pair(
    points: Points,
    cameras: tuple[Camera, Camera],
    T_second_first: NDArray[np.float64],
    matching: MatchingConfig,
) -> PairResult:
    """Judge what the front-end's own verification leaves of the matches of a pair.

    Parameters
    ----------
    points
        Matches.
    cameras
        Calibrations of the two images.
    T_second_first
        ``(4, 4)`` true relative pose.
    matching
        Threshold and seed of the verification.
    """
    kept = verified(points, cameras, matching)
    return judge_matches(kept, cameras, T_second_first, matching.max_error)


def judge_matches(
    points: Points,
    cameras: tuple[Camera, Camera],
    T_second_first: NDArray[np.float64],
    max_error: float,
) -> PairResult:
    """Judge matches as they are; `max_error` is that of the estimated pose's inliers, px."""
    pose = estimate_pose(*points, cameras, max_error)
    errors = (np.inf, np.inf) if pose is None else pose_errors(pose, T_second_first)
    return PairResult(epipolar_errors(*points, cameras, T_second_first), *errors, pose)


def judge_match_sets(
    found: MatchSets,
    cameras: tuple[Camera, Camera],
    T_second_first: NDArray[np.float64],
    matching: MatchingConfig,
) -> dict[str, PairResult]:
    """Judge a method's matches in every match set; arguments as in :func:`judge_pair`."""
    return {
        match_set: judge_matches(points, cameras, T_second_first, matching.max_error)
        for match_set, points in vars(found).items()
    }


def match_set_figures(results: Sequence[Mapping[str, PairResult]]) -> Figures:
    """Sum up the pairs of one method in every match set.

    Returns
    -------
    Those of :func:`pair_figures` for the verified matches and, as ``published_*``, for the
    published ones (``published_matches`` is their number); ``raw_*`` and ``guided_*``: matches,
    correct_1px and correct_3px (means per pair), share_below_1px and share_below_3px.
    """
    of = {match_set: [result[match_set] for result in results] for match_set in MATCH_SETS}
    figures = pair_figures(of["verified"])
    published = pair_figures(of["published"])
    published["matches"] = published.pop("inlier_matches")
    figures |= prefixed("published", published)
    for match_set in ("raw", "guided"):
        figures |= prefixed(match_set, _right(of[match_set]))
    return figures


def pair_figures(results: Sequence[PairResult]) -> Figures:
    """Sum up the pairs of one method, of verified matches.

    Returns
    -------
    pairs, inlier_matches, correct_1px and correct_3px (mean per pair), median_, p90_epipolar_px,
    share_below_1px and share_below_3px (over all matches of all pairs), rotation_error_deg and
    translation_error_deg (median over pairs; a pair without a pose counts as 180 and 90
    degrees), auc_5deg, auc_10deg, auc_20deg.
    """
    if not results:
        return {}
    off = np.concatenate([result.epipolar for result in results])
    rotation = np.array([result.rotation for result in results])
    translation = np.array([result.translation for result in results])
    areas = pose_auc(np.maximum(rotation, translation), AUC_DEG)
    right = _right(results)
    figures: Figures = {
        "pairs": len(results),
        "inlier_matches": right.pop("matches"),
        **right,
        "rotation_error_deg": float(np.median(np.minimum(rotation, 180))),
        "translation_error_deg": float(np.median(np.minimum(translation, 90))),
    }
    if len(off):
        figures["median_epipolar_px"] = float(np.median(off))
        figures["p90_epipolar_px"] = float(np.percentile(off, 90))
    areas_of = zip(AUC_DEG, areas, strict=True)
    return {**figures, **{f"auc_{degrees}deg": area for degrees, area in areas_of}}


def _right(results: Sequence[PairResult]) -> Figures:
    """Number of matches, and number and share of those near their true epipolar line."""
    off = np.concatenate([result.epipolar for result in results])
    figures: Figures = {"matches": len(off) / len(results)}
    for limit in (1, 3):
        figures[f"correct_{limit}px"] = int((off < limit).sum()) / len(results)
        if len(off):
            figures[f"share_below_{limit}px"] = float(np.mean(off < limit))
    return figures


def reference_pose_figures(results: Sequence[PairResult], others: Sequence[PairResult]) -> Figures:
    """How far a method's poses are from another's on the same pairs.

    Two methods that agree with each other and not with the truth have found its error.

    Returns
    -------
    rotation_from_klt_deg and translation_from_klt_deg (median over pairs; 180 and 90 degrees
    without a pose), auc_5deg_from_klt; named after the method that others are held against.
    """
    if not results or not others:
        return {}
    angles = np.array(
        [
            (180.0, 90.0)
            if one.pose is None or other.pose is None
            else pose_errors(one.pose, other.pose)
            for one, other in zip(results, others, strict=True)
        ]
    )
    return {
        "rotation_from_klt_deg": float(np.median(angles[:, 0])),
        "translation_from_klt_deg": float(np.median(angles[:, 1])),
        "auc_5deg_from_klt": pose_auc(angles.max(1), (5,))[0],
    }


def flatten(figures: Mapping[str, Figures]) -> Figures:
    """``{method: {figure: value}}`` -> ``{method.figure: value}``."""
    return {
        f"{method}.{name}": value
        for method, named in figures.items()
        for name, value in named.items()
    }
