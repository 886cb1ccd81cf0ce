"""One page of an evaluation: a table of the methods, plots, all figures."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from d2_ros.errors import D2RosError
from d2_ros.evaluation.report import STYLE, Figures
from d2_ros.evaluation.tables import Column, Tables, cells, present


def write_page(
    folder: Path,
    title: str,
    figures: Mapping[str, Figures],
    tables: Tables,
    everything: Figures,
    plots: Mapping[str, bytes],
) -> None:
    """Write ``report.html``, which needs no other file, and every plot as a PNG.

    Parameters
    ----------
    folder
        An existing folder.
    title
        Of the page.
    figures
        Per method.
    tables
        Title -> columns.
    everything
        All figures, flat, listed at the end.
    plots
        Title -> PNG.

    Raises
    ------
    D2RosError
        If a file cannot be written.
    """
    tabled = "".join(_table(name, figures, columns) for name, columns in tables.items())
    images = "".join(
        f'<figure><h2>{html.escape(name)}</h2><img alt="{html.escape(name)}" '
        f'src="data:image/png;base64,{base64.b64encode(image).decode()}"></figure>'
        for name, image in plots.items()
    )
    listed = "".join(
        f"<tr><td>{html.escape(key)}<td>{html.escape(_short(value))}"
        for key, value in everything.items()
    )
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>d2_ros: {html.escape(title)}</title>
<style>{STYLE}</style>
<h1>{html.escape(title)}</h1>
{tabled}
{images}
<h2>All figures</h2><table>{listed}</table>
</html>
"""
    try:
        (folder / "report.html").write_text(page, "utf-8", "xmlcharrefreplace")
        for name, image in plots.items():
            (folder / f"{name.lower().replace(' ', '_')}.png").write_bytes(image)
    except OSError as error:
        raise D2RosError(f"cannot write {error.filename}: {error.strerror}") from None


def _table(name: str, figures: Mapping[str, Figures], columns: Sequence[Column]) -> str:
    headings = "".join(f"<th>{html.escape(head)}" for _, head, _ in present(figures, columns))
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row)
        for row in cells(figures, columns)
    )
    return f"<h2>{html.escape(name)}</h2><table><tr><th>{headings}{rows}</table>"


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
