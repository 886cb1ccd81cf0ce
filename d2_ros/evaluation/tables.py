"""The tables of an evaluation: which figures they show, and printing them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from d2_ros.evaluation.report import Figures

Column = tuple[str, str, str]
"""Figure, heading, format."""

_UNLIMITED = 10_000  # columns

Tables = Mapping[str, Sequence[Column]]
"""Title -> columns."""

PAIR_COLUMNS: tuple[Column, ...] = (
    *((f"auc_{limit}deg", f"AUC {limit} deg", "{:.3f}") for limit in (5, 10, 20)),
    ("median_epipolar_px", "epip. px", "{:.3f}"),
    ("p90_epipolar_px", "p90 px", "{:.2f}"),
    ("share_below_1px", "below 1 px", "{:.1%}"),
    ("inlier_matches", "inliers", "{:.0f}"),
    ("rotation_error_deg", "rot. deg", "{:.3f}"),
    ("translation_error_deg", "transl. deg", "{:.2f}"),
)
REFERENCE_POSE_COLUMNS: tuple[Column, ...] = (
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
PLACE_COLUMNS: tuple[Column, ...] = (
    ("revisits", "revisits", "{:d}"),
    ("candidate_recall", "among 5 candidates", "{:.1%}"),
    ("recall_at_full_precision", "recall at 100 % precision", "{:.1%}"),
    ("average_precision", "average precision", "{:.3f}"),
    ("recall", "told: recall", "{:.1%}"),
    ("false_revisits", "false", "{:d}"),
    ("rotation_error_deg", "rot. deg", "{:.2f}"),
    ("direction_error_deg", "direction deg", "{:.2f}"),
    ("direction_within_5deg", "within 5 deg", "{:.1%}"),
)
TRAJECTORY_COLUMNS: tuple[Column, ...] = (
    ("absolute_error_m", "absolute, m", "{:.3g}"),
    ("relative_error_m", "relative, m", "{:.3g}"),
    ("relative_error_deg", "relative, deg", "{:.3g}"),
    ("live.absolute_error_m", "live: absolute, m", "{:.3g}"),
    ("live.relative_error_m", "live: relative, m", "{:.3g}"),
    ("live.relative_error_deg", "live: relative, deg", "{:.3g}"),
    ("frames_placed", "frames placed", "{:d}"),
    ("lost", "lost", "{:d}"),
    ("segments", "segments", "{:d}"),
    ("loops", "loops", "{:d}"),
    ("frame.p50_ms", "a frame, ms", "{:.1f}"),
    ("keyframe.p50_ms", "a keyframe, ms", "{:.1f}"),
)
PUBLISHED_COLUMNS: tuple[Column, ...] = tuple(
    (f"published_{key.replace('inlier_', '')}", heading.replace("inliers", "published"), form)
    for key, heading, form in PAIR_COLUMNS
)


def _numbers(raw: str, verified: str, matches: str, right: str) -> tuple[Column, ...]:
    """Number of matches and of right ones in every match set, from the names of the figures."""
    match_sets = {"raw": raw, "verified": verified, "published": "published_", "guided": "guided_"}
    columns: list[Column] = []
    for match_set, prefix in match_sets.items():
        number = matches if match_set == "verified" else "matches"
        columns.append((f"{prefix}{number}", match_set, "{:.0f}"))
        columns += [
            (f"{prefix}{right}_{limit}px", f"{match_set} {limit} px", "{:.0f}") for limit in (1, 3)
        ]
    return tuple(columns)


HOMOGRAPHY_TABLES: Tables = {
    "Share of the matches that are right, mean over pairs": (
        *((f"mma_{limit}px", f"raw {limit} px", "{:.3f}") for limit in (1, 2, 3, 5, 10)),
        *((f"verified_mma_{limit}px", f"verified {limit} px", "{:.3f}") for limit in (1, 3)),
    ),
    "Number of matches and of right ones, mean over pairs": _numbers(
        "", "verified_", "matches", "correct"
    ),
}
PAIR_TABLES: Tables = {
    "Pairs of images, verified matches": PAIR_COLUMNS,
    "Pairs of images, published matches": PUBLISHED_COLUMNS,
    "Share of the matches near their true epipolar line": (
        *((f"raw_share_below_{limit}px", f"raw {limit} px", "{:.3f}") for limit in (1, 3)),
        *((f"share_below_{limit}px", f"verified {limit} px", "{:.3f}") for limit in (1, 3)),
    ),
    "Number of matches and of those near their line, mean over pairs": _numbers(
        "raw_", "", "inlier_matches", "correct"
    ),
}
STEREO_TABLES: Tables = {
    "Share of the matches with a true place that are right": (
        *((f"share_{limit}px", f"raw {limit} px", "{:.1%}") for limit in ("0.5", "1", "3")),
        *((f"verified_share_{limit}px", f"verified {limit} px", "{:.1%}") for limit in (0.5, 1, 3)),
        ("verified_median_within_3px_px", "verified median, px", "{:.3f}"),
    ),
    "Number of matches with a true place and of right ones": _numbers(
        "", "verified_", "matches", "within"
    ),
}


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
    console = table_console()
    for title, columns in tables.items():
        table = Table(title=title)
        table.add_column("", overflow="fold")
        for _, heading, _ in present(figures, columns):
            table.add_column(heading, justify="right", overflow="fold")
        for row in cells(figures, columns):
            table.add_row(*row)
        console.print(table)


def table_console() -> Console:
    """Where tables go: as wide as the terminal, or in a file as wide as they are."""
    return Console(width=None if sys.stdout.isatty() else _UNLIMITED)
