"""Relative pose of two views from matches of known covariance, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

Floats = NDArray[np.float64]

_KERNELS = (20.0, 2.0)
"""Standard deviations from which on a match counts for less (Cauchy): wide first, then narrow."""

_SAMPLES = 20


def refined_motion(
    then: Floats, now: Floats, covariance: Floats, rotation: Floats, direction: Floats
) -> tuple[Floats, Floats, Floats]:
    """The most likely rotation and direction of translation, from where a first guess is.

    The distances of the bearings now from the epipolar lines of those then are made small, each
    by its own covariance across the line and robustly. Matches that agree less well than their
    covariances say make the pose that much less sure; more agreement makes it no surer.

    Parameters
    ----------
    then, now
        ``(M, 3)`` bearings (x, y, 1).
    covariance
        ``(M, 2, 2)`` of the (x, y) now relative to then.
    rotation, direction
        ``(3, 3)`` and ``(3,)`` of ``T_now_then``: the guess.

    Returns
    -------
    rotation, direction
        As given, refined.
    covariance
        ``(6, 6)`` first order: translation, then rotation about the axes of now, rad; 0 along the
        translation, whose length is 1 by definition.
    """
    across = np.linalg.svd(direction[None])[2][1:].T  # (3, 2): where its tip can go

    def moved(change: Floats) -> tuple[Floats, Floats]:
        tip = direction + across @ change[3:]
        turn = Rotation.from_rotvec(change[:3]).as_matrix() @ rotation
        return turn, np.asarray(tip / np.linalg.norm(tip))

    def distances(change: Floats) -> Floats:
        turn, tip = moved(change)
        lines = np.cross(tip, then @ turn.T)
        deviation = np.sqrt(
            np.einsum("mi,mij,mj->m", lines[:, :2], covariance, lines[:, :2]).clip(min=1e-30)
        )
        return np.asarray((lines * now).sum(1) / deviation)

    change, found = _fit(distances, 5)
    spread = np.zeros((6, 5))
    spread[:3, 3:], spread[3:, :3] = across, np.eye(3)
    return (*moved(change), np.asarray(spread @ found @ spread.T))


def refined_turn(
    then: Floats, now: Floats, covariance: Floats, rotation: Floats
) -> tuple[Floats, Floats]:
    """The most likely rotation alone and its ``(3, 3)`` covariance, rad^2; as refined_motion."""
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))

    def moved(change: Floats) -> Floats:
        return np.asarray(Rotation.from_rotvec(change).as_matrix() @ rotation)

    def offsets(change: Floats) -> Floats:
        turned = then @ moved(change).T
        apart = now[:, :2] - turned[:, :2] / turned[:, 2:]
        return np.asarray(np.einsum("mij,mj->mi", whitening, apart).ravel())

    change, found = _fit(offsets, 3)
    return moved(change), found


def _fit(residuals: Callable[[Floats], Floats], count: int) -> tuple[Floats, Floats]:
    """Robust least squares in `count` parameters from 0, and their covariance."""
    change: Floats = np.zeros(count)
    for width in _KERNELS:
        fit = least_squares(residuals, change, loss="cauchy", f_scale=width, x_scale="jac")
        change = fit.x
    excess = 2 * fit.cost / max(len(fit.fun) - count, 1)
    return change, np.asarray(np.linalg.pinv(fit.jac.T @ fit.jac) * max(excess, 1.0))


def resampled_scatter(
    estimate: Callable[[NDArray[np.int64]], Floats | None],
    count: int,
    rotation: Floats,
    direction: Floats,
) -> Floats:
    """Scatter ``(6, 6)`` of poses from resampled matches about a pose (bootstrap, Efron 1979).

    First order sees the surroundings of one solution only. Few matches, or those of a plane,
    have others far away that explain them as well; some samples end there.

    Parameters
    ----------
    estimate
        ``(4, 4)`` pose from matches, by their rows, or None.
    count
        How many matches there are.
    rotation, direction
        The pose.
    """
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(_SAMPLES):
        pose = estimate(rng.integers(0, count, count))
        if pose is not None:
            turn = Rotation.from_matrix(pose[:3, :3] @ rotation.T).as_rotvec()
            errors.append(np.concatenate([pose[:3, 3] - direction, turn]))
    told = np.array(errors).reshape(-1, 6)
    return np.asarray(told.T @ told / max(len(told), 1))
