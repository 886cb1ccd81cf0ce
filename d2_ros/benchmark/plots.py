"""Plots of a benchmark, as PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from d2_ros.benchmark.live import LiveRun
from d2_ros.evaluation.plots import legend_above, png


def stage_bars(figures: Mapping[str, Mapping[str, float]]) -> bytes:
    """Median of every stage with its 95th percentile and its floor, on a logarithmic axis."""

    def draw(axes: Axes) -> None:
        names = list(figures)[::-1]
        middle = np.array([figures[name]["p50_ms"] for name in names])
        high = np.array([figures[name]["p95_ms"] for name in names])
        axes.barh(names, middle, color="tab:blue", alpha=0.8, label="median")
        axes.plot(high, names, "|", color="black", markersize=9, label="95th percentile")
        floored = [name for name in names if "floor_ms" in figures[name]]
        floors = [figures[name]["floor_ms"] for name in floored]
        if floored:
            axes.plot(floors, floored, "d", color="tab:red", label="floor")
        axes.set(xscale="log", xlabel="time per frame, ms")
        axes.tick_params(axis="y", labelsize=8)
        legend_above(axes)

    return png(draw)


def frame_times(times: Mapping[str, NDArray[np.float64]]) -> bytes:
    """The network and the whole, frame after frame."""

    def draw(axes: Axes) -> None:
        for name in ("total", "network", "rest"):
            axes.plot(times[name], linewidth=1, label=name)
        axes.set(xlabel="frame", ylabel="time, ms", ylim=(0, None))
        legend_above(axes)

    return png(draw)


def latencies(runs: Mapping[str, LiveRun]) -> bytes:
    """Time from when a frame was due to its result, of every processed frame."""

    def draw(axes: Axes) -> None:
        for name, run in runs.items():
            due = np.array([result.due for result in run.results])
            finished = np.array([result.finished for result in run.results])
            axes.plot(due - run.start, (finished - due) * 1e3, ".", markersize=3, label=name)
        axes.set(xlabel="time, s", ylabel="latency, ms", yscale="log")
        legend_above(axes)

    return png(draw)


def scaling_curve(kind: str, values: Sequence[int], runs: Sequence[Mapping[str, float]]) -> bytes:
    """Network, the rest and the whole over one quantity."""

    def draw(axes: Axes) -> None:
        for name in ("total", "network", "rest"):
            axes.plot(values, [run[f"{name}_p50_ms"] for run in runs], "o-", label=name)
        axes.set(xlabel=kind, ylabel="median time per frame, ms", ylim=(0, None), xticks=values)
        legend_above(axes)

    return png(draw)
