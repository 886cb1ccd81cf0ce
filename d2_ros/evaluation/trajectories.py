"""Trajectories judged by the true one (evo), and drawn beside it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from evo.core import metrics
from evo.core.geometry import GeometryException
from evo.core.trajectory import PoseTrajectory3D
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from d2_ros.errors import D2RosError
from d2_ros.evaluation.plots import legend_above, png
from d2_ros.evaluation.report import Figures
from d2_ros.sources.trajectories import interpolate

STEP = 5
"""Frames over which the relative error is taken."""


@dataclass(frozen=True)
class Path3D:
    """Poses in time.

    Attributes
    ----------
    stamps
        ``(N,)`` int64 ns, ascending.
    poses
        ``(N, 4, 4)`` T_world_camera; NaN where not known.
    """

    stamps: NDArray[np.int64]
    poses: NDArray[np.float64]

    def at(self, stamps: NDArray[np.int64]) -> NDArray[np.float64]:
        """Poses at other times; NaN where there are none around."""
        return interpolate(self.stamps, self.poses, stamps)


@dataclass(frozen=True)
class Judged:
    """A trajectory against the truth.

    Attributes
    ----------
    figures
        ``absolute_error_m`` and ``relative_error_m``, ``relative_error_deg`` (root mean square,
        after alignment; relative over :data:`STEP` frames), ``frames_judged``, ``scale``, by which
        the trajectory is too small.
    true, estimated
        ``(N, 3)`` places, aligned.
    """

    figures: Figures
    true: NDArray[np.float64]
    estimated: NDArray[np.float64]


def judge(estimated: Path3D, truth: Path3D, metric: bool = False) -> Judged:
    """Align a trajectory with the truth (Umeyama) and judge it.

    Parameters
    ----------
    estimated, truth
        The trajectories.
    metric
        It is in metres: SE(3). Else its scale is not known: Sim(3).

    Raises
    ------
    D2RosError
        If fewer than three of its poses have a true one, or these do not move.
    """
    true = truth.at(estimated.stamps)
    known = np.asarray(np.isfinite(true).all(axis=(1, 2)))
    if np.count_nonzero(known) < 3:
        raise D2RosError(
            f"{np.count_nonzero(known)} of {len(known)} poses have a true one beside them; three "
            "are needed: give a ground truth by the images' clock"
        )
    stamps = estimated.stamps[known]
    reference = _as_evo(stamps, true[known])
    aligned = copy.deepcopy(_as_evo(stamps, estimated.poses[known]))
    try:
        _, _, scale = copy.deepcopy(aligned).align(reference, correct_scale=True)
        aligned.align(reference, correct_scale=not metric)
    except GeometryException:
        raise D2RosError("a camera that does not move has no scale to align by") from None
    figures: dict[str, float | int | str] = {
        "absolute_error_m": _rms(
            metrics.APE(metrics.PoseRelation.translation_part), reference, aligned
        ),
        "frames_judged": len(stamps),
        "scale": float(scale),
    }
    for name, relation in (
        ("relative_error_m", metrics.PoseRelation.translation_part),
        ("relative_error_deg", metrics.PoseRelation.rotation_angle_deg),
    ):
        if len(stamps) > STEP:
            relative = metrics.RPE(relation, STEP, metrics.Unit.frames, all_pairs=True)
            figures[name] = _rms(relative, reference, aligned)
    return Judged(figures, reference.positions_xyz, aligned.positions_xyz)


def draw(paths: Mapping[str, NDArray[np.float64]], unit: str) -> bytes:
    """Draw ``(N, 3)`` places from the direction in which they spread least, as a PNG.

    Parameters
    ----------
    paths
        Name -> places, in one frame.
    unit
        Of the axes.
    """
    everything = np.concatenate([np.empty((0, 3)), *paths.values()])
    middle = everything.mean(axis=0) if len(everything) else np.zeros(3)
    axes_of = (
        np.linalg.svd(everything - middle, full_matrices=False)[2]
        if len(everything) > 2
        else np.eye(3)
    )

    def on(axes: Axes) -> None:
        for name, places in paths.items():
            flat = (places - middle) @ axes_of[:2].T
            colour: dict[str, Any] = (
                {"color": "black", "linewidth": 2.5, "alpha": 0.4} if name == "truth" else {}
            )
            axes.plot(flat[:, 0], flat[:, 1], label=name, **colour)
        axes.set(xlabel=f"along, {unit}", ylabel=f"across, {unit}")
        axes.set_aspect("equal", "datalim")
        legend_above(axes)

    return png(on)


def _as_evo(stamps: NDArray[np.int64], poses: NDArray[np.float64]) -> PoseTrajectory3D:
    turns = Rotation.from_matrix(poses[:, :3, :3]).as_quat()[:, [3, 0, 1, 2]]
    return PoseTrajectory3D(poses[:, :3, 3], turns, (stamps - stamps[0]) * 1e-9)


def _rms(
    metric: metrics.APE | metrics.RPE, reference: PoseTrajectory3D, aligned: PoseTrajectory3D
) -> float:
    metric.process_data((reference, aligned))
    return float(metric.get_statistic(metrics.StatisticsType.rmse))
