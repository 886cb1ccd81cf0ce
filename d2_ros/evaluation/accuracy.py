"""Published tracks judged by the exact ground truth of the synthetic sequence.

The error of an observation is its distance to the place where the surface point seen at its
track's first observation truly lies in that frame. Refined positions are held against the
refined first position and detected ones against the detected first position, all as published
at the time. First observations do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError
from d2_ros.records import FEATURES

_CHI2_95 = 5.991  # 95 % quantile of chi-squared with two degrees of freedom


class GroundTruth(Protocol):
    """What is needed of :class:`d2_ros.sources.synthetic.Synthetic`."""

    stamps: list[int]

    def surface(
        self, frame: int, pixels: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Find the surface points seen at pixels of a frame, and their planes."""
        ...

    def project(
        self, points: NDArray[np.float64], planes: NDArray[np.int64], frame: int
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Say where surface points lie in a frame, and whether they are visible there."""
        ...


@dataclass(frozen=True)
class TrackErrors:
    """Errors of all observations after the first of their track, in time order.

    An observation whose true place is hidden by another surface or outside the image counts
    like any other: by its distance to where the point truly lies. Left out are only those
    without a true place: the first observation sees nothing, or the point is now behind the
    camera.

    Attributes
    ----------
    frame
        ``(N,)`` int64 index of the frame in the sequence.
    track_id
        ``(N,)`` int64.
    age
        ``(N,)`` int64 observations of the track before this one.
    error, error_detected
        ``(N,)`` float64 distance of the refined and of the detected position, px.
    chi2
        ``(N,)`` float64 squared Mahalanobis distance of the refined position under the
        published covariance; NaN where that is not positive definite.
    visible
        ``(N,)`` bool: the true place is inside the image and not hidden.
    lengths
        ``(T,)`` int64 observations of each track, all tracks.
    frames
        Number of frames judged.
    """

    frame: NDArray[np.int64]
    track_id: NDArray[np.int64]
    age: NDArray[np.int64]
    error: NDArray[np.float64]
    error_detected: NDArray[np.float64]
    chi2: NDArray[np.float64]
    visible: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    frames: int

    def __post_init__(self) -> None:
        columns = (self.track_id, self.age, self.error, self.error_detected, self.chi2)
        if any(column.shape != self.frame.shape for column in (*columns, self.visible)):
            raise ValueError("all columns of TrackErrors must have one entry per observation")


def track_errors(
    frames: Sequence[tuple[int, NDArray[np.void]]], source: GroundTruth
) -> TrackErrors:
    """Judge published features.

    Parameters
    ----------
    frames
        ``(stamp in ns, rows of records.FEATURES)`` in time order.
    source
        The synthetic sequence that the frames were made from, with the same options.

    Raises
    ------
    D2RosError
        If a stamp is none of the sequence's.
    """
    index = {stamp: number for number, stamp in enumerate(source.stamps)}
    unknown = [stamp for stamp, _ in frames if stamp not in index]
    if unknown:
        raise D2RosError(
            f"stamp {unknown[0]} is no frame of the synthetic sequence; "
            "judge with the same size, frames, seed and rate as were played"
        )
    tracked = [rows[rows["track_id"] > 0] for _, rows in frames]
    numbers = np.repeat([index[stamp] for stamp, _ in frames], [len(rows) for rows in tracked])
    rows = np.concatenate([np.empty(0, FEATURES), *tracked])
    ids, first, track = np.unique(rows["track_id"], return_index=True, return_inverse=True)
    refined, visible = true_places(source, numbers, _pixels(rows, "u", "v"), first[track])
    detected_names = ("u_detected", "v_detected")
    detected, _ = true_places(source, numbers, _pixels(rows, *detected_names), first[track])
    offset = _pixels(rows, "u", "v") - refined
    offset_detected = _pixels(rows, *detected_names) - detected
    later = np.arange(len(rows)) != first[track]
    judged = later & np.isfinite(offset).all(axis=1) & np.isfinite(offset_detected).all(axis=1)
    return TrackErrors(
        frame=numbers[judged],
        track_id=rows["track_id"][judged].astype(np.int64),
        age=ages(track)[judged],
        error=np.linalg.norm(offset[judged], axis=1),
        error_detected=np.linalg.norm(offset_detected[judged], axis=1),
        chi2=mahalanobis(offset[judged], rows[judged]),
        visible=visible[judged],
        lengths=np.bincount(track, minlength=len(ids)).astype(np.int64),
        frames=len(frames),
    )


def accuracy_figures(errors: TrackErrors) -> dict[str, float | int]:
    """Sum up, with the units in the names.

    Raises
    ------
    D2RosError
        If there is nothing to judge.
    """
    if not len(errors.error):
        raise D2RosError(
            f"no track has a second observation in {errors.frames} frames; there is nothing to "
            "judge: play more frames"
        )
    error, detected = errors.error, errors.error_detected
    chi2 = errors.chi2[np.isfinite(errors.chi2)]
    figures: dict[str, float | int] = {
        "median_error_px": float(np.median(error)),
        "p90_error_px": float(np.percentile(error, 90)),
        "median_error_detected_px": float(np.median(detected)),
        "p90_error_detected_px": float(np.percentile(detected, 90)),
        "share_below_1px": float(np.mean(error < 1)),
        "share_detected_below_1px": float(np.mean(detected < 1)),
        "share_hidden": float(np.mean(~errors.visible)),
        "observations": len(error),
        "frames": errors.frames,
        "tracks": len(errors.lengths),
        "mean_track_length": float(errors.lengths.mean()),
    }
    if len(chi2):
        figures["median_chi2"] = float(np.median(chi2))  # 1.386 if the covariances are honest
        figures["share_inside_95pct_ellipse"] = float(np.mean(chi2 < _CHI2_95))
    return figures


def _pixels(rows: NDArray[np.void], u: str, v: str) -> NDArray[np.float64]:
    return np.column_stack([rows[u], rows[v]]).astype(np.float64)


def true_places(
    source: GroundTruth,
    numbers: NDArray[np.int64],
    pixels: NDArray[np.float64],
    first: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Say where the point seen in row ``first[i]`` truly lies in the frame of row i.

    Parameters
    ----------
    source
        The sequence.
    numbers
        ``(N,)`` index of each row's frame.
    pixels
        ``(N, 2)`` places of the rows, px; only those of first observations are looked at.
    first
        ``(N,)`` row of the first observation of each row's track.

    Returns
    -------
    ``(N, 2)`` px, NaN without a true place, and ``(N,)`` bool whether it is visible.
    """
    points = np.full((len(pixels), 3), np.nan)
    planes = np.full(len(pixels), -1)
    truth = np.full((len(pixels), 2), np.nan)
    visible = np.zeros(len(pixels), bool)
    for number in np.unique(numbers):
        born = np.unique(first[numbers[first] == number])
        points[born], planes[born] = source.surface(int(number), pixels[born])
    for number in np.unique(numbers):
        here = numbers == number
        truth[here], visible[here] = source.project(
            points[first[here]], planes[first[here]], int(number)
        )
    return truth, visible


def ages(track: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each entry, the number of equal entries before it."""
    order = np.argsort(track, kind="stable")
    starts = np.searchsorted(track[order], track[order])
    age = np.empty(len(track), np.int64)
    age[order] = np.arange(len(track)) - starts
    return age


def mahalanobis(offset: NDArray[np.float64], rows: NDArray[np.void]) -> NDArray[np.float64]:
    """Squared Mahalanobis distances under the published covariances; NaN where they are none."""
    names = ("sigma_uu", "sigma_uv", "sigma_vv")
    uu, uv, vv = (rows[name].astype(np.float64) for name in names)
    determinant = uu * vv - uv**2
    u, v = offset.T
    with np.errstate(divide="ignore", invalid="ignore"):
        chi2 = (vv * u**2 - 2 * uv * u * v + uu * v**2) / determinant
    return np.asarray(np.where((determinant > 0) & (uu > 0), chi2, np.nan))
