"""Rows of the topics -> what the mapper works with: bearings, whitened by their covariances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.records import FEATURES, columns

_STEP = 0.5  # px, of the difference quotients
_STEADY = 1e-9  # least share of an ellipse's long axis that its short one has, squared


@dataclass(frozen=True)
class Right:
    """What the right camera of a stereo pair sees of the features of one frame.

    Attributes
    ----------
    rows
        ``(M,)`` of ``records.STEREO``.
    camera
        The right camera's calibration.
    T_left_right
        ``(4, 4)`` maps points of the right camera's frame into the left one's, m.
    """

    rows: NDArray[np.void]
    camera: Camera
    T_left_right: NDArray[np.float64]

    def relative_to(self, features: NDArray[np.void]) -> Right:
        """Return the same with `u`, `v` less those of the left features that are told of.

        The right place was measured from the left one. Where ``tracks`` moves that, it moves along.
        """
        rows = self.rows[self.rows["index"] < len(features)]
        left, result = features[rows["index"]], rows.copy()
        result["u"], result["v"] = rows["u"] - left["u"], rows["v"] - left["v"]
        return replace(self, rows=result)


@dataclass(frozen=True)
class View:
    """What one frame sees of the tracks.

    Attributes
    ----------
    stamp
        Integer nanoseconds.
    ids
        ``(N,)`` int64 tracks, each at most once per eye.
    eyes
        ``(N,)`` int64 camera that sees them: 0, or 1 for the right one of a pair. In order.
    rays
        ``(N, 2)`` float64 bearings (x, y) at depth 1, optical frame of that camera.
    roots
        ``(N, 2, 2)`` float64 upper triangular square roots W of the information of `rays`:
        ``W.T @ W`` is the inverse of their covariance. ``W @ (error)`` is in standard deviations.
    """

    stamp: int
    ids: NDArray[np.int64]
    eyes: NDArray[np.int64]
    rays: NDArray[np.float64]
    roots: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.rays.shape != (len(self.ids), 2) or self.roots.shape != (len(self.ids), 2, 2):
            raise ValueError("a View has a ray and a root for every id")

    def select(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> View:
        """Return some of the rows."""
        return View(self.stamp, self.ids[rows], self.eyes[rows], self.rays[rows], self.roots[rows])


def view_of(
    stamp: int, rows: NDArray[np.void], camera: Camera, floor: float, right: Right | None = None
) -> View:
    """Return the tracked rows of one frame.

    Parameters
    ----------
    stamp
        Of the frame, integer nanoseconds.
    rows
        ``(N,)`` of ``records.FEATURES`` or ``records.TRACKS``; those without a track, a bearing or
        a covariance are left out.
    camera
        Says how a pixel's covariance becomes that of its bearing.
    floor
        Standard deviation, px, that is added to every covariance.
    right
        As of :meth:`Right.relative_to`, where there is a right camera.
    """
    ids, pixels = rows["track_id"].astype(np.int64), columns(rows, "u", "v")
    spread = columns(rows, *_SIGMAS)
    parts = [_seen(ids, columns(rows, "x", "y"), pixels, spread, camera, floor)]
    if right is not None:
        index = np.arange(len(rows)) if rows.dtype == FEATURES else rows["index"]
        _, here, there = np.intersect1d(index, right.rows["index"], return_indices=True)
        told = right.rows[there]
        # Place and covariance are relative to the left ones.
        pixels, spread = (
            pixels[here] + columns(told, "u", "v"),
            spread[here] + columns(told, *_SIGMAS),
        )
        rays = right.camera.bearings(pixels)[:, :2]
        parts.append(_seen(ids[here], rays, pixels, spread, right.camera, floor))
    eyes = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    known, bearings, roots = map(np.concatenate, zip(*parts, strict=True))
    return View(stamp, known, eyes, bearings, roots)


_SIGMAS = ("sigma_uu", "sigma_uv", "sigma_vv")


def _seen(
    ids: NDArray[np.int64],
    rays: NDArray[np.float64],
    pixels: NDArray[np.float64],
    spread: NDArray[np.float64],
    camera: Camera,
    floor: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Tracks (ascending), bearings and roots of one camera's rows that say something."""
    spread = spread + np.array([floor**2, 0.0, floor**2])
    known = np.isfinite(np.concatenate([rays, pixels, spread], axis=1)).all(axis=1)
    known &= (ids > 0) & (spread[:, 0] > 0)
    known &= spread[:, 0] * spread[:, 2] > spread[:, 1] ** 2
    found, first = np.unique(ids[known], return_index=True)
    rays, pixels, spread = (part[known][first] for part in (rays, pixels, spread))
    roots, sensible = roots_of(rays, pixels, spread, camera)
    return found[sensible], rays[sensible], roots


