"""Poses and points by weighted least squares, on arrays.

A pose is ``T_world_camera``, ``(4, 4)``; its increments are (rotation, translation) in the camera's
own frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from d2_ros.mapper.observations import Table

_CAUCHY = 2.385  # standard deviations: 95 % efficient for normal errors (Rey 1983)
_MEDIAN = 1.1774  # the median length of a standard normal vector in the plane
_LEAST_SCALE = 0.05  # standard deviations: below, residuals are nothing to judge by
_STEADY = 1e-9  # damping, relative to the diagonal


def inverse(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of a ``(4, 4)`` rigid motion."""
    result = np.eye(4)
    result[:3, :3] = pose[:3, :3].T
    result[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return result


def moved(pose: NDArray[np.float64], step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `pose` after an increment of six numbers.

    Its rotation is made orthonormal: what is not would grow from frame to frame, as each pose is
    predicted from those before.
    """
    result = pose.copy()
    turned = Rotation.from_matrix(pose[:3, :3]) * Rotation.from_rotvec(step[:3])
    result[:3, :3] = turned.as_matrix()
    result[:3, 3] += pose[:3, :3] @ step[3:]
    return result


def parallax(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Median angle between bearings ``(N, 2)`` of two views after the best rotation, rad."""
    a, b = (_directions(rays) for rays in (first, second))
    left, _, right = np.linalg.svd(b.T @ a)  # Wahba's problem, Kabsch's solution
    sign = np.diag([1.0, 1.0, np.linalg.det(left @ right)])
    turned = a @ (left @ sign @ right).T
    return float(np.median(np.arccos(np.clip((turned * b).sum(axis=1), -1, 1))))


def _directions(rays: NDArray[np.float64]) -> NDArray[np.float64]:
    full = np.column_stack([rays, np.ones(len(rays))])
    return np.asarray(full / np.linalg.norm(full, axis=1, keepdims=True))


def robust_weights(lengths: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Cauchy weights of residuals, and the scale that they are judged by.

    The scale is the residuals' own (by their median): what covariances say of one another counts,
    not what they say in px, which nobody's model is good enough for.

    Parameters
    ----------
    lengths
        ``(N,)`` residuals in standard deviations.
    """
    finite = lengths[np.isfinite(lengths)]
    if not len(finite):
        return np.zeros(len(lengths)), 1.0
    scale = max(float(np.median(finite)) / _MEDIAN, _LEAST_SCALE)
    return 1 / (1 + (lengths / (_CAUCHY * scale)) ** 2), scale


@dataclass(frozen=True)
class Residuals:
    """Points as seen from cameras, against what was seen.

    Attributes
    ----------
    local
        ``(N, 3)`` points in the camera's frame.
    error
        ``(N, 2)`` predicted minus seen bearing.
    white
        ``(N, 2)`` the same in standard deviations.
    slope
        ``(N, 2, 3)`` derivative of `white` by `local`.
    """

    local: NDArray[np.float64]
    error: NDArray[np.float64]
    white: NDArray[np.float64]
    slope: NDArray[np.float64]

    @property
    def lengths(self) -> NDArray[np.float64]:
        """``(N,)`` standard deviations; infinite for points that are not in front."""
        length = np.linalg.norm(self.white, axis=1)
        return np.where(self.local[:, 2] > 0, length, np.inf)

    @property
    def distances(self) -> NDArray[np.float64]:
        """``(N,)`` errors of the bearings; infinite for points that are not in front."""
        return np.where(self.local[:, 2] > 0, np.linalg.norm(self.error, axis=1), np.inf)


def residuals(
    poses: NDArray[np.float64],
    points: NDArray[np.float64],
    rays: NDArray[np.float64],
    roots: NDArray[np.float64],
) -> Residuals:
    """Compare ``(N, 3)`` points, world frame, with ``(N, 2)`` rays of ``(N, 4, 4)`` cameras."""
    local = np.einsum("ni,nij->nj", points - poses[:, :3, 3], poses[:, :3, :3])
    depth = np.where(np.abs(local[:, 2]) < 1e-9, 1e-9, local[:, 2])
    seen = local[:, :2] / depth[:, None]
    error = seen - rays
    slope = np.zeros((len(points), 2, 3))
    slope[:, 0, 0] = slope[:, 1, 1] = 1
    slope[:, :, 2] = -seen
    slope /= depth[:, None, None]
    return Residuals(local, error, np.einsum("nij,nj->ni", roots, error), roots @ slope)


def refine_pose(
    pose: NDArray[np.float64],
    points: NDArray[np.float64],
    rays: NDArray[np.float64],
    roots: NDArray[np.float64],
    mounts: NDArray[np.float64],
    rounds: int = 10,
) -> NDArray[np.float64]:
    """Place a body by points that are known (Gauss-Newton, Cauchy weights).

    `mounts` is ``(N, 4, 4)`` T_body_camera of the camera of each ray.
    """
    for _ in range(rounds):
        found = residuals(pose @ mounts, points, rays, roots)
        weights, _ = robust_weights(found.lengths)
        slope = _by_pose(found, pose, points, mounts)
        weighted = slope * np.repeat(weights, 2)[:, None]
        hessian, gradient = weighted.T @ slope, weighted.T @ found.white.ravel()
        hessian[np.diag_indices(6)] *= 1 + _STEADY
        try:
            step = np.asarray(-np.linalg.solve(hessian, gradient), np.float64)
        except np.linalg.LinAlgError:
            return pose
        pose = moved(pose, step)
        if np.abs(step).max() < 1e-6:
            break
    return pose


def _by_pose(
    found: Residuals,
    pose: NDArray[np.float64],
    points: NDArray[np.float64],
    mounts: NDArray[np.float64],
) -> NDArray[np.float64]:
    """``(2 N, 6)`` derivative of the whitened residuals by an increment of the body."""
    x, y, z = ((points - pose[:3, 3]) @ pose[:3, :3]).T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    by_body = found.slope @ mounts[:, :3, :3].swapaxes(1, 2)
    return np.concatenate([by_body @ cross, -by_body], axis=2).reshape(-1, 6)


def pose_covariance(
    pose: NDArray[np.float64],
    points: NDArray[np.float64],
    rays: NDArray[np.float64],
    roots: NDArray[np.float64],
) -> NDArray[np.float64]:
    """``(6, 6)`` of rotation and translation, the camera's own axes, by what the residuals are."""
    mounts = np.broadcast_to(np.eye(4), (len(points), 4, 4))
    found = residuals(pose @ mounts, points, rays, roots)
    weights, scale = robust_weights(found.lengths)
    slope = _by_pose(found, pose, points, mounts)
    hessian = (slope * np.repeat(weights, 2)[:, None]).T @ slope
    return np.asarray(np.linalg.pinv(hessian) * scale**2)


def search_pose(
    points: NDArray[np.float64], rays: NDArray[np.float64], max_error: float
) -> NDArray[np.float64] | None:
    """Place a camera without a guess (SQPnP in a RANSAC, OpenCV); `max_error` is of bearings."""
    try:
        found, turn, shift, _ = cv2.solvePnPRansac(
            points, rays[:, None], np.eye(3), np.zeros(4), None, None, False, 200, max_error, 0.999,
            None, cv2.SOLVEPNP_SQPNP,
        )  # fmt: skip
    except cv2.error:  # degenerate points make the solvers throw
        return None
    if not found or not (np.isfinite(turn).all() and np.isfinite(shift).all()):
        return None
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(turn)[0], shift.ravel()
    return inverse(pose)


@dataclass(frozen=True)
class Points:
    """Landmarks of a table.

    Attributes
    ----------
    places
        ``(T, 3)`` world frame.
    covariances
        ``(T, 3, 3)`` with the poses taken as exact.
    weights
        ``(N,)`` robust weights of the rows of the table.
    distances
        ``(N,)`` errors of the bearings; infinite for points that are not in front.
    scale
        Length of the residuals in their own standard deviations.
    """

    places: NDArray[np.float64]
    covariances: NDArray[np.float64]
    weights: NDArray[np.float64]
    distances: NDArray[np.float64]
    scale: float


def triangulate(table: Table, cameras: NDArray[np.float64]) -> Points:
    """Place the points of a table by cameras that are known.

    Linear at first (Hartley, Sturm 1997), then Gauss-Newton on the bearings.

    Parameters
    ----------
    table
        Observations.
    cameras
        ``(N, 4, 4)`` T_world_camera of its rows.
    """
    turn = cameras[:, :3, :3].swapaxes(1, 2)
    shift = -(turn @ cameras[:, :3, 3:])[:, :, 0]
    rows = table.roots @ (turn[:, 2:] * table.rays[:, :, None] - turn[:, :2])
    right = table.roots @ (shift[:, :2] - table.rays * shift[:, 2:])[:, :, None]
    across = np.ascontiguousarray(rows.swapaxes(1, 2))  # products of views cost four times more
    places = _solve(table.sums(across @ rows), table.sums((across @ right)[:, :, 0]))
    return refine_points(places, table, cameras)


def refine_points(
    places: NDArray[np.float64], table: Table, cameras: NDArray[np.float64], rounds: int = 2
) -> Points:
    """Place points better by cameras that are known (Gauss-Newton, Cauchy weights).

    Parameters
    ----------
    places
        ``(T, 3)`` to begin with, world frame.
    table, cameras
        As for :func:`triangulate`.
    """
    turn = cameras[:, :3, :3].swapaxes(1, 2)
    for _ in range(rounds):
        found = residuals(cameras, places[table.track], table.rays, table.roots)
        weights, _ = robust_weights(found.lengths)
        slope = found.slope @ turn
        weighted = np.ascontiguousarray((slope * weights[:, None, None]).swapaxes(1, 2))
        hessian = table.sums(weighted @ slope)
        places = places - _solve(hessian, table.sums((weighted @ found.white[:, :, None])[:, :, 0]))
    found = residuals(cameras, places[table.track], table.rays, table.roots)
    weights, scale = robust_weights(found.lengths)
    covariances = _solve(hessian, np.broadcast_to(np.eye(3), hessian.shape)) * scale**2
    return Points(places, covariances, weights, found.distances, scale)


def _solve(matrices: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve ``(T, 3, 3)`` systems, steadied where they are singular."""
    trace = np.trace(matrices, axis1=1, axis2=2)[:, None, None]
    steadied = matrices + (_STEADY * trace + 1e-300) * np.eye(3)
    if right.ndim == 2:
        return np.asarray(np.linalg.solve(steadied, right[:, :, None])[:, :, 0])
    return np.asarray(np.linalg.solve(steadied, right))


def depth_errors(
    places: NDArray[np.float64], covariances: NDArray[np.float64], centre: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Standard deviation of the distance from `centre`, as a share of it, ``(T,)``."""
    way = places - centre
    length = np.maximum(np.linalg.norm(way, axis=1), 1e-12)
    along = way / length[:, None]
    variance = np.einsum("ti,tij,tj->t", along, covariances, along)
    return np.asarray(np.sqrt(np.maximum(variance, 0)) / length)
