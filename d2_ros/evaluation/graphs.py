"""Window graphs, recorded so that other schemes than ours can place the same observations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2_ros.refinement.window import nodes_of
from d2_ros.tracks.graph import Edges, join
from d2_ros.tracks.keyframe import Keyframe


@dataclass(frozen=True)
class WindowGraph:
    """The tracks of a keyframe window: N observations, oldest keyframe first, and E edges.

    Attributes
    ----------
    stamp
        ``(N,)`` int64 stamp of each observation's keyframe, ascending.
    track
        ``(N,)`` int64 track ids, each once per keyframe.
    detected, pixels
        ``(N, 2)`` float64 places as detected and as published by the window solution, px.
    first, second
        ``(E,)`` int64 observations that each edge joins; the first is the older one.
    edges
        The aligned matches, first -> second.
    similarity
        ``(E,)`` float64 cosine of the two descriptors.
    """

    stamp: NDArray[np.int64]
    track: NDArray[np.int64]
    detected: NDArray[np.float64]
    pixels: NDArray[np.float64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    edges: Edges
    similarity: NDArray[np.float64]

    def __post_init__(self) -> None:
        if np.any(self.track[self.first] != self.track[self.second]):
            raise ValueError("an edge must join two observations of one track")
        if np.any(self.first >= self.second):
            raise ValueError("an edge must lead to a later observation")

    @property
    def roots(self) -> NDArray[np.int64]:
        """``(N,)`` the oldest observation of each one's track."""
        _, first, track = np.unique(self.track, return_index=True, return_inverse=True)
        return first[track]


def record(window: Sequence[Keyframe]) -> WindowGraph:
    """Take the graph of a window out of its keyframes (oldest first)."""
    base = np.cumsum([0, *(len(keyframe.obs) for keyframe in window)])
    stamps = np.array([keyframe.stamp for keyframe in window], np.int64)
    tracks = np.concatenate([keyframe.obs.tracks for keyframe in window])
    edges = join([keyframe.edges for keyframe in window])
    edges = edges.select(np.isin(edges.stamp_from, stamps) & np.isin(edges.track, tracks))
    first, second = (
        nodes_of(window, base, ends, edges.track) for ends in (edges.stamp_from, edges.stamp_to)
    )
    descriptors = np.concatenate([k.obs.descriptors.float().cpu().numpy() for k in window])
    kept = np.flatnonzero(tracks > 0)
    return WindowGraph(
        stamp=np.repeat(stamps, np.diff(base))[kept],
        track=tracks[kept],
        detected=np.concatenate([keyframe.obs.detected for keyframe in window])[kept],
        pixels=np.concatenate([keyframe.obs.pixels for keyframe in window])[kept],
        first=np.searchsorted(kept, first),
        second=np.searchsorted(kept, second),
        edges=edges,
        similarity=np.sum(descriptors[first] * descriptors[second], axis=1, dtype=np.float64),
    )


def two_view(graph: WindowGraph, *, newest: bool = False) -> NDArray[np.float64]:
    """Place every observation by a single alignment, ``(N, 2)`` px.

    That with the oldest observation of its track in the window, which stays where it was
    published; where that alignment has failed, the one with the newest keyframe that has one,
    from where that keyframe's observation has been placed. NaN where there is none.

    Parameters
    ----------
    newest
        Always take the newest keyframe: a chain, as trackers from frame to frame make it.
    """
    places = np.full(graph.pixels.shape, np.nan)
    root = graph.roots
    own = root == np.arange(len(root))
    places[own] = graph.pixels[own]
    other = (graph.first != root[graph.second]) & (not newest)
    order = np.lexsort([-graph.first, other, graph.second])  # the best edge of each comes first
    targets, begin = np.unique(graph.second[order], return_index=True)
    chosen = order[begin]
    for stamp in np.unique(graph.stamp):
        here = chosen[graph.stamp[targets] == stamp]
        edges = graph.edges.select(here)
        offset = places[graph.first[here]] - edges.centre
        places[graph.second[here]] = edges.pixels + np.einsum("eij,ej->ei", edges.affine, offset)
    return places
