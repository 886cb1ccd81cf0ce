"""Keyframes moved so that they agree on what they see (GTSAM, smart projection factors).

A smart factor (Carlone et al. 2014) holds the observations of one landmark and eliminates its
place. GTSAM gives it one noise for all observations, the same in both directions. Here each has its
own 2 x 2 covariance nevertheless: the square root W of its information is upper triangular, as the
calibration matrix of a camera is, so ``W @ bearing`` is what a camera of focal lengths W00 and W11
and skew W01 sees. The rig of a factor has one such camera per observation, where its eye is on the
body, and its noise is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import gtsam
import numpy as np
from numpy.typing import NDArray

from d2_ros.mapper.inertial import ImuMotion
from d2_ros.mapper.observations import Table

_HELD = 1e-6
"""Standard deviation of a pose that is held, rad and units of the map."""

OUTLIER = 0.02
"""Observations whose robust weight is not above this are left out."""

_ROUNDS = 5


@dataclass(frozen=True)
class Anchor:
    """A prior on the place of one keyframe where it is.

    Attributes
    ----------
    view
        Its number.
    turn, shift
        Standard deviations of rotation (rad) and translation.
    """

    view: int
    turn: float = _HELD
    shift: float = _HELD


def smooth(
    table: Table,
    poses: NDArray[np.float64],
    weights: NDArray[np.float64],
    chosen: NDArray[np.int64],
    rig: NDArray[np.float64],
    anchors: Sequence[Anchor],
    motion: ImuMotion | None = None,
) -> NDArray[np.float64]:
    """Return poses that agree better with the observations.

    Parameters
    ----------
    table
        Observations of all views.
    poses
        ``(V, 4, 4)`` T_world_body to begin with.
    weights
        ``(N,)`` robust weights of the rows of `table`.
    chosen
        Tracks, indices in ``table.ids``, that count.
    rig
        ``(1 or 2, 4, 4)`` T_body_camera of the eyes.
    anchors
        Enough of them to fix the map's place, orientation and scale.
    motion
        What an IMU says of the views.
    """
    graph, values = gtsam.NonlinearFactorGraph(), gtsam.Values()
    for number, pose in enumerate(poses):
        values.insert(number, gtsam.Pose3(pose))
    for anchor in anchors:
        sigmas = np.repeat([anchor.turn, anchor.shift], 3)
        noise = gtsam.noiseModel.Diagonal.Sigmas(sigmas)
        prior = gtsam.PriorFactorPose3(anchor.view, values.atPose3(anchor.view), noise)
        graph.add(prior)
    _add_landmarks(graph, table, weights, chosen, rig)
    if motion is not None:
        motion.add_to(graph, values)
    params = gtsam.LevenbergMarquardtParams()
    params.setMaxIterations(_ROUNDS)
    params.setRelativeErrorTol(1e-3)
    try:
        solved = gtsam.LevenbergMarquardtOptimizer(graph, values, params).optimize()
    except RuntimeError:  # a keyframe that nothing holds
        return poses
    result = np.stack([solved.atPose3(number).matrix() for number in range(len(poses))])
    if not np.isfinite(result).all():
        return poses
    if motion is not None:
        motion.take(solved)
    return result


def _add_landmarks(
    graph: gtsam.NonlinearFactorGraph,
    table: Table,
    weights: NDArray[np.float64],
    chosen: NDArray[np.int64],
    rig: NDArray[np.float64],
) -> None:
    """Add a smart factor for each chosen track that keeps two observations."""
    unit, params = gtsam.noiseModel.Isotropic.Sigma(2, 1.0), gtsam.SmartProjectionParams()
    params.setDegeneracyMode(gtsam.DegeneracyMode.ZERO_ON_DEGENERACY)
    params.setRankTolerance(1e-6)
    mounts = [gtsam.Pose3(mount) for mount in rig]
    counts = np.zeros(len(table.ids), bool)
    counts[chosen] = True
    rows = np.flatnonzero((weights > OUTLIER) & counts[table.track])
    white = np.sqrt(weights[rows])[:, None, None] * table.roots[rows]
    seen = np.einsum("nij,nj->ni", white, table.rays[rows])
    lenses, eyes, views = white.tolist(), table.eye[rows].tolist(), table.view[rows].tolist()
    _, starts = np.unique(table.track[rows], return_index=True)
    for start, end in pairwise([*starts.tolist(), len(rows)]):
        if end - start < 2:
            continue
        cameras = gtsam.CameraSetPinholePoseCal3_S2()
        for row in range(start, end):
            (fx, skew), (_, fy) = lenses[row]
            lens = gtsam.Cal3_S2(fx, fy, skew, 0.0, 0.0)
            cameras.push_back(gtsam.PinholePoseCal3_S2(mounts[eyes[row]], lens))
        factor = gtsam.SmartProjectionRigFactorPinholePoseCal3_S2(unit, cameras, params)
        for row in range(start, end):
            factor.add(seen[row], views[row], row - start)
        graph.add(factor)
