"""Matches of pairs of frames with known relative pose, and the figures that sum them up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.config import MatchingConfig
from d2_ros.evaluation.geometry import epipolar_errors, estimate_pose, pose_auc, pose_errors
from d2_ros.evaluation.tracking import Figures
from d2_ros.matching.verification import verify

Points = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Matched raw pixels of the first and of the second image, ``(M, 2)`` each."""

AUC_DEG = (5, 10, 20)
"""Thresholds of the area under the pose-error curve, degrees."""

MIN_BASELINE = 0.005
"""Pairs closer than this have no epipolar geometry to judge by, m."""


@dataclass(frozen=True)
class PairResult:
    """One method on one pair.

    Attributes
    ----------
    matches
        Number of matches before verification.
    epipolar
        ``(I,)`` distance of the inlier matches from the true epipolar lines, px.
    rotation, translation
        Errors of the estimated pose, degrees; inf where none was found.
    pose
        ``(4, 4)`` estimated T_second_first, its translation of length 1; None where none was found.
    """

    matches: int
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
    """Verify the matches of a pair as the front-end does and judge what is left.

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
    first, second = points
    inlier = verify(second, first, cameras[1], cameras[0], matching.max_error, matching.seed).inlier
    near, far = first[inlier], second[inlier]
    pose = estimate_pose(near, far, cameras, matching.max_error)
    errors = (np.inf, np.inf) if pose is None else pose_errors(pose, T_second_first)
    off = epipolar_errors(near, far, cameras, T_second_first)
    return PairResult(len(first), off, *errors, pose)


def pair_figures(results: Iterable[PairResult]) -> Figures:
    """Sum up the pairs of one method.

    Returns
    -------
    pairs, matches and inlier_matches (mean per pair), median_, p90_epipolar_px and
    share_below_1px (over all inlier matches of all pairs), rotation_error_deg and
    translation_error_deg (median over pairs; a pair without a pose counts as 180 and 90
    degrees), auc_5deg, auc_10deg, auc_20deg.
    """
    results = list(results)
    if not results:
        return {}
    off = np.concatenate([result.epipolar for result in results])
    rotation = np.array([result.rotation for result in results])
    translation = np.array([result.translation for result in results])
    areas = pose_auc(np.maximum(rotation, translation), AUC_DEG)
    figures: Figures = {
        "pairs": len(results),
        "matches": float(np.mean([result.matches for result in results])),
        "inlier_matches": len(off) / len(results),
        "rotation_error_deg": float(np.median(np.minimum(rotation, 180))),
        "translation_error_deg": float(np.median(np.minimum(translation, 90))),
    }
    if len(off):
        figures["median_epipolar_px"] = float(np.median(off))
        figures["p90_epipolar_px"] = float(np.percentile(off, 90))
        figures["share_below_1px"] = float(np.mean(off < 1))
    areas_of = zip(AUC_DEG, areas, strict=True)
    return {**figures, **{f"auc_{degrees}deg": area for degrees, area in areas_of}}


def agreement_figures(results: Sequence[PairResult], others: Sequence[PairResult]) -> Figures:
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
