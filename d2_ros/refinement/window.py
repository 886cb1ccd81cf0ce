"""The keyframe window, refined as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from d2_ros.refinement.problem import Problem
from d2_ros.tracks.graph import join
from d2_ros.tracks.keyframe import Keyframe


def window_problem(window: Sequence[Keyframe]) -> Problem:
    """The graph of a window's tracks.

    The oldest observation of every track is its root and stays where it was published.
    """
    stamps = np.array([keyframe.stamp for keyframe in window])
    base = np.cumsum([0, *(len(keyframe.obs) for keyframe in window)])
    tracks = np.concatenate([keyframe.obs.tracks for keyframe in window])
    held = np.zeros(len(tracks), bool)
    held[np.unique(tracks, return_index=True)[1]] = True  # the first, so the oldest, of each
    edges = join([keyframe.edges for keyframe in window])
    edges = edges.select(np.isin(edges.stamp_from, stamps))
    return Problem(
        np.concatenate([keyframe.obs.pixels for keyframe in window]),
        held,
        nodes_of(window, base, edges.stamp_from, edges.track),
        nodes_of(window, base, edges.stamp_to, edges.track),
        edges,
    )


def moved(
    window: Sequence[Keyframe], solved: Sequence[Keyframe], pixels: NDArray[np.float64]
) -> list[Keyframe]:
    """A window's keyframes at their places by the solution of the same or an earlier window.

    Parameters
    ----------
    window
        As it is now.
    solved
        As it was when the problem was made.
    pixels
        ``(N, 2)`` solution of that problem, px.
    """
    ends = np.cumsum([len(keyframe.obs) for keyframe in solved])
    places = np.split(pixels, ends[:-1])
    found = {keyframe.stamp: part for keyframe, part in zip(solved, places, strict=True)}
    return [
        replace(keyframe, obs=replace(keyframe.obs, pixels=found[keyframe.stamp]))
        if keyframe.stamp in found
        else keyframe
        for keyframe in window
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
