"""A static camera: what all of its image moves by, found without any of the methods' tracks.

A camera that is static by its ground truth still moves a little: a tripod that sags, a floor that
shakes. That motion is common to the whole image, and independent points tell it: corners of the
first frame, followed by Lucas-Kanade, and a robust homography through them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.evaluation.accuracy import mahalanobis
from d2_ros.evaluation.peers import Observed, flow
from d2_ros.evaluation.tracking import Figures, static_camera_figures
from d2_ros.records import columns

POINTS, QUALITY, SPACING = 1000, 0.01, 8.0
"""Corners of the first frame: most of them, least quality, least distance (px)."""

MAX_ERROR = 0.5
"""Corners further than this from where the homography puts them do not count, px."""

_MIN_POINTS = 12


@dataclass
class CommonMotion:
    """Homographies from the first frame to every one, ``(3, 3)``; NaN where there is none.

    Every frame is aligned with the first one itself, from where the last frame saw the corners,
    so that nothing accumulates.
    """

    homographies: list[NDArray[np.float64]] = field(default_factory=list)
    _first: NDArray[np.uint8] | None = None
    _corners: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    _last: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))

    def add(self, image: NDArray[np.uint8]) -> None:
        """Look at the next frame, ``(H, W)``."""
        if self._first is None:
            found = cv2.goodFeaturesToTrack(image, POINTS, QUALITY, SPACING)
            if found is not None:
                self._corners = found.reshape(-1, 2).astype(np.float64)
            self._first, self._last = image, self._corners
            self.homographies.append(np.eye(3))
            return
        motion: NDArray[np.float64] = np.full((3, 3), np.nan)
        if len(self._corners) >= _MIN_POINTS:
            there, ok = flow(self._first, image, self._corners, self._last)
            self._last = np.where(ok[:, None], there, self._last)
            motion = _homography(self._corners[ok], there[ok])
        self.homographies.append(motion)


def _homography(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(first) < _MIN_POINTS:
        return np.full((3, 3), np.nan)
    motion, _ = cv2.findHomography(first, second, cv2.USAC_MAGSAC, MAX_ERROR, None, 2000, 0.999)
    return np.full((3, 3), np.nan) if motion is None else np.asarray(motion, np.float64)


def carry_back(pixels: NDArray[np.float64], motion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where places ``(N, 2)`` of a frame lie in the first one; NaN if there is no motion."""
    if not np.isfinite(motion).all():
        return np.full(pixels.shape, np.nan)
    lifted = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(motion).T
    return np.asarray(lifted[:, :2] / lifted[:, 2:])


def without_motion(
    frames: Sequence[Observed], homographies: Sequence[NDArray[np.float64]]
) -> list[Observed]:
    """The observations where they would lie in the first frame; none of a frame without motion.

    Parameters
    ----------
    frames
        All frames in time order.
    homographies
        ``(3, 3)`` each, from the first frame to it.
    """
    moved = []
    for seen, motion in zip(frames, homographies, strict=True):
        places = carry_back(seen.pixels, motion)
        known = np.isfinite(places).all(axis=1)
        moved.append(Observed(seen.ids[known], places[known]))
    return moved


def figures_without_motion(
    frames: Sequence[Observed], homographies: Sequence[NDArray[np.float64]]
) -> Figures:
    """The scatter and the mean move of a static camera's tracks beside the common motion.

    Returns
    -------
    scatter_common_motion_removed_px, mean_move_common_motion_removed_px: those of
    :func:`d2_ros.evaluation.tracking.static_camera_figures`; what cannot be said is left out.
    """
    still = static_camera_figures(without_motion(frames, homographies))
    return {
        f"{name}_common_motion_removed_px": still[f"{name}_px"]
        for name in ("scatter", "mean_move")
        if f"{name}_px" in still
    }


def static_camera_chi2(
    published: Sequence[tuple[int, NDArray[np.void]]],
    motion: Sequence[NDArray[np.float64]] | None = None,
) -> NDArray[np.float64]:
    """Squared normalised distances from each track's first place: a static camera's errors.

    Parameters
    ----------
    published
        ``(stamp, features)`` of every frame.
    motion
        ``(3, 3)`` from the first frame to each: places are carried back by it.

    Returns
    -------
    ``(N,)`` of all observations but the first of a track; NaN where they cannot be said.
    """
    tracked = [rows[rows["track_id"] > 0] for _, rows in published]
    places = [columns(rows, "u", "v") for rows in tracked]
    if motion is not None:
        places = [carry_back(*both) for both in zip(places, motion, strict=True)]
    rows, pixels = np.concatenate(tracked), np.concatenate(places)
    _, first, track = np.unique(rows["track_id"], return_index=True, return_inverse=True)
    later = np.arange(len(rows)) != first[track]
    return mahalanobis(pixels[later] - pixels[first[track]][later], rows[later])
