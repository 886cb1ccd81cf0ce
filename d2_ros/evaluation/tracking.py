"""Figures of tracks: length, density, coverage, survival, scatter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from d2_ros.evaluation.peers import Observed, join

COVERAGE_CELLS = 16
"""Cells along the long edge over which the coverage is counted."""

STATIC_CAMERA_M = 0.01
"""A camera that stays within this distance of its median place is static, m."""

CORRECT_PX = 3.0
"""A survivor further than this from its true place is on another surface point, px."""

Figures = dict[str, float | int | str]


class Locator(Protocol):
    """What is needed of :class:`d2_ros.sources.synthetic.Synthetic`."""

    def locate(
        self, frame_a: int, pixels: NDArray[np.float64], frame_b: int
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Say where the surface points seen at pixels of frame a lie in frame b."""
        ...


def lengths(frames: Sequence[Observed]) -> NDArray[np.int64]:
    """Observations of every track with at least two (a point seen once is no track)."""
    ids = [seen.ids[seen.ids > 0] for seen in frames]
    counts = np.unique(np.concatenate([np.empty(0, np.int64), *ids]), return_counts=True)[1]
    return np.asarray(counts[counts >= 2])


def track_figures(frames: Sequence[Observed], size: tuple[int, int]) -> Figures:
    """Length, density and coverage.

    Parameters
    ----------
    frames
        All frames in time order; tracks with a single observation do not count.
    size
        (width, height) of the images, px.

    Returns
    -------
    mean_, median_, p90_track_length (frames), share_of_4_frames (of the tracks),
    active_tracks (mean per frame), coverage (mean share of the image's cells with a track).
    """
    long = lengths(frames)
    if not len(long):
        return {"mean_track_length": 0.0, "active_tracks": 0.0, "coverage": 0.0}
    ids = np.concatenate([seen.ids for seen in frames])
    pixels = np.concatenate([seen.pixels for seen in frames])
    frame = np.repeat(np.arange(len(frames)), [len(seen.ids) for seen in frames])
    known, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    kept = (counts[inverse] >= 2) & (known[inverse] > 0)
    cell = max(size) / COVERAGE_CELLS
    columns, rows = (int(np.ceil(edge / cell)) for edge in size)
    places = np.floor((pixels[kept] + 0.5) / cell).astype(np.int64)
    places = np.clip(places, 0, [columns - 1, rows - 1])
    used = np.unique((frame[kept] * rows + places[:, 1]) * columns + places[:, 0])
    return {
        "mean_track_length": float(long.mean()),
        "median_track_length": float(np.median(long)),
        "p90_track_length": float(np.percentile(long, 90)),
        "share_of_4_frames": float(np.mean(long >= 4)),
        "active_tracks": float(kept.sum() / len(frames)),
        "coverage": float(len(used) / (len(frames) * columns * rows)),
    }


def survival_figures(
    frames: Sequence[Observed], stretch: range, truth: Locator, name: str, start: int = 0
) -> Figures:
    """Share of the tracks seen just before a stretch of frames that are seen just after it.

    Parameters
    ----------
    frames
        In time order.
    stretch
        Indices in the whole sequence.
    truth
        The whole sequence.
    name
        Of the stretch.
    start
        Index of ``frames[0]`` in the whole sequence.

    Returns
    -------
    survival_NAME, and survival_NAME_correct that counts only survivors within
    :data:`CORRECT_PX` of the true place; nothing where the sequence does not have both frames.
    """
    before, after = stretch.start - 1 - start, stretch.stop - start
    if not len(stretch) or before < 0 or after >= len(frames):
        return {}
    alive = int((frames[before].ids > 0).sum())
    near, far = join(frames[before].ids, frames[after].ids)
    true, _ = truth.locate(before + start, frames[before].pixels[near], after + start)
    off = np.linalg.norm(true - frames[after].pixels[far], axis=1)
    return {
        f"survival_{name}": len(near) / max(alive, 1),
        f"survival_{name}_correct": float((off <= CORRECT_PX).sum()) / max(alive, 1),
    }


def is_static_camera(poses: NDArray[np.float64] | None) -> bool:
    """Whether the ground truth (``(N, 4, 4)``, NaN where unknown) is that of a static camera."""
    if poses is None:
        return False
    places = poses[np.isfinite(poses).all(axis=(1, 2)), :3, 3]
    if len(places) < 2:
        return False
    return bool(np.linalg.norm(places - np.median(places, axis=0), axis=1).max() < STATIC_CAMERA_M)


def static_camera_figures(frames: Sequence[Observed]) -> Figures:
    """Scatter of the tracks of a static camera, whose every true move is zero.

    Only tracks seen in the first frame count.

    Returns
    -------
    scatter_px
        Median over the tracks seen at least four times of the standard deviation of a
        coordinate (root of the mean variance of u and v).
    mean_move_px
        Length of the mean move from the first to the last frame: drift common to the tracks.
    median_move_px
        Median length of the move from the first to the last frame.
    survival_first_frame
        Share of the first frame's tracks that the last frame sees.
    """
    first = frames[0].ids[frames[0].ids > 0]
    ids = np.concatenate([seen.ids for seen in frames])
    pixels = np.concatenate([seen.pixels for seen in frames])
    ours = np.isin(ids, first)
    _, track, counts = np.unique(ids[ours], return_inverse=True, return_counts=True)
    means = [np.bincount(track, pixels[ours, axis]) / counts for axis in (0, 1)]
    squared = (pixels[ours] - np.stack(means, 1)[track]) ** 2
    spread = np.sqrt(np.bincount(track, squared.sum(axis=1) / 2) / np.maximum(counts - 1, 1))
    near, far = join(frames[0].ids, frames[-1].ids)
    figures: Figures = {"survival_first_frame": len(near) / max(len(first), 1)}
    if (counts >= 4).any():
        figures["scatter_px"] = float(np.median(spread[counts >= 4]))
    if len(near):
        move = frames[-1].pixels[far] - frames[0].pixels[near]
        figures["mean_move_px"] = float(np.linalg.norm(move.mean(axis=0)))
        figures["median_move_px"] = float(np.median(np.linalg.norm(move, axis=1)))
    return figures
