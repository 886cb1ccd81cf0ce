"""Plots of the accuracy of tracks, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from d2_ros.evaluation.accuracy import TrackErrors

_DETECTED, _REFINED = "tab:orange", "tab:blue"


def png(draw: Callable[[Axes], None]) -> bytes:
    """Draw on fresh axes; no window system is touched."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()


def precision_recall(
    curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> bytes:
    """Precision over recall, of every method: (recall, precision)."""

    def draw(axes: Axes) -> None:
        for method, (recall, precision) in curves.items():
            axes.plot(100 * recall, 100 * precision, marker=".", label=method)
        axes.set(xlabel="recall, %", ylabel="precision, %", xlim=(0, 101), ylim=(0, 103))
        legend_above(axes)

    return png(draw)


def error_histogram(errors: TrackErrors) -> bytes:
    """Distribution of the errors before and after refinement, on a logarithmic axis."""

    def draw(axes: Axes) -> None:
        bins = np.geomspace(0.003, 30, 61)
        series = (
            ("detected", errors.error_detected, _DETECTED),
            ("refined", errors.error, _REFINED),
        )
        for label, values, colour in series:
            median = float(np.median(values))
            weights = np.full(len(values), 100 / len(values))
            clipped = np.clip(values, bins[0], bins[-1])
            text = f"{label}, median {median:.3g} px"
            axes.hist(clipped, list(bins), weights=weights, color=colour, alpha=0.6, label=text)
            axes.axvline(median, color=colour, linewidth=1.5)
        axes.set(xscale="log", xlabel="position error, px", ylabel="share of observations, %")
        legend_above(axes)

    return png(draw)


def error_over_time(errors: TrackErrors, blur_frames: range, exposure_frames: range) -> bytes:
    """Median and 90th percentile of the error in every frame."""

    def draw(axes: Axes) -> None:
        frames, middle, high = _by_frame(errors.frame, errors.error)
        _, middle_detected, _ = _by_frame(errors.frame, errors.error_detected)
        for stretch, colour, name in (
            (blur_frames, "tab:gray", "motion blur"),
            (exposure_frames, "gold", "exposure change"),
        ):
            if len(stretch):
                start, stop = stretch.start - 0.5, stretch.stop - 0.5
                axes.axvspan(start, stop, color=colour, alpha=0.25, linewidth=0, label=name)
        axes.plot(frames, middle_detected, color=_DETECTED, label="detected, median")
        axes.plot(frames, middle, color=_REFINED, label="refined, median")
        axes.plot(frames, high, color=_REFINED, linestyle=":", label="refined, 90th percentile")
        axes.set(yscale="log", xlabel="frame", ylabel="position error, px")
        legend_above(axes)

    return png(draw)


def track_lengths(errors: TrackErrors) -> bytes:
    """Histogram of the number of observations per track."""

    def draw(axes: Axes) -> None:
        longest = int(errors.lengths.max())
        width = max(1, int(np.ceil(longest / 45)))
        bins = np.arange(1, longest + width + 1, width) - 0.5
        axes.hist(errors.lengths, list(bins), color=_REFINED, alpha=0.8)
        mean = float(errors.lengths.mean())
        axes.axvline(mean, color="black", linewidth=1.2, label=f"mean {mean:.1f}")
        axes.set(yscale="log", xlabel="observations of a track", ylabel="tracks")
        legend_above(axes)

    return png(draw)


def covariance_honesty(errors: TrackErrors) -> bytes:
    """Distribution of errors in units of their published uncertainty, next to the ideal one."""

    def draw(axes: Axes) -> None:
        chi = np.sqrt(errors.chi2[np.isfinite(errors.chi2)])
        bins = np.linspace(0, 6, 49)
        weights = np.full(len(chi), 1 / len(chi) / np.diff(bins)[0])
        label = f"refined ({np.mean(chi > bins[-1]):.1%} lie further right)"
        axes.hist(chi, list(bins), weights=weights, color=_REFINED, alpha=0.6, label=label)
        ideal = np.linspace(0, 6, 301)
        density = ideal * np.exp(-(ideal**2) / 2)
        axes.plot(ideal, density, color="black", label="if the covariances were exact")
        axes.set(xlabel="error in standard deviations", ylabel="density")
        legend_above(axes)

    return png(draw)


def legend_above(axes: Axes) -> None:
    columns = len(axes.get_legend_handles_labels()[0])
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=min(columns, 3), frameon=False)


def _by_frame(
    frame: NDArray[np.int64], error: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Frames that have errors, and their median and 90th percentile there."""
    frames = np.unique(frame)
    groups = [error[frame == number] for number in frames]
    middle = np.array([np.median(group) for group in groups])
    high = np.array([np.percentile(group, 90) for group in groups])
    return frames, middle, high
