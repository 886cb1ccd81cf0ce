"""The demo's figures on one page and as a table."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from d2_ros.evaluation.accuracy import TrackErrors

Figures = Mapping[str, float | int | str]

ROWS = (
    ("median error", "median_error_detected_px", "median_error_px", "{:.3f} px"),
    ("90th percentile of the error", "p90_error_detected_px", "p90_error_px", "{:.3f} px"),
    ("observations closer than 1 px", "share_detected_below_1px", "share_below_1px", "{:.1%}"),
)
"""Label, key before and key after refinement, format."""

EXPLANATION = (
    "The error of an observation is its distance to the place where the surface point seen at "
    "its track's first observation truly lies in that frame: refined positions against the "
    "refined first one, detected against the detected first one, as published at the time. "
    "First observations do not count."
)


def print_figures(figures: Figures) -> None:
    """Print accuracy before and after refinement."""
    table = Table(title="Position error of the published tracks against the exact ground truth")
    table.add_column("")
    table.add_column("D2-Net as detected", justify="right")
    table.add_column("after refinement", justify="right", style="bold")
    for label, before, after, form in ROWS:
        table.add_row(label, form.format(figures[before]), form.format(figures[after]))
    console = Console()
    console.print(table)
    console.print(_counts(figures))


def write_report(folder: Path, errors: TrackErrors, figures: Figures) -> None:
    """Write ``report.html``, one page that needs no other file but the overlays beside it."""
    rows = "".join(
        f"<tr><td>{label}</td><td>{form.format(figures[before])}</td>"
        f"<td><b>{form.format(figures[after])}</b></td></tr>"
        for label, before, after, form in ROWS
    )
    everything = "".join(
        f"<tr><td>{key}</td><td>{value}</td></tr>" for key, value in figures.items()
    )
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>d2_ros demo</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: .2em 1em; border-bottom: 1px solid #ccc; text-align: right; }}
td:first-child {{ text-align: left; }}
img {{ max-width: 100%; }}
</style>
<h1>d2_ros demo</h1>
<p>{_counts(figures)}</p>
<table><tr><th></th><th>D2-Net as detected</th><th>after refinement</th></tr>{rows}</table>
<p>{EXPLANATION}</p>
<img alt="Distribution of the error" src="data:image/png;base64,{_plot(errors)}">
<img alt="Tracks drawn on a frame" src="overlay.png">
<details><summary>All figures</summary><table>{everything}</table></details>
</html>
"""
    (folder / "report.html").write_text(page, encoding="utf-8")


def _counts(figures: Figures) -> str:
    return (
        f"{figures['observations']} observations of {figures['tracks']} tracks in "
        f"{figures['frames']} frames of {figures['size_px']}; the node took "
        f"{figures['node_s']:.0f} s, everything {figures['total_s']:.0f} s."
    )


def _plot(errors: TrackErrors) -> str:
    """Return the share of observations below each error, as a PNG in base64."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    share = np.linspace(0, 100, 1001)
    for values, label in (
        (errors.error_detected, "D2-Net as detected"),
        (errors.error, "after refinement"),
    ):
        axes.plot(np.maximum(np.percentile(values, share), 1e-3), share, label=label)
    axes.set(
        xscale="log",
        xlim=(0.01, 20),
        ylim=(0, 100),
        xlabel="position error, px",
        ylabel="observations with a smaller error, %",
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return base64.b64encode(picture.getvalue()).decode()
