"""Pairs of frames of the synthetic sequence that are far apart, without the frames between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2_ros.config import MatchingConfig
from d2_ros.errors import D2RosError
from d2_ros.evaluation.geometry import relative
from d2_ros.evaluation.homographies import homography_figures
from d2_ros.evaluation.match_sets import MatchSets
from d2_ros.evaluation.pairs import PairResult, judge_matches, pair_figures
from d2_ros.evaluation.seen import Truth, judge_seen
from d2_ros.evaluation.tables import Column, Tables
from d2_ros.evaluation.tracking import Figures
from d2_ros.sources.synthetic import Synthetic

GAPS = (10, 20, 40, 60)
"""Frames from the first to the second of a pair."""


@dataclass(frozen=True)
class GapResult:
    """One method on one pair: errors at exact true places in every match set, and the pose.

    Attributes
    ----------
    errors
        Match set -> errors of matches at places seen in both frames, px.
    pose
        Of the verified matches.
    """

    errors: dict[str, NDArray[np.float64]]
    pose: PairResult


def possible_gaps(frames: int) -> tuple[int, ...]:
    """Those of :data:`GAPS` for which a sequence of so many frames has a pair.

    Raises
    ------
    D2RosError
        If there are none.
    """
    gaps = tuple(gap for gap in GAPS if gap < frames)
    if not gaps:
        raise D2RosError(
            f"a sequence of {frames} frames has no two that are {GAPS[0]} apart; "
            f"use frames={GAPS[0] + 1} or more"
        )
    return gaps


def gap_pairs(frames: int, gap: int, every: int) -> Iterator[tuple[int, int]]:
    """Frames (i, i + gap), i a multiple of `every`."""
    return ((first, first + gap) for first in range(0, frames - gap, every))


def truth_between(source: Synthetic, first: int, second: int) -> Truth:
    """Where places of one frame truly lie in another; hidden ones are not seen."""
    return lambda pixels: source.locate(first, pixels, second)


def judge_gap(
    found: MatchSets, source: Synthetic, pair: tuple[int, int], matching: MatchingConfig
) -> GapResult:
    """Judge a method's matches of a pair of frames by the exact places and the exact pose."""
    poses = source.poses()
    motion = relative(poses[pair[0]], poses[pair[1]])
    cameras = (source.camera, source.camera)
    pose = judge_matches(found.verified, cameras, motion, matching.max_error)
    return GapResult(judge_seen(found, truth_between(source, *pair)), pose)


def gap_figures(results: Sequence[GapResult]) -> Figures:
    """Sum up the pairs of one method and gap.

    Returns
    -------
    Those of :func:`d2_ros.evaluation.homographies.homography_figures`, of the distances from the
    exact places, and of the poses of the verified matches rotation_error_deg,
    translation_error_deg and auc_5deg, auc_10deg, auc_20deg.
    """
    poses = pair_figures([result.pose for result in results])
    angles = {name: value for name, value in poses.items() if name.endswith("deg")}
    return {**homography_figures([result.errors for result in results]), **angles}


def pose_tables(groups: dict[str, str]) -> Tables:
    """Areas and errors of the poses; arguments as of :func:`d2_ros.evaluation.seen.seen_tables`."""
    areas: list[Column] = [
        (f"{group}_auc_{degrees}deg", f"{heading} {degrees} deg", "{:.3f}")
        for group, heading in groups.items()
        for degrees in (5, 10, 20)
    ]
    errors: list[Column] = [
        (f"{group}_{name}_error_deg", f"{heading} {word}, deg", "{:.2f}")
        for group, heading in groups.items()
        for name, word in (("rotation", "rot."), ("translation", "transl."))
    ]
    return {
        "Area under the curve of pose errors, verified matches": areas,
        "Median pose error, verified matches": errors,
    }
