"""Rows of the topics -> shapes to draw: trails, ellipses, colours."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.records import columns

LONG_TRACK = 64
"""Track length (frames) at the far end of the colours' scale, logarithmic as the overlay's."""

CHI2_95 = 5.991
"""Squared radius, in standard deviations, of the ellipse that 95 % of the errors are in."""

_CORNERS = 16
_PALETTE = cv2.applyColorMap(
    np.linspace(40, 225, 32).astype(np.uint8)[:, None], cv2.COLORMAP_TURBO
)[:, 0, ::-1]


def colours(lengths: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """``(N, 3)`` RGB of tracks by their lengths: blue is new, red is long."""
    share = np.log2(np.clip(lengths, 1, LONG_TRACK)) / np.log2(LONG_TRACK)
    return np.asarray(_PALETTE[np.rint(share * (len(_PALETTE) - 1)).astype(int)])


def trails(frames: Sequence[NDArray[np.void]]) -> list[NDArray[np.float64]]:
    """Places of the newest frame's tracks over the last frames.

    Parameters
    ----------
    frames
        Rows of :data:`d2_ros.records.FEATURES`, oldest first.

    Returns
    -------
    ``(K, 2)`` px for each row of the newest frame that has a track, in their order; oldest first,
    K at least 1.
    """
    wanted = frames[-1]["track_id"][frames[-1]["track_id"] > 0]
    rows = np.concatenate(frames)
    age = np.repeat(np.arange(len(frames)), [len(frame) for frame in frames])
    order = np.lexsort((age, rows["track_id"]))
    ids, pixels = rows["track_id"][order], columns(rows, "u", "v")[order]
    starts, ends = np.searchsorted(ids, wanted), np.searchsorted(ids, wanted, side="right")
    return [pixels[start:end] for start, end in zip(starts, ends, strict=True)]


def ellipses(rows: NDArray[np.void], scale: float) -> NDArray[np.float64]:
    """Outlines of the 95 % ellipses of the published covariances, around the published places.

    Parameters
    ----------
    rows
        ``(N,)`` of :data:`d2_ros.records.FEATURES`.
    scale
        How many times as large they are drawn.

    Returns
    -------
    ``(N, 17, 2)`` px, the last corner on the first.
    """
    uu, uv, vv = columns(rows, "sigma_uu", "sigma_uv", "sigma_vv").T
    variance, axes = np.linalg.eigh(np.stack([[uu, uv], [uv, vv]]).transpose(2, 0, 1))
    radius = scale * np.sqrt(CHI2_95 * np.maximum(variance, 0))
    turn = np.linspace(0, 2 * np.pi, _CORNERS + 1)
    circle = np.stack([np.cos(turn), np.sin(turn)])
    return columns(rows, "u", "v")[:, None] + ((axes * radius[:, None]) @ circle).transpose(0, 2, 1)
