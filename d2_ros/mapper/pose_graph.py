"""Keyframes put right by loops (GTSAM): a similarity of each, for scales drift as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise

import gtsam
import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from d2_ros.mapper.geometry import inverse

_TURN = 2e-3  # rad
_SHARE = 0.02  # of the step
_SCALE = 0.02
"""Standard deviations of a step from one keyframe to the next, of place and scale as a share; more
than was seen (docs/mappers/d2_mapper.md), so that a right loop is within."""

_LEAST = 1e-3  # of the mean step: how exact the shortest step is
_FIXED = 1e-6
_JOINT = (0.3, 3.0, 1.0)
"""The same of a joint of two segments, which no measurement tells: rad, mean steps, share."""

_PLAUSIBLE = float(chi2.ppf(0.999, 7))
"""Squared Mahalanobis distance of a loop from where the keyframes have it, at most."""


@dataclass(frozen=True)
class Loop:
    """Where a camera is relative to one of long ago.

    Attributes
    ----------
    then, now
        Stamps of the keyframes, ns.
    pose
        ``(4, 4)`` T_then_now, in the units that the map had then.
    scale
        Units of then per unit of now.
    sigmas
        ``(7,)`` standard deviations: turn (rad), place (units of then), scale (share).
    """

    then: int
    now: int
    pose: NDArray[np.float64]
    scale: float
    sigmas: NDArray[np.float64]


@dataclass(frozen=True)
class Correction:
    """From the world that never jumps (``odom``) to the one that loops have put right (``map``).

    Attributes
    ----------
    stamps
        ``(K,)`` int64 keyframes, ascending. What is later moves with the last one.
    turns, shifts, scales
        ``(K, 3, 3)``, ``(K, 3)``, ``(K,)``: a point p goes to ``scale * turn @ p + shift``.
    """

    stamps: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    turns: NDArray[np.float64] = field(default_factory=lambda: np.eye(3)[None])
    shifts: NDArray[np.float64] = field(default_factory=lambda: np.zeros((1, 3)))
    scales: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))

    def at(
        self, stamps: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return turns, shifts and scales of ``(N,)`` keyframes."""
        rows = np.searchsorted(self.stamps, stamps, side="right") - 1
        rows = np.clip(rows, 0, len(self.stamps) - 1)
        return self.turns[rows], self.shifts[rows], self.scales[rows]

    def poses(self, stamps: NDArray[np.int64], poses: NDArray[np.float64]) -> NDArray[np.float64]:
        """``(N, 4, 4)`` T_map_camera of T_odom_camera."""
        result = poses.copy()
        result[:, :3, :3] = self.at(stamps)[0] @ poses[:, :3, :3]
        result[:, :3, 3] = self.points(stamps, poses[:, :3, 3])
        return result

    def points(self, stamps: NDArray[np.int64], points: NDArray[np.float64]) -> NDArray[np.float64]:
        """``(N, 3)`` places in map of places in odom, each moved with a keyframe."""
        turns, shifts, scales = self.at(stamps)
        return np.asarray(scales[:, None] * np.einsum("nij,nj->ni", turns, points) + shifts)

    def rigid(self, stamp: int, pose: NDArray[np.float64]) -> NDArray[np.float64]:
        """``(4, 4)`` T_map_odom that brings the pose of a keyframe where it belongs.

        It says nothing of the scale, which a rigid motion cannot.
        """
        there = self.poses(np.array([stamp], np.int64), pose[None])[0]
        return np.asarray(there @ inverse(pose))


