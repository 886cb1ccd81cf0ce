"""All recordings in one table, one flat object and one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from d2_ros.batch.jobs import Ended, Job, figures_of
from d2_ros.evaluation.tables import Column, Tables

Figures = dict[str, float | int | str]

STATES: tuple[Column, ...] = (("status", "status", "{}"), ("seconds", "s", "{:.1f}"))


def rows_of(ends: Sequence[tuple[Job, Ended]]) -> dict[str, Figures]:
    """Per recording its status and time, and the figures that its verb has left."""
    rows: dict[str, Figures] = {}
    for job, end in ends:
        status = "done" if end.code == 0 else f"failed: {end.reason}"
        own = {key: value for key, value in figures_of(job).items() if key != "seconds"}
        rows[job.name] = {"status": status, "seconds": end.seconds, **own}
    return rows


def tables_of(rows: Mapping[str, Figures]) -> Tables:
    """Tables for all figures that are numbers: those of one method, ``METHOD.FIGURE``, in one.

    Parameters
    ----------
    rows
        As of :func:`rows_of`.
    """
    known = {key for key, _, _ in STATES}
    keys = dict.fromkeys(
        key
        for row in rows.values()
        for key, value in row.items()
        if key not in known and not isinstance(value, str)
    )
    counts = Counter(key.partition(".")[0] for key in keys if "." in key)
    tables: dict[str, list[Column]] = {"Recordings": list(STATES)}
    for key in keys:
        method, _, figure = key.partition(".")
        own = counts[method] > 1
        table = tables.setdefault(method if own else "Recordings", [])
        table.append((key, figure if own else key, "{:.4g}"))
    return tables


def flat(rows: Mapping[str, Figures]) -> Figures:
    """``RECORDING.figure`` of all, and how many there are and have failed."""
    failed = sum(row["status"] != "done" for row in rows.values())
    counts: Figures = {"recordings": len(rows), "done": len(rows) - failed, "failed": failed}
    return counts | {
        f"{name}.{key}": value for name, row in rows.items() for key, value in row.items()
    }
