"""Picture of the tracks on the image (no ROS in here)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError
from d2_ros.records import FrameResult, split_stamp

TRAIL_FRAMES = 16
"""Frames a trail reaches back."""

LONG_TRACK = 64
"""Track length (frames) at the far end of the colour scale, which is logarithmic."""

MIN_EDGE = 960
"""Smaller images are enlarged by a whole factor to at least this long edge (px)."""

JPEG_QUALITY = 90

_SHIFT = 4  # OpenCV draws at 1/16 px
_WHITE = (255, 255, 255)
_UNTRACKED = (150, 150, 150)
_PALETTE = cv2.applyColorMap(
    np.linspace(40, 225, 32).astype(np.uint8)[:, None], cv2.COLORMAP_TURBO
)[:, 0]


def draw_overlay(
    image: NDArray[Any], past: Sequence[NDArray[np.void]], result: FrameResult
) -> NDArray[np.uint8]:
    """Draw trails coloured by track length and each move from detected to refined position.

    Parameters
    ----------
    image
        ``(H, W)`` gray or ``(H, W, 3)`` BGR, uint8 or uint16.
    past
        ``records.FEATURES`` rows of the last frames, oldest first; the last ones are those of
        `result`.
    result
        The frame's result.

    Returns
    -------
    ``(sH, sW, 3)`` BGR uint8, enlarged by the whole factor s that makes small images legible.
    """
    scale = -(-MIN_EDGE // max(image.shape[:2])) if max(image.shape[:2]) < MIN_EDGE else 1
    canvas = _background(image, scale)
    pen = max(1, round(max(canvas.shape) / 1000))
    tracked = result.features[result.features["track_id"] > 0]
    alone = result.features[result.features["track_id"] == 0]
    _draw_trails(canvas, past, tracked, scale, pen)
    for point in _fixed(_pixels(alone), scale):
        cv2.circle(canvas, point, pen << _SHIFT, _UNTRACKED, -1, cv2.LINE_AA, _SHIFT)
    _draw_points(canvas, tracked, scale, pen)
    _draw_legend(canvas, result, len(tracked))
    return canvas


def encode_jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the bytes of a JPEG file.

    Raises
    ------
    D2RosError
        If OpenCV cannot encode the image.
    """
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise D2RosError(f"OpenCV cannot encode an image of shape {image.shape} as JPEG")
    return data


def _background(image: NDArray[Any], scale: int) -> NDArray[np.uint8]:
    """Return the image as darkened gray BGR, so that the colours of the tracks stand out."""
    if image.dtype == np.uint16:
        top = max(float(np.percentile(image, 99.5)), 1.0)
        image = np.clip(image * (255.0 / top), 0, 255).astype(np.uint8)
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image
    gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    dimmed = cv2.convertScaleAbs(gray, alpha=0.7)
    return np.asarray(cv2.cvtColor(dimmed, cv2.COLOR_GRAY2BGR), np.uint8)


def _pixels(rows: NDArray[np.void], suffix: str = "") -> NDArray[np.float32]:
    return np.column_stack([rows["u" + suffix], rows["v" + suffix]])


def _fixed(pixels: NDArray[np.float32], scale: int) -> NDArray[np.int32]:
    """Return positions in the enlarged image, in OpenCV's fixed-point numbers."""
    enlarged = (pixels + 0.5) * scale - 0.5
    return np.rint(enlarged * (1 << _SHIFT)).astype(np.int32)


def _colour_index(lengths: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return the place in the palette for track lengths in frames."""
    share = np.log(np.maximum(lengths, 1)) / np.log(LONG_TRACK)
    return np.rint(np.clip(share, 0, 1) * (len(_PALETTE) - 1)).astype(np.int64)


def _colour(index: int, brightness: float = 1.0) -> tuple[float, ...]:
    return tuple(float(value) * brightness for value in _PALETTE[index])


def _draw_trails(
    canvas: NDArray[np.uint8],
    past: Sequence[NDArray[np.void]],
    tracked: NDArray[np.void],
    scale: int,
    pen: int,
) -> None:
    """Draw, oldest first, one segment per track and pair of frames in a row."""
    colour_of = dict(zip(tracked["track_id"], _colour_index(tracked["track_length"]), strict=True))
    for place, (before, after) in enumerate(pairwise(past)):
        ids, first, second = np.intersect1d(
            before["track_id"], after["track_id"], return_indices=True
        )
        colours = np.array([colour_of.get(track, -1) for track in ids], np.int64)
        segments = np.stack(
            [_fixed(_pixels(before[first]), scale), _fixed(_pixels(after[second]), scale)], axis=1
        )
        brightness = 0.45 + 0.55 * (place + 1) / len(past)
        for index in np.unique(colours[colours >= 0]):
            cv2.polylines(
                canvas,
                list(segments[colours == index]),
                False,
                _colour(index, brightness),
                pen,
                cv2.LINE_AA,
                _SHIFT,
            )


def _draw_points(
    canvas: NDArray[np.uint8], tracked: NDArray[np.void], scale: int, pen: int
) -> None:
    """Draw each tracked keypoint and a white line from where it was detected."""
    places = _fixed(_pixels(tracked), scale)
    detected = _fixed(_pixels(tracked, "_detected"), scale)
    radius = (2 * pen + 1) << _SHIFT
    for place, start, index, moved in zip(
        places, detected, _colour_index(tracked["track_length"]), tracked["refined"], strict=True
    ):
        cv2.circle(canvas, place, radius, _colour(index), -1, cv2.LINE_AA, _SHIFT)
        if moved:
            cv2.line(canvas, start, place, _WHITE, pen, cv2.LINE_AA, _SHIFT)


def _draw_legend(canvas: NDArray[np.uint8], result: FrameResult, tracked: int) -> None:
    """Write time and counts, and the colour scale, on a dark strip at the bottom."""
    size = max(0.45, canvas.shape[1] / 2100)
    line = round(36 * size)
    height, width = canvas.shape[:2]
    strip = canvas[height - 2 * line :]
    strip[:] = strip // 4
    sec, nanosec = split_stamp(result.stamp)
    refined = int(np.count_nonzero(result.features["refined"]))
    inliers = int(np.count_nonzero(result.matches["inlier"]))
    counts = (
        f"{sec}.{nanosec:09d} s{'  keyframe' if result.is_keyframe else ''}    "
        f"{len(result.features)} keypoints, {tracked} tracked, {refined} refined    "
        f"{inliers} of {len(result.matches)} matches verified"
    )
    _write(strip, counts, (line // 2, round(0.8 * line)), size)
    label = "track length 1"
    (label_width, _), _ = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    left = line + label_width
    bar = cv2.resize(_PALETTE[None], (width // 8, line // 2), interpolation=cv2.INTER_LINEAR)
    top = round(1.25 * line)
    strip[top : top + bar.shape[0], left : left + bar.shape[1]] = bar
    baseline = round(1.65 * line)
    _write(strip, label, (line // 2, baseline), size)
    after = left + bar.shape[1] + line // 2
    _write(
        strip, f"{LONG_TRACK} frames    white: from detected to refined", (after, baseline), size
    )


def _write(strip: NDArray[np.uint8], text: str, place: tuple[int, int], size: float) -> None:
    cv2.putText(strip, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, _WHITE, 1, cv2.LINE_AA)
