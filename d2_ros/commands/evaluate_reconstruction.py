"""``d2-ros evaluate reconstruction``: what COLMAP makes of the tracks, next to SIFT and KLT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from d2_ros.commands.common import (
    Frames,
    ImageTopic,
    Json,
    Overrides,
    ParamsFile,
    SourceName,
    Start,
    load_config,
    output_files,
    output_folder,
)
from d2_ros.commands.evaluate import Out, _tell, _until_damage, _watched
from d2_ros.errors import D2RosError

if TYPE_CHECKING:
    from d2_ros.evaluation.tracking import Figures


def register(group: typer.Typer) -> None:
    """Add the verb to ``evaluate``."""
    group.command("reconstruction")(reconstruction)


def reconstruction(
    source: SourceName,
    out: Out,
    params_file: ParamsFile = None,
    overrides: Overrides = None,
    image_topic: ImageTopic = None,
    start: Start = 0,
    frames: Frames = None,
    json: Json = None,
) -> None:
    """Triangulate the tracks and matches of SRC at its true poses, then adjust (with COLMAP)."""
    import numpy as np

    from d2_ros.evaluation.curves import cumulative
    from d2_ros.evaluation.pairs import flatten
    from d2_ros.evaluation.reconstruction import COLUMNS, graphs, reconstruct, record, true_poses
    from d2_ros.export.colmap import load_pycolmap
    from d2_ros.frontend import FrontEnd
    from d2_ros.sources import open_source
    from d2_ros.sources.cut import cut
    from d2_ros.sources.truth import known_poses

    load_pycolmap()  # before the work of an hour, not after it
    config = load_config(params_file, overrides)
    opened = open_source(source, image_topic)
    used = cut(opened, start, frames)
    poses = true_poses(known_poses(used), opened.name)
    output_files([json], source, params_file)
    folder = output_folder(out, source)
    damage: list[D2RosError] = []
    seen = record(_until_damage(_watched(used, "Evaluating"), damage), FrontEnd(config))
    if damage and len(seen.frames) < 2:
        raise damage[0]
    results = {
        name: reconstruct(graph, poses[: len(seen.frames)])
        for name, graph in _watched(graphs(seen).items(), "Reconstructing")
    }
    figures = {name: result.figures for name, result in results.items()}
    errors = {name: [result.errors] for name, result in results.items()}
    label = "mean reprojection error of a point at the true poses, px"
    plot = cumulative(errors, np.linspace(0, 4, 161), label, "points")
    everything: Figures = {"source": opened.name, "start": start, "frames": len(seen.frames)}
    everything |= flatten(figures)
    title = f"Reconstruction {opened.name}"
    tables = {"Points and cameras": COLUMNS}
    _tell(folder, title, figures, tables, everything, {"Point errors": plot}, json)
    if damage:
        raise damage[0]
