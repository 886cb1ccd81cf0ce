"""Measuring the links of a frame: T_ij of every keypoint with every keyframe of its track."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from d2_ros.config import AlignmentConfig
from d2_ros.matching.alignment import Warps, align
from d2_ros.matching.motion import predict
from d2_ros.matching.neighbours import Matches
from d2_ros.matching.patches import Pyramid
from d2_ros.tracks.graph import Edges, no_edges
from d2_ros.tracks.window import Keyframe

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Verified matches with one keyframe: rows of the frame, rows of the keyframe."""


def measure_links(
    links: Matches,
    tracks: NDArray[np.int64],
    detected: NDArray[np.float64],
    pyramid: Pyramid,
    stamp: int,
    window: Sequence[Keyframe],
    pairs: Sequence[Pairs],
    config: AlignmentConfig,
) -> tuple[NDArray[np.int64], Edges]:
    """Align the patches of tracked links.

    Alignment starts from the detected place and from the one that the verified matches
    around it predict, with their local affine motion, whichever looks more alike.

    Parameters
    ----------
    links
        Links of one track each, ordered by keyframe.
    tracks, detected
        ``(N,)``, ``(N, 2)`` of the frame's keypoints.
    pyramid, stamp
        Of the frame.
    pairs
        Verified matches with each keyframe.

    Returns
    -------
    link
        ``(E,)`` the link of each edge.
    edges
        The accepted measurements.
    """
    if len(links) == 0:
        return np.empty(0, np.int64), no_edges()
    centres = np.empty((len(links), 2))
    seen = detected[links.index]
    affine = np.tile(np.eye(2), (len(links), 1, 1))
    guess = seen.copy()
    for number, (keyframe, (rows, keyframe_rows)) in enumerate(zip(window, pairs, strict=True)):
        here = links.keyframe == number
        centres[here] = keyframe.pixels[links.keyframe_index[here]]
        warps = predict(centres[here], keyframe.pixels[keyframe_rows], detected[rows])
        if warps is not None:
            guess[here], affine[here] = warps.pixels, warps.affine
    measured = align(
        [keyframe.pyramid for keyframe in window],
        pyramid,
        links.keyframe,
        centres,
        [Warps(seen, affine), Warps(guess, affine)],
        config,
    )
    accepted = np.flatnonzero(measured.accepted)
    stamps = np.array([keyframe.stamp for keyframe in window])
    edges = Edges(
        track=tracks[links.index],
        stamp_from=stamps[links.keyframe],
        stamp_to=np.full(len(links), stamp, np.int64),
        centre=centres,
        pixels=measured.warps.pixels,
        affine=measured.warps.affine,
        covariance=measured.covariance,
    )
    return accepted, edges.select(accepted)