class PoseGraph:
    """The loops that have been told, as far as drift explains them.

    Attributes
    ----------
    loops
        Those that count.
    refused
        How many do not.
    correction
        What they come to.
    """

    def __init__(self) -> None:
        self.loops: list[Loop] = []
        self.refused = 0
        self.correction = Correction()

    def add(
        self,
        loop: Loop,
        keyframes: Mapping[int, NDArray[np.float64]],
        joints: Set[int],
        metric: bool,
    ) -> bool:
        """Let a loop count if drift explains it; return whether it does.

        It is compared with what keyframes and earlier loops say: the cost of believing it is its
        squared Mahalanobis distance from there. A false loop would bend the way more than the
        steps from keyframe to keyframe can be wrong.

        Parameters
        ----------
        loop
            Between two of `keyframes`.
        keyframes
            Stamp -> ``(4, 4)`` T_odom_camera, ascending.
        joints
            Stamps of keyframes with which a new segment begins.
        metric
            Whether the map is in metres: scales stay 1.
        """
        known = self._between_known(keyframes)
        if not {loop.then, loop.now} <= keyframes.keys():
            self.refused += 1
            return False
        before, _ = _solve(keyframes, known, joints, metric)
        after, correction = _solve(keyframes, [*known, loop], joints, metric)
        if 2 * (after - before) > _PLAUSIBLE:
            self.refused += 1
            return False
        self.loops, self.correction = [*known, loop], correction
        return True

    def corrected(
        self, keyframes: Mapping[int, NDArray[np.float64]], joints: Set[int], metric: bool
    ) -> Correction:
        """What the loops come to with keyframes that have moved since, as by a whole adjustment."""
        known = self._between_known(keyframes)
        return _solve(keyframes, known, joints, metric)[1] if known else Correction()

    def _between_known(self, keyframes: Mapping[int, NDArray[np.float64]]) -> list[Loop]:
        return [loop for loop in self.loops if {loop.then, loop.now} <= keyframes.keys()]


def _solve(
    keyframes: Mapping[int, NDArray[np.float64]],
    loops: Sequence[Loop],
    joints: Set[int],
    metric: bool,
) -> tuple[float, Correction]:
    """Cost, and the correction of every keyframe."""
    stamps = list(keyframes)
    number = {stamp: row for row, stamp in enumerate(stamps)}
    poses = [keyframes[stamp] for stamp in stamps]
    steps = [inverse(a) @ b for a, b in pairwise(poses)]
    lengths = np.array([np.linalg.norm(step[:3, 3]) for step in steps])
    mean = float(lengths.mean()) or 1.0
    graph, values = gtsam.NonlinearFactorGraph(), gtsam.Values()
    for row, pose in enumerate(poses):
        values.insert(row, gtsam.Similarity3(pose[:3, :3], pose[:3, 3], 1.0))
    fixed = gtsam.noiseModel.Isotropic.Sigma(7, _FIXED)
    graph.add(gtsam.PriorFactorSimilarity3(0, values.atSimilarity3(0), fixed))
    for row, (step, length) in enumerate(zip(steps, lengths.tolist(), strict=True)):
        turn, shift, scale = _TURN, _SHARE * length + _LEAST * mean, _SCALE
        if stamps[row + 1] in joints:
            turn, shift, scale = _JOINT[0], _JOINT[1] * mean, _JOINT[2]
        sigmas = np.array([turn] * 3 + [shift] * 3 + [_FIXED if metric else scale])
        graph.add(_between(row, row + 1, step, 1.0, sigmas))
    for loop in loops:
        sigmas = loop.sigmas.copy()
        if metric:
            sigmas[6] = _FIXED
        scale = 1.0 if metric else loop.scale
        graph.add(_between(number[loop.then], number[loop.now], loop.pose, scale, sigmas))
    if loops:
        params = gtsam.LevenbergMarquardtParams()
        params.setMaxIterations(50)
        values = gtsam.LevenbergMarquardtOptimizer(graph, values, params).optimize()
    return graph.error(values), _correction(stamps, poses, values)


def _between(
    first: int, second: int, pose: NDArray[np.float64], scale: float, sigmas: NDArray[np.float64]
) -> gtsam.BetweenFactorSimilarity3:
    # GTSAM's similarity scales after the shift.
    measured = gtsam.Similarity3(pose[:3, :3], pose[:3, 3] / scale, scale)
    noise = gtsam.noiseModel.Diagonal.Sigmas(sigmas)
    return gtsam.BetweenFactorSimilarity3(first, second, measured, noise)


def _correction(
    stamps: Sequence[int], poses: Sequence[NDArray[np.float64]], values: gtsam.Values
) -> Correction:
    found = [values.atSimilarity3(row) for row in range(len(poses))]
    scales = np.array([each.scale() for each in found])
    odom = np.stack(poses)
    turns = np.stack([each.rotation().matrix() for each in found]) @ odom[:, :3, :3].swapaxes(1, 2)
    places = scales[:, None] * np.stack([each.translation() for each in found])
    shifts = places - scales[:, None] * np.einsum("nij,nj->ni", turns, odom[:, :3, 3])
    return Correction(np.array(stamps, np.int64), turns, shifts, scales)
