"""The front-end's own positions as methods: refined, detected, and D2-Net as published."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from d2_ros.evaluation.peers import Points, Sparse, join, orb, root_sift
from d2_ros.records import FrameResult, columns, split_stamp

STAGES = ("d2", "d2_detected", "d2_published")

PUBLISHED_OFFSET = 2.0
"""px of the network's image: D2-Net puts the cell that lies at 4 i + 3.5 at 4 i + 1.5."""


def as_published(
    detected: NDArray[np.float64], shape: tuple[int, ...], max_edge: int
) -> NDArray[np.float64]:
    """Move detected positions to where the published D2-Net puts them, raw px."""
    return detected - PUBLISHED_OFFSET * max(1.0, max(shape[:2]) / max_edge)


def stage_points(
    first: NDArray[np.void],
    second: FrameResult,
    first_stamp: int,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    max_edge: int,
) -> dict[str, Points]:
    """Published matches of two frames at every stage.

    The inlier rows with the first frame, where that was a keyframe of the window, and every
    track that both frames see.

    Parameters
    ----------
    first
        Features of the first frame.
    second
        Result of the second.
    first_stamp
        Stamp of the first.
    shapes
        Of the two images.
    max_edge
        Parameter ``features.max_edge``.
    """
    rows = second.matches
    sec, nanosec = split_stamp(first_stamp)
    with_first = (rows["keyframe_sec"] == sec) & (rows["keyframe_nanosec"] == nanosec)
    rows = rows[with_first & (rows["inlier"] > 0)]
    near, far = join(first["track_id"].astype(np.int64), second.features["track_id"].astype(int))
    new = ~(np.isin(near, rows["keyframe_index"]) | np.isin(far, rows["index"]))
    before = np.concatenate([rows["keyframe_index"].astype(np.int64), near[new]])
    after = np.concatenate([rows["index"].astype(np.int64), far[new]])
    ours, theirs = first[before], second.features[after]
    start = columns(ours, "u", "v")
    # A match row says where the window has meanwhile put the keyframe's keypoint.
    start[: len(rows)] = columns(rows, "keyframe_u", "keyframe_v")
    detected = columns(ours, "u_detected", "v_detected")
    detected_there = columns(theirs, "u_detected", "v_detected")
    return {
        "d2": (start, columns(theirs, "u", "v")),
        "d2_detected": (detected, detected_there),
        "d2_published": (
            as_published(detected, shapes[0], max_edge),
            as_published(detected_there, shapes[1], max_edge),
        ),
    }


PEERS: dict[str, Callable[[NDArray[np.uint8], int], Sparse]] = {"sift": root_sift, "orb": orb}
"""Peers that detect and describe every image by itself."""
