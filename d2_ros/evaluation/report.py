"""The accuracy of a run on the synthetic sequence, on one page."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from d2_ros.errors import D2RosError
from d2_ros.evaluation.accuracy import TrackErrors
from d2_ros.evaluation.plots import (
    covariance_honesty,
    error_histogram,
    error_over_time,
    track_lengths,
)

Figures = Mapping[str, float | int | str]

ROWS = (
    ("median error", "median_error_detected_px", "median_error_px", "{:.3f} px"),
    ("90th percentile of the error", "p90_error_detected_px", "p90_error_px", "{:.3f} px"),
    ("observations within 1 px", "share_detected_below_1px", "share_below_1px", "{:.1%}"),
)
"""Label, key before and key after refinement, format."""

EXPLANATION = (
    "The error of an observation is its distance to the place where the surface point seen at "
    "its track's first observation truly lies in that frame: refined positions against the "
    "refined first one, detected against the detected first one, as published at the time. "
    "First observations do not count; observations of points that are hidden in truth do."
)

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { padding: .2em 1em; border-bottom: 1px solid #ccc; text-align: right; }
td:first-child { text-align: left; }
figure { margin: 2em 0; } img { max-width: 100%; }
"""


def write_report(
    folder: Path,
    figures: Figures,
    errors: TrackErrors,
    *,
    blur_frames: range = range(0),
    exposure_frames: range = range(0),
    overlay: Path | None = None,
    trajectory: bytes | None = None,
) -> None:
    """Write ``report.html``, which needs no other file, and ``report.md``.

    Parameters
    ----------
    folder
        An existing folder.
    figures
        Of :func:`d2_ros.evaluation.accuracy.accuracy_figures`, and any more to be listed.
    errors
        What the figures sum up.
    blur_frames, exposure_frames
        Stretches of the sequence to mark, frame indices.
    overlay
        A PNG with the tracks drawn on a frame.
    trajectory
        A PNG of the trajectory that a mapper makes of the tracks.

    Raises
    ------
    D2RosError
        If a file cannot be read or written.
    """
    try:
        pictures = [("Tracks drawn on a frame", overlay.read_bytes())] if overlay else []
        pictures += _plots(errors, blur_frames, exposure_frames)
        if trajectory is not None:
            pictures.append(("Trajectory of the mapper, against the truth", trajectory))
        (folder / "report.html").write_text(_page(figures, pictures), "utf-8", "xmlcharrefreplace")
        (folder / "report.md").write_text(_markdown(figures), "utf-8", "backslashreplace")
    except OSError as error:
        raise D2RosError(f"no report without {error.filename}: {error.strerror}") from None


def _plots(
    errors: TrackErrors, blur_frames: range, exposure_frames: range
) -> list[tuple[str, bytes]]:
    """Titles and PNGs."""
    plots = [
        ("Error of every observation", error_histogram(errors)),
        ("Error over time", error_over_time(errors, blur_frames, exposure_frames)),
        ("Length of the tracks", track_lengths(errors)),
    ]
    if np.isfinite(errors.chi2).any():
        plots.append(("Honesty of the published covariances", covariance_honesty(errors)))
    return plots


def _page(figures: Figures, pictures: list[tuple[str, bytes]]) -> str:
    rows = "".join(
        f"<tr><td>{label}<td>{form.format(figures[before])}<td><b>{form.format(figures[after])}</b>"
        for label, before, after, form in ROWS
    )
    images = "".join(
        f'<figure><h2>{title}</h2><img alt="{title}" '
        f'src="data:image/png;base64,{base64.b64encode(image).decode()}"></figure>'
        for title, image in pictures
    )
    everything = "".join(
        f"<tr><td>{html.escape(key)}<td>{html.escape(_short(value))}"
        for key, value in figures.items()
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>d2_ros: accuracy</title><style>{STYLE}</style>
<h1>Accuracy against exact ground truth</h1>
<p>{_counts(figures)}</p>
<table><tr><th><th>D2-Net as detected<th>after refinement{rows}</table>
<p>{EXPLANATION}</p>
{images}
<h2>All figures</h2><table>{everything}</table>
</html>
"""


def _markdown(figures: Figures) -> str:
    rows = [
        f"| {label} | {form.format(figures[before])} | {form.format(figures[after])} |"
        for label, before, after, form in ROWS
    ]
    everything = [f"- `{key}`: {_short(value)}" for key, value in figures.items()]
    lines = [
        "# Accuracy against exact ground truth",
        "",
        _counts(figures),
        "",
        "| | D2-Net as detected | after refinement |",
        "|---|---:|---:|",
        *rows,
        "",
        EXPLANATION,
        "",
        "## All figures",
        "",
        *everything,
    ]
    return "\n".join(lines) + "\n"


def _counts(figures: Figures) -> str:
    return (
        f"{figures['observations']} observations of {figures['tracks']} tracks "
        f"in {figures['frames']} frames."
    )


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
