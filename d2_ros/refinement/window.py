"""The keyframe window, refined as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from d2_ros.config import RefinementConfig
from d2_ros.refinement import multiview, sparse
from d2_ros.tracks.graph import join
from d2_ros.tracks.keyframe import Keyframe

SOLVERS = {"gtsam": multiview.refine_graph, "sparse": sparse.refine_graph}
"""Parameter ``refinement.solver`` -> what solves the graph."""


def refine_window(window: Sequence[Keyframe], config: RefinementConfig) -> list[Keyframe]:
    """Move all observations of the window's tracks into agreement.

    The oldest observation of every track is its root and stays where it was published.
    """
    stamps = np.array([keyframe.stamp for keyframe in window])
    base = np.cumsum([0, *(len(keyframe.obs) for keyframe in window)])
    tracks = np.concatenate([keyframe.obs.tracks for keyframe in window])
    held = np.zeros(len(tracks), bool)
    held[np.unique(tracks, return_index=True)[1]] = True  # the first, so the oldest, of each
    edges = join([keyframe.edges for keyframe in window])
    edges = edges.select(np.isin(edges.stamp_from, stamps))
    pixels = SOLVERS[config.solver](
        np.concatenate([keyframe.obs.pixels for keyframe in window]),
        held,
        nodes_of(window, base, edges.stamp_from, edges.track),
        nodes_of(window, base, edges.stamp_to, edges.track),
        edges,
        config,
    )
    return [
        replace(keyframe, obs=replace(keyframe.obs, pixels=part))
        for keyframe, part in zip(window, np.split(pixels, base[1:-1]), strict=True)
    ]


def nodes_of(
    window: Sequence[Keyframe],
    base: NDArray[np.int64],
    stamps: NDArray[np.int64],
    tracks: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Node of each edge end: the observation of its track in the keyframe of its stamp."""
    nodes = np.empty(len(stamps), np.int64)
    for number, keyframe in enumerate(window):
        rows = stamps == keyframe.stamp
        nodes[rows] = base[number] + keyframe.obs.rows_of(tracks[rows])
    return nodes
