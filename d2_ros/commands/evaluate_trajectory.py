"""``d2-ros evaluate trajectory``: a mapper behind the front-end, and behind its peers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
from d2_ros.commands.evaluate import Out, _tell, _watched
from d2_ros.commands.map import load_mapper_config

MapperFile = Annotated[
    Path | None, typer.Option("--mapper-params-file", help="The mapper node's own YAML file.")
]
MapperOverrides = Annotated[
    list[str] | None,
    typer.Option("-m", metavar="NAME:=VALUE", help="One parameter of the mapper; repeatable."),
]


def register(group: typer.Typer) -> None:
    """Add the verb to ``evaluate``."""
    group.command("trajectory")(trajectory)


def trajectory(
    source: SourceName,
    out: Out,
    params_file: ParamsFile = None,
    overrides: Overrides = None,
    mapper_file: MapperFile = None,
    mapper_overrides: MapperOverrides = None,
    image_topic: ImageTopic = None,
    start: Start = 0,
    frames: Frames = None,
    json: Json = None,
) -> None:
    """Judge the trajectories of one mapper that reads refined, detected, KLT's and SIFT's tracks.

    SRC must have true poses. Trajectories are aligned with them, scale included.
    """
    import numpy as np

    from d2_ros.evaluation.mapping import METHODS, judge_mappers, run_mappers
    from d2_ros.evaluation.pairs import flatten
    from d2_ros.evaluation.tables import TRAJECTORY_COLUMNS
    from d2_ros.evaluation.trajectories import Path3D, draw
    from d2_ros.frontend import FrontEnd
    from d2_ros.sources import open_source
    from d2_ros.sources.cut import cut
    from d2_ros.sources.truth import true_poses

    config = load_config(params_file, overrides)
    mapping = load_mapper_config(mapper_file, mapper_overrides)
    used = cut(open_source(source, image_topic), start, frames)
    poses = true_poses(used)
    output_files([json], source, params_file, mapper_file)
    folder = output_folder(out, source)
    mappers, stamps = run_mappers(_watched(used, "Mapping"), FrontEnd(config), mapping)
    found = judge_mappers(mappers, Path3D(np.array(stamps, np.int64), poses[: len(stamps)]))
    everything = {"source": used.name, "start": start, **flatten(found.figures)}
    tables = {"Trajectories, after alignment with the truth": TRAJECTORY_COLUMNS}
    plots = {"Trajectories": draw(found.paths, "m")} if found.paths else {}
    _tell(folder, f"Mapping {used.name}", found.figures, tables, everything, plots, json)
    for name, meaning in METHODS.items():
        typer.echo(f"{name}: {meaning}")
