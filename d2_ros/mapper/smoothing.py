"""Keyframes moved so that they agree on what they see (GTSAM)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gtsam
import numpy as np
from gtsam.symbol_shorthand import L, X
from numpy.typing import NDArray

from d2_ros.mapper.observations import Table

_HELD = 1e-6
"""Standard deviation of a pose that is held, rad and units of the map."""

_LEAST_WEIGHT = 0.02
"""Robust weights below are outliers, and left out."""

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
    places: NDArray[np.float64],
    weights: NDArray[np.float64],
    chosen: NDArray[np.int64],
    anchors: Sequence[Anchor],
    kernel: float,
) -> NDArray[np.float64]:
    graph, values = gtsam.NonlinearFactorGraph(), gtsam.Values()
    order = gtsam.Ordering()
    _add(graph, values, order, table, places, weights, chosen, kernel)
    for number, pose in enumerate(poses):
        values.insert(X(number), gtsam.Pose3(pose))
        order.push_back(X(number))
    for anchor in anchors:
        sigmas = np.repeat([anchor.turn, anchor.shift], 3)
        noise = gtsam.noiseModel.Diagonal.Sigmas(sigmas)
        graph.add(gtsam.PriorFactorPose3(X(anchor.view), gtsam.Pose3(poses[anchor.view]), noise))
    params = gtsam.LevenbergMarquardtParams()
    params.setMaxIterations(_ROUNDS)
    params.setRelativeErrorTol(1e-3)
    params.setOrdering(order)
    import os
    if os.environ.get("VERB"): params.setVerbosityLM("SUMMARY")
    try:
        solved = gtsam.LevenbergMarquardtOptimizer(graph, values, params).optimize()
    except RuntimeError:  # a keyframe that nothing holds
        return poses
    result = np.stack([solved.atPose3(X(number)).matrix() for number in range(len(poses))])
    return result if np.isfinite(result).all() else poses


def _add(graph, values, order, table, places, weights, chosen, kernel):
    noise = gtsam.noiseModel.Robust.Create(
        gtsam.noiseModel.mEstimator.Cauchy(kernel), gtsam.noiseModel.Unit.Create(2)
    )
    seen = np.einsum("nij,nj->ni", table.roots, table.rays)
    fx, skew, fy = table.roots[:, 0, 0], table.roots[:, 0, 1], table.roots[:, 1, 1]
    counted = np.zeros(len(table.ids), bool)
    counted[chosen] = True
    rows = np.flatnonzero(counted[table.track] & (weights > _LEAST_WEIGHT))
    Factor, Camera = gtsam.GenericProjectionFactorCal3_S2, gtsam.Cal3_S2
    for place in chosen.tolist():
        values.insert(L(place), places[place])
        order.push_back(L(place))
    for row, track, view in zip(
        rows.tolist(), table.track[rows].tolist(), table.view[rows].tolist(), strict=True
    ):
        camera = Camera(fx[row], fy[row], skew[row], 0.0, 0.0)
        graph.add(Factor(seen[row], noise, X(view), L(track), camera))
