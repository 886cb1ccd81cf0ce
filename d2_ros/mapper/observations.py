"""Rows of the topics -> what the mapper works with: bearings, whitened by their covariances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.records import columns

_STEP = 0.5  # px, of the difference quotients


@dataclass(frozen=True)
class View:
    """What one frame sees of the tracks.

    Attributes
    ----------
    stamp
        Integer nanoseconds.
    ids
        ``(N,)`` int64 tracks, ascending, each at most once.
    rays
        ``(N, 2)`` float64 bearings (x, y) at depth 1, optical frame.
    roots
        ``(N, 2, 2)`` float64 upper triangular square roots W of the information of `rays`:
        ``W.T @ W`` is the inverse of their covariance. ``W @ (error)`` is in standard deviations.
    """

    stamp: int
    ids: NDArray[np.int64]
    rays: NDArray[np.float64]
    roots: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.rays.shape != (len(self.ids), 2) or self.roots.shape != (len(self.ids), 2, 2):
            raise ValueError("a View has a ray and a root for every id")


def view_of(stamp: int, rows: NDArray[np.void], camera: Camera, floor: float) -> View:
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
    """
    places = columns(rows, "x", "y", "u", "v")
    spread = columns(rows, "sigma_uu", "sigma_uv", "sigma_vv")
    spread[:, [0, 2]] += floor**2
    known = np.isfinite(places).all(axis=1) & np.isfinite(spread).all(axis=1)
    known &= (rows["track_id"] > 0) & (spread[:, 0] > 0)
    known &= spread[:, 0] * spread[:, 2] > spread[:, 1] ** 2
    ids, first = np.unique(rows["track_id"][known].astype(np.int64), return_index=True)
    places, spread = places[known][first], spread[known][first]
    roots, sensible = _roots(places[:, 2:], spread, camera)
    return View(stamp, ids[sensible], places[sensible, :2], roots[sensible])


def views_of(rows: NDArray[np.void], camera: Camera, floor: float) -> list[View]:
    """Return the keyframes that a ``tracks`` message tells of, in time order."""
    stamps = rows["sec"].astype(np.int64) * 1_000_000_000 + rows["nanosec"]
    return [view_of(int(t), rows[stamps == t], camera, floor) for t in np.unique(stamps)]


def _roots(
    pixels: NDArray[np.float64], spread: NDArray[np.float64], camera: Camera
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Roots of the information of bearings, and which of them are numbers."""
    steps = np.array([[_STEP, 0.0], [-_STEP, 0.0], [0.0, _STEP], [0.0, -_STEP]])
    around = camera.bearings((pixels + steps[:, None]).reshape(-1, 2))[:, :2]
    right, left, below, above = around.reshape(4, -1, 2)
    slope = np.stack([right - left, below - above], axis=-1) / (2 * _STEP)
    uu, uv, vv = spread.T
    covariance = slope @ np.stack([uu, uv, uv, vv], -1).reshape(-1, 2, 2) @ slope.swapaxes(1, 2)
    information = _inverse(covariance)
    a, b, c = information[:, 0, 0], information[:, 0, 1], information[:, 1, 1]
    roots = np.zeros((len(pixels), 2, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        roots[:, 0, 0] = np.sqrt(a)
        roots[:, 0, 1] = b / roots[:, 0, 0]
        roots[:, 1, 1] = np.sqrt(c - b**2 / a)
    return roots, np.isfinite(roots).all(axis=(1, 2)) & (roots[:, 1, 1] > 0)


def _inverse(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverses of ``(N, 2, 2)``; infinite or NaN where there is none."""
    (a, b), (c, d) = np.moveaxis(matrices, 0, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.stack([d, -b, -c, a], -1).reshape(-1, 2, 2) / _det(a, b, c, d))


def _det(
    a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64], d: NDArray[np.float64]
) -> NDArray[np.float64]:
    return (a * d - b * c)[:, None, None]


@dataclass(frozen=True)
class Table:
    """Observations of several views, side by side, ordered by track.

    Attributes
    ----------
    ids
        ``(T,)`` int64 tracks that at least two of the views see.
    start
        ``(T,)`` first row of each track.
    track, view
        ``(N,)`` of each row: index in `ids`, and number of the view.
    rays, roots
        ``(N, 2)`` and ``(N, 2, 2)``, as in :class:`View`.
    """

    ids: NDArray[np.int64]
    start: NDArray[np.int64]
    track: NDArray[np.int64]
    view: NDArray[np.int64]
    rays: NDArray[np.float64]
    roots: NDArray[np.float64]

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum ``(N, ...)`` values over the rows of each track."""
        if not len(self.ids):
            return np.zeros((0, *values.shape[1:]))
        return np.asarray(np.add.reduceat(values, self.start, axis=0))

    @property
    def counts(self) -> NDArray[np.int64]:
        """Observations of each track."""
        return np.diff(self.start, append=len(self.track))


def table_of(views: Sequence[View]) -> Table:
    """Put views side by side; tracks that only one of them sees are left out."""
    ids = np.concatenate([np.empty(0, np.int64), *(view.ids for view in views)])
    number = np.repeat(np.arange(len(views)), [len(view.ids) for view in views])
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(counts[inverse] >= 2)
    rows = rows[np.argsort(ids[rows], kind="stable")]
    known, start, track = np.unique(ids[rows], return_index=True, return_inverse=True)
    rays = np.concatenate([np.empty((0, 2)), *(view.rays for view in views)])
    roots = np.concatenate([np.empty((0, 2, 2)), *(view.roots for view in views)])
    return Table(known, start, track, number[rows], rays[rows], roots[rows])
