"""How sure the relative pose of two views is, from what is known of their matches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Floats = NDArray[np.float64]

_STEP = 1e-6


def motion_covariance(
    then: Floats, now: Floats, covariance: Floats, rotation: Floats, direction: Floats
) -> Floats:
    """Covariance of a rotation and a translation of length 1, from matched bearings.

    First order, by the distances of the bearings now from the epipolar lines of those then, each
    as sure as its own covariance across the line. Matches that agree less well than their
    covariances say make the pose that much less sure; more agreement makes it no surer.

    Parameters
    ----------
    then, now
        ``(M, 3)`` bearings (x, y, 1).
    covariance
        ``(M, 2, 2)`` of the (x, y) now relative to then.
    rotation, direction
        ``(3, 3)`` and ``(3,)`` of ``T_now_then``.

    Returns
    -------
    ``(6, 6)``: translation, then rotation about the axes of now, rad; 0 along the translation,
    whose length is 1 by definition.
    """
    across = np.linalg.svd(direction[None])[2][1:].T  # (3, 2): where its tip can go

    def distances(change: Floats) -> Floats:
        turn = Rotation.from_rotvec(change[:3]).as_matrix() @ rotation
        lines = np.cross(direction + across @ change[3:], then @ turn.T)
        return np.asarray((lines * now).sum(1) / np.linalg.norm(lines[:, :2], axis=1))

    lines = np.cross(direction, then @ rotation.T)[:, :2]
    normals = lines / np.linalg.norm(lines, axis=1, keepdims=True)
    deviation = np.sqrt(np.einsum("mi,mij,mj->m", normals, covariance, normals))
    found = _covariance(lambda change: distances(change) / deviation, 5)
    spread = np.zeros((6, 5))
    spread[:3, 3:], spread[3:, :3] = across, np.eye(3)
    return np.asarray(spread @ found @ spread.T)


def turn_covariance(then: Floats, now: Floats, covariance: Floats, rotation: Floats) -> Floats:
    """Covariance ``(3, 3)``, rad^2, of a rotation alone; as :func:`motion_covariance`."""
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))

    def offsets(change: Floats) -> Floats:
        turned = then @ (Rotation.from_rotvec(change).as_matrix() @ rotation).T
        apart = now[:, :2] - turned[:, :2] / turned[:, 2:]
        return np.asarray(np.einsum("mij,mj->mi", whitening, apart).ravel())

    return _covariance(offsets, 3)


def _covariance(residuals: Callable[[Floats], Floats], count: int) -> Floats:
    """Of `count` parameters at 0, from residuals whose deviation should be 1."""
    here = residuals(np.zeros(count))
    steps = [residuals(_STEP * axis) - residuals(-_STEP * axis) for axis in np.eye(count)]
    slopes = np.column_stack(steps) / (2 * _STEP)
    excess = float(here @ here) / max(len(here) - count, 1)
    return np.asarray(np.linalg.pinv(slopes.T @ slopes) * max(excess, 1.0))
