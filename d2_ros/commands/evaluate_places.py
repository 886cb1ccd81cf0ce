"""``d2-ros evaluate places``: places known again, next to RootSIFT and ORB."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d2_ros.commands.common import (
    Json,
    Overrides,
    ParamsFile,
    SourceName,
    load_config,
    output_files,
    output_folder,
)
from d2_ros.commands.evaluate import Out, _tell, _watched
from d2_ros.errors import D2RosError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from d2_ros.sources.base import Frame, Source

    View = tuple[list[Frame], NDArray[np.float64]]


def register(group: typer.Typer) -> None:
    """Add the verb to ``evaluate``."""
    group.command("places")(places)


def places(
    source: SourceName,
    out: Out,
    query: Annotated[
        str | None,
        typer.Argument(
            metavar="[QUERY]", help="A source in the same world; default: SRC's second half."
        ),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Use every n-th frame.")] = 5,
    radius: Annotated[
        float, typer.Option(min=0.01, help="m: a place is the same from so near.")
    ] = 0.5,
    angle: Annotated[float, typer.Option(min=1, help="deg: and turned by no more.")] = 20.0,
    photographs: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of photographs for the peers' vocabularies, repeatable."),
    ] = None,
    params_file: ParamsFile = None,
    overrides: Overrides = None,
    json: Json = None,
) -> None:
    """Judge by true poses which frames of QUERY are known to show a place of SRC.

    Images longer than features.max_edge are reduced to that, for all methods.
    """
    from d2_ros.evaluation.pairs import flatten
    from d2_ros.evaluation.places import METHODS, Truth, ask_all, judge
    from d2_ros.evaluation.plots import precision_recall
    from d2_ros.evaluation.tables import PLACE_COLUMNS
    from d2_ros.places.recognition import RecognitionSettings
    from d2_ros.sources import open_source
    from d2_ros.sources.photographs import photographs as all_photographs

    config = load_config(params_file, overrides)
    photos = all_photographs(photographs or [])
    opened = open_source(source)
    edge = config.features.max_edge
    frames, poses = _view(opened, every, edge)
    if query is None:
        half = len(frames) // 2
        known, queries = (frames[:half], poses[:half]), (frames[half:], poses[half:])
    else:
        known, queries = (frames, poses), _view(open_source(query), every, edge)
    if not known[0] or not queries[0]:
        raise D2RosError(f"{len(frames)} frames of {source} are too few; give a smaller --every")
    output_files([json], source, query, params_file)
    folder = output_folder(out, source, query)
    answers = ask_all(known[0], queries[0], config, photos, _watched)
    truth = Truth(known[1], queries[1], radius, angle)
    judged = {name: judge(answers[name], truth) for name in METHODS}
    settings = RecognitionSettings()
    figures = {name: each.figures(settings.min_inliers) for name, each in judged.items()}
    everything = {
        "source": source,
        "query": query or "",
        "every": every,
        "radius_m": radius,
        "angle_deg": angle,
        "frames_of_the_map": len(known[0]),
        **flatten(figures),
    }
    plots = {
        "Precision and recall": precision_recall(
            {name: each.curve() for name, each in judged.items()}
        )
    }
    tables = {"Places known again": PLACE_COLUMNS}
    _tell(folder, f"Places {opened.name}", figures, tables, everything, plots, json)
    for name, meaning in METHODS.items():
        typer.echo(f"{name}: {meaning}")


def _view(source: Source, every: int, edge: int) -> View:
    """Every n-th frame whose pose is known, reduced, and the poses."""
    import numpy as np

    from d2_ros.benchmark.frames import resized
    from d2_ros.sources.truth import true_poses

    poses, frames, rows = true_poses(source), [], []
    for number, frame in enumerate(source):
        if number % every == 0 and np.isfinite(poses[number]).all():
            long = max(frame.image.shape[:2])
            frames.append(resized(frame, edge) if long > edge else frame)
            rows.append(number)
    return frames, poses[rows]
