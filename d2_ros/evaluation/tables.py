"""The tables of an evaluation: which figures they show, and printing them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from d2_ros.evaluation.report import Figures

Column = tuple[str, str, str]
"""Figure, heading, format."""

Tables = Mapping[str, Sequence[Column]]
"""Title -> columns."""

HOMOGRAPHY_COLUMNS: tuple[Column, ...] = (
    *((f"mma_{limit}px", f"MMA {limit} px", "{:.3f}") for limit in (1, 2, 3, 5, 10)),
    ("matches", "matches", "{:.0f}"),
    ("inlier_matches", "inliers", "{:.0f}"),
    ("correct_1px", "within 1 px", "{:.0f}"),
    ("correct_3px", "within 3 px", "{:.0f}"),
)
PAIR_COLUMNS: tuple[Column, ...] = (
    *((f"auc_{limit}deg", f"AUC {limit} deg", "{:.3f}") for limit in (5, 10, 20)),
    ("median_epipolar_px", "epip. px", "{:.3f}"),
    ("p90_epipolar_px", "p90 px", "{:.2f}"),
    ("share_below_1px", "below 1 px", "{:.1%}"),
    ("inlier_matches", "inliers", "{:.0f}"),
    ("rotation_error_deg", "rot. deg", "{:.3f}"),
    ("translation_error_deg", "transl. deg", "{:.2f}"),
)
AGREEMENT_COLUMNS: tuple[Column, ...] = (
    ("auc_5deg_from_klt", "AUC 5 deg", "{:.3f}"),
    ("rotation_from_klt_deg", "rot. deg", "{:.3f}"),
    ("translation_from_klt_deg", "transl. deg", "{:.2f}"),
)
TRACK_COLUMNS: tuple[Column, ...] = (
    ("mean_track_length", "mean length", "{:.1f}"),
    ("share_of_4_frames", "4 or more", "{:.1%}"),
    ("active_tracks", "active", "{:.0f}"),
    ("coverage", "coverage", "{:.1%}"),
    ("survival_blur", "survive blur", "{:.1%}"),
    ("survival_exposure", "survive light", "{:.1%}"),
    ("scatter_px", "scatter px", "{:.3f}"),
    ("mean_move_px", "mean move px", "{:.3f}"),
    ("scatter_common_motion_removed_px", "scatter beside common motion, px", "{:.3f}"),
    ("mean_move_common_motion_removed_px", "mean move beside it, px", "{:.3f}"),
    ("survival_first_frame", "alive at the end", "{:.1%}"),
)
ABLATION_COLUMNS: tuple[Column, ...] = (
    ("median_error_px", "median, px", "{:.4f}"),
    ("p90_error_px", "p90, px", "{:.3f}"),
    ("observations", "observations", "{:d}"),
    ("median_error_all_px", "all: median, px", "{:.4f}"),
    ("p90_error_all_px", "p90, px", "{:.3f}"),
)
STEREO_COLUMNS: tuple[Column, ...] = (
    ("matches", "matches", "{:d}"),
    *((f"share_{limit}px", f"share {limit} px", "{:.1%}") for limit in ("0.5", "1", "3")),
    *((f"within_{limit}px", f"within {limit} px", "{:d}") for limit in ("0.5", "1", "3")),
    ("median_within_3px_px", "median, px", "{:.3f}"),
)


def present(figures: Mapping[str, Figures], columns: Sequence[Column]) -> list[Column]:
    """Columns of which some method has the figure."""
    return [column for column in columns if any(column[0] in named for named in figures.values())]


def cells(figures: Mapping[str, Figures], columns: Sequence[Column]) -> list[list[str]]:
    """Rows of a table: method, then a text for each present column; none without a figure."""
    shown = present(figures, columns)
    return [
        [method, *(form.format(named[key]) if key in named else "-" for key, _, form in shown)]
        for method, named in figures.items()
        if any(key in named for key, _, _ in shown)
    ]


def show(figures: Mapping[str, Figures], tables: Tables) -> None:
    """Print the tables."""
    console = Console(width=None if sys.stdout.isatty() else 120)  # a log has room for columns
    for title, columns in tables.items():
        table = Table("", title=title)
        for _, heading, _ in present(figures, columns):
            table.add_column(heading, justify="right")
        for row in cells(figures, columns):
            table.add_row(*row)
        console.print(table)
