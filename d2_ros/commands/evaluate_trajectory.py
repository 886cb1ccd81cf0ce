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
from d2_ros.errors import D2RosError

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
    right: Annotated[
        str | None,
        typer.Option(metavar="SRC", help="The right camera, where SRC is the left one of a pair."),
    ] = None,
    right_image_topic: Annotated[
        str | None, typer.Option(help="The image topic of --right, where that bag has several.")
    ] = None,
    loops: Annotated[
        bool, typer.Option("--loops", help="Also with the places that are known again.")
    ] = False,
    json: Json = None,
) -> None:
    """Judge the trajectories of one mapper that reads refined, detected, KLT's and SIFT's tracks.

    SRC must have true poses. Trajectories are aligned with them, scale included; those of a stereo
    pair (--right) are in metres, and keep their scale.
    """
    from dataclasses import replace

    import numpy as np

    from d2_ros.commands.replay import make_keeper
    from d2_ros.commands.replay_right import RightCamera
    from d2_ros.evaluation.mapping import LOOPS_METHOD, METHODS, judge_mappers, run_mappers
    from d2_ros.evaluation.pairs import flatten
    from d2_ros.evaluation.tables import TRAJECTORY_COLUMNS
    from d2_ros.evaluation.trajectories import Path3D, draw
    from d2_ros.frontend import FrontEnd
    from d2_ros.sources import open_source
    from d2_ros.sources.cut import cut
    from d2_ros.sources.pairs import pair_pose
    from d2_ros.sources.truth import true_poses

    config = load_config(params_file, overrides)
    mapping = load_mapper_config(mapper_file, mapper_overrides)
    whole = open_source(source, image_topic)
    used = cut(whole, start, frames)
    poses = true_poses(used)
    output_files([json], source, params_file, mapper_file)
    folder = output_folder(out, source)
    pair = None
    if right is not None:
        other = open_source(right, right_image_topic)
        T_left_right = pair_pose(whole, other)
        if T_left_right is None:
            raise D2RosError(
                f"how far {other.name} is from {whole.name} is not known; give two cameras of one "
                "recording whose calibration says where they are"
            )
        config = replace(config, input=replace(config.input, stereo=True))
    frontend = FrontEnd(config)
    if right is not None:
        pair = RightCamera(other, FrontEnd(config, frontend.extractor), T_left_right)
    keeper = make_keeper(config) if loops else None
    mappers, stamps = run_mappers(_watched(used, "Mapping"), frontend, mapping, pair, keeper)
    found = judge_mappers(mappers, Path3D(np.array(stamps, np.int64), poses[: len(stamps)]))
    everything = {"source": used.name, "start": start, **flatten(found.figures)}
    tables = {"Trajectories, after alignment with the truth": TRAJECTORY_COLUMNS}
    plots = {"Trajectories": draw(found.paths, "m")} if found.paths else {}
    _tell(folder, f"Mapping {used.name}", found.figures, tables, everything, plots, json)
    told = {LOOPS_METHOD: "as d2, corrected by the places that are known again"} if loops else {}
    for name, meaning in (METHODS | told).items():
        typer.echo(f"{name}: {meaning}")