def views_of(
    rows: NDArray[np.void], camera: Camera, floor: float, rights: Mapping[int, Right]
) -> list[View]:
    """Return the keyframes that a ``tracks`` message tells of, in time order.

    `rights` is what their right cameras have seen, by stamp.
    """
    stamps = rows["sec"].astype(np.int64) * 1_000_000_000 + rows["nanosec"]
    return [
        view_of(t, rows[stamps == t], camera, floor, rights.get(t))
        for t in np.unique(stamps).tolist()
    ]


def roots_of(
    rays: NDArray[np.float64],
    pixels: NDArray[np.float64],
    spread: NDArray[np.float64],
    camera: Camera,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Roots of the information of those bearings that have one, and which these are."""
    steps = np.array([[_STEP, 0.0], [0.0, _STEP]])
    beside = (pixels + steps[:, None]).reshape(-1, 2)
    right, below = camera.bearings(beside)[:, :2].reshape(2, -1, 2)
    slope = np.stack([right - rays, below - rays], axis=-1) / _STEP
    uu, uv, vv = spread.T
    covariance = slope @ np.stack([uu, uv, uv, vv], -1).reshape(-1, 2, 2) @ slope.swapaxes(1, 2)
    trace = np.trace(covariance, axis1=1, axis2=2)
    covariance += _STEADY * trace[:, None, None] * np.eye(2)
    sensible = np.isfinite(covariance).all(axis=(1, 2)) & (trace > 0)
    lower = np.linalg.cholesky(np.linalg.inv(covariance[sensible]))
    return lower.swapaxes(1, 2), sensible


@dataclass(frozen=True)
class Table:
    """Observations of several views, side by side, ordered by track.

    Attributes
    ----------
    ids
        ``(T,)`` int64 tracks with two observations or more.
    start
        ``(T,)`` first row of each track.
    track, view, eye
        ``(N,)`` of each row: index in `ids`, number of the view, and its camera.
    rays, roots
        ``(N, 2)`` and ``(N, 2, 2)``, as in :class:`View`.
    """

    ids: NDArray[np.int64]
    start: NDArray[np.int64]
    track: NDArray[np.int64]
    view: NDArray[np.int64]
    eye: NDArray[np.int64]
    rays: NDArray[np.float64]
    roots: NDArray[np.float64]

    def cameras(self, poses: NDArray[np.float64], rig: NDArray[np.float64]) -> NDArray[np.float64]:
        """``(N, 4, 4)`` T_world_camera of the rows, of ``(V, 4, 4)`` bodies and the eyes on them.

        `rig` is ``(1 or 2, 4, 4)`` T_body_camera.
        """
        return np.asarray((poses[:, None] @ rig)[self.view, self.eye])

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum ``(N, ...)`` values over the rows of each track."""
        if not len(self.ids):
            return np.zeros((0, *values.shape[1:]))
        return np.asarray(np.add.reduceat(values, self.start, axis=0))

    @property
    def counts(self) -> NDArray[np.int64]:
        """Observations of each track."""
        return np.diff(self.start, append=len(self.track))


def table_of(views: Sequence[View], since: int = 0) -> Table:
    """Put views side by side, without tracks of one observation or before view `since` only."""
    ids = np.concatenate([np.empty(0, np.int64), *(view.ids for view in views)])
    number = np.repeat(np.arange(len(views)), [len(view.ids) for view in views])
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    newer = np.bincount(inverse, number >= since, len(counts)) > 0
    rows = np.flatnonzero((newer & (counts >= 2))[inverse])
    rows = rows[np.argsort(ids[rows], kind="stable")]
    known, start, track = np.unique(ids[rows], return_index=True, return_inverse=True)
    rays = np.concatenate([np.empty((0, 2)), *(view.rays for view in views)])
    roots = np.concatenate([np.empty((0, 2, 2)), *(view.roots for view in views)])
    eyes = np.concatenate([np.empty(0, np.int64), *(view.eyes for view in views)])
    return Table(known, start, track, number[rows], eyes[rows], rays[rows], roots[rows])
