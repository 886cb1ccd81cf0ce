"""What each stage adds: the same window graphs, placed by one alignment, by ours, as published.

Every window that a keyframe publishes is judged as a whole by the exact ground truth of the
synthetic sequence. The error of an observation is its distance to the place where the surface
point seen at its track's oldest observation in the window truly lies, each scheme held against
its own place of that oldest observation. Judged are the later observations that some
alignment joins to an earlier one of the window, the same ones for every scheme.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.config import Config
from d2_ros.evaluation.accuracy import GroundTruth, true_places
from d2_ros.evaluation.graphs import WindowGraph, record, two_view
from d2_ros.evaluation.paper import refine_as_published
from d2_ros.evaluation.tracking import Figures
from d2_ros.processor import Processor
from d2_ros.records import FrameResult
from d2_ros.tracks.keyframe import Keyframe

LONG = 4
"""Observations in the window from which on a track counts as long."""


class Windowed(Processor, Protocol):
    """What is needed of :class:`d2_ros.frontend.FrontEnd`."""

    @property
    def window(self) -> tuple[Keyframe, ...]:
        """The keyframes, oldest first."""
        ...


class Recorder:
    """A front-end that leaves the graph of every window it has solved in `graphs`."""

    def __init__(self, frontend: Windowed) -> None:
        self.config: Config = frontend.config
        self.graphs: list[WindowGraph] = []
        self._frontend = frontend

    def process(self, image: NDArray[Any], stamp: int, camera: Camera | None = None) -> FrameResult:
        """Process one frame."""
        result = self._frontend.process(image, stamp, camera)
        if result.is_keyframe:
            self.graphs.append(record(self._frontend.window))
        return result

    def reset(self) -> None:
        """Drop the keyframe window."""
        self._frontend.reset()


def place(graph: WindowGraph) -> dict[str, NDArray[np.float64]]:
    """Places of all observations by every scheme, ``(N, 2)`` px."""
    return {
        "detected": graph.detected,
        "two_view": two_view(graph),
        "two_view_newest": two_view(graph, newest=True),
        "multi_view": graph.pixels,
        "multi_view_paper": refine_as_published(graph),
    }


def ablation_figures(graphs: Sequence[WindowGraph], source: GroundTruth) -> dict[str, Figures]:
    """Judge every scheme on the same observations of the same windows.

    Returns
    -------
    Per scheme, named ``ablation.SCHEME``: ``median_error_px``, ``p90_error_px`` and
    ``observations`` of tracks with at least :data:`LONG` observations in their window, and the
    same of all tracks, ``median_error_all_px`` and so on; none where there is nothing to judge.
    """
    errors: dict[str, list[NDArray[np.float64]]] = {}
    long: list[NDArray[np.bool_]] = []
    for graph in graphs:
        judged, observed = _judged(graph)
        long.append(observed[judged] >= LONG)
        for name, places in place(graph).items():
            errors.setdefault(name, []).append(_errors(graph, places, source)[judged])
    if not long:
        return {}
    return _sum_up({name: np.concatenate(e) for name, e in errors.items()}, np.concatenate(long))


def _sum_up(
    errors: Mapping[str, NDArray[np.float64]], long: NDArray[np.bool_]
) -> dict[str, Figures]:
    known = np.isfinite(np.stack(list(errors.values()))).all(axis=0)
    figures: dict[str, Figures] = {}
    for name, error in errors.items():
        named = figures.setdefault(f"ablation.{name}", {})
        for word, rows in (("", known & long), ("all_", known)):
            if rows.any():
                named[f"median_error_{word}px"] = float(np.median(error[rows]))
                named[f"p90_error_{word}px"] = float(np.percentile(error[rows], 90))
                named[f"{word}observations"] = int(rows.sum())
    return figures


def _judged(graph: WindowGraph) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Observations to judge, ``(N,)``, and how many joined ones each track has, ``(N,)``."""
    joined = np.isfinite(two_view(graph)[:, 0])
    _, track = np.unique(graph.track, return_inverse=True)
    observed = np.bincount(track, joined).astype(np.int64)
    return joined & (graph.roots != np.arange(len(joined))), observed[track]


def _errors(
    graph: WindowGraph, places: NDArray[np.float64], source: GroundTruth
) -> NDArray[np.float64]:
    index = {stamp: number for number, stamp in enumerate(source.stamps)}
    numbers = np.array([index[stamp] for stamp in graph.stamp.tolist()], np.int64)
    true, _ = true_places(source, numbers, places, graph.roots)
    return np.asarray(np.linalg.norm(places - true, axis=1))
