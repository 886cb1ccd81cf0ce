"""Plots of an evaluation: distributions of errors, one line per method, as PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from d2_ros.evaluation.pairs import PairResult
from d2_ros.evaluation.plots import legend_above, png
from d2_ros.evaluation.sequences import METHODS, SequenceResult
from d2_ros.evaluation.tracking import lengths

COLOURS = {
    "d2": "tab:blue",
    "d2_detected": "tab:orange",
    "d2_published": "tab:red",
    "sift": "tab:green",
    "orb": "tab:olive",
    "klt": "black",
    "klt150": "tab:gray",
}


def cumulative(
    errors: Mapping[str, Sequence[NDArray[np.float64]]],
    places: NDArray[Any],
    label: str,
    share_of: str,
) -> bytes:
    """Share of errors up to each place, mean over the groups of each method.

    Parameters
    ----------
    errors
        Per method, groups of errors; inf for failures.
    places
        ``(X,)`` of the horizontal axis.
    label, share_of
        Texts of the axes.
    """

    def draw(axes: Axes) -> None:
        for method, groups in errors.items():
            shares = [
                np.searchsorted(np.sort(group), places, side="right") / max(len(group), 1)
                for group in groups
            ]
            if shares:
                height = 100 * np.mean(shares, axis=0)
                axes.plot(places, height, color=COLOURS.get(method), label=method)
        axes.set(xlabel=label, ylabel=f"share of {share_of}, %", ylim=(0, 100))
        axes.set_xlim(places[0], places[-1])
        legend_above(axes)

    return png(draw)


def pose_curve(results: Mapping[str, Sequence[PairResult]]) -> bytes:
    """Share of pairs up to each pose error, of which the figures auc_* are the area."""
    errors = {
        name: [np.array([max(pair.rotation, pair.translation) for pair in found])]
        for name, found in results.items()
    }
    label = "pose error (larger of rotation and translation), degrees"
    return cumulative(errors, np.linspace(0, 20, 201), label, "pairs")


def sequence_plots(outcome: SequenceResult) -> dict[str, bytes]:
    """Titles and PNGs of a run; those of pairs only where there are any."""
    plots = {}
    results = {name: outcome.pairs[name] for name in METHODS if outcome.pairs[name]}
    if results:
        epipolar = {
            name: [np.concatenate([pair.epipolar for pair in found])]
            for name, found in results.items()
        }
        label = "distance from the true epipolar line, px"
        plots["Epipolar errors"] = cumulative(
            epipolar, np.linspace(0, 3, 121), label, "inlier matches"
        )
        plots["Pose errors"] = pose_curve(results)
    others = ("d2_detected", "d2_published")  # the very tracks of d2
    tracked = {name: lengths(outcome.tracks[name]) for name in METHODS if name not in others}
    return {**plots, "Track lengths": length_curve(tracked)}


def length_curve(tracked: Mapping[str, NDArray[np.int64]]) -> bytes:
    """Share of each method's tracks that are at least so long."""

    def draw(axes: Axes) -> None:
        for method, values in tracked.items():
            if len(values):
                places = np.arange(2, values.max() + 1)
                ordered = np.sort(values)
                share = 1 - np.searchsorted(ordered, places, side="left") / len(ordered)
                axes.plot(places, 100 * share, color=COLOURS.get(method), label=method)
        axes.set(xlabel="length, frames", ylabel="share of tracks at least so long, %")
        axes.set(ylim=(0, 100))
        legend_above(axes)

    return png(draw)


def group_curve(
    figures: Mapping[str, Mapping[str, Any]],
    series: Mapping[str, Sequence[tuple[str, str]]],
    figure: str,
    label: str,
) -> bytes:
    """A figure of each method over groups of pairs that get harder, side by side.

    Parameters
    ----------
    figures
        Per method; the figure of a group is ``GROUP_FIGURE``.
    series
        Title -> groups, each with the text below it.
    figure, label
        Name of the figure, and the text of its axis.
    """

    def draw(axes: Axes) -> None:
        ticks: list[int] = []
        texts: list[str] = []
        for title, groups in series.items():
            places = len(ticks) + len(axes.texts) + np.arange(len(groups))
            for method, named in figures.items():
                values = [named[f"{group}_{figure}"] for group, _ in groups]
                new = None if axes.texts else method  # one entry of the legend per method
                axes.plot(places, values, ".-", color=COLOURS.get(method), label=new)
            ticks += places.tolist()
            texts += [text for _, text in groups]
            middle = float(places.mean())
            axes.text(middle, -0.12, title, ha="center", va="top",
                      transform=axes.get_xaxis_transform())  # fmt: skip
        axes.set_xticks(ticks, texts)
        axes.set(ylabel=label)
        axes.set_ylim(bottom=0)
        legend_above(axes)

    return png(draw)
