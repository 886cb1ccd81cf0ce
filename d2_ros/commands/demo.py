"""``d2-ros demo``: the whole system on a synthetic sequence, judged by exact ground truth."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from d2_ros.commands.common import (
    Json,
    Overrides,
    ParamsFile,
    load_config,
    output_files,
    output_folder,
    write_json,
)
from d2_ros.files import write_file

if TYPE_CHECKING:
    from d2_ros.config import Config
    from d2_ros.sources import Source

FEATURES = "/d2_frontend/camera/features"


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("demo")(demo)


def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for everything that the demo leaves.")
    ] = Path("out"),
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Image size, 160x120 to 640x480.")
    ] = "640x480",
    frames: Annotated[int, typer.Option(help="Length of the sequence.")] = 60,
    params_file: ParamsFile = None,
    overrides: Overrides = None,
    json: Json = None,
) -> None:
    """Render a flight, play it to the node over DDS, record its topics, measure its accuracy."""
    from d2_ros.commands.demo_map import map_demo
    from d2_ros.commands.demo_video import write_overlays
    from d2_ros.evaluation.accuracy import accuracy_figures, track_errors
    from d2_ros.evaluation.decoding import read_features
    from d2_ros.evaluation.report import write_report
    from d2_ros.features.weights import load_weights
    from d2_ros.node import require_ros
    from d2_ros.sources import open_source

    config = _for_demo(load_config(params_file, overrides))
    require_ros()
    load_weights(config.weights)  # the node would only find out after minutes of rendering
    source: Any = open_source(f"synthetic:size={size},frames={frames}")
    output_files([json], params_file)
    folder = output_folder(out)
    started = time.perf_counter()
    _write_sequence(source, folder / "sequence.mcap")
    node_started = time.perf_counter()
    _run_node(config, folder)
    node_s = time.perf_counter() - node_started
    published = read_features(folder / "features.mcap", FEATURES)
    errors = track_errors(published, source)
    write_overlays(folder, published)
    mapped, trajectory = map_demo(folder / "features.mcap", source)
    figures: dict[str, float | int | str] = {
        **accuracy_figures(errors),
        **mapped,
        "node_s": node_s,
        "total_s": time.perf_counter() - started,
        "size_px": size,
    }
    write_report(
        folder,
        figures,
        errors,
        blur_frames=source.blur_frames,
        exposure_frames=source.exposure_frames,
        overlay=folder / "overlay.png",
        trajectory=trajectory,
    )
    if trajectory is not None:
        write_file(folder / "trajectory.png", trajectory)
    _print_figures(figures)
    if trajectory is None:
        typer.echo(f"no map could begin in {len(source)} frames; take more for a trajectory")
    else:
        error, placed = mapped["trajectory_error_m"], mapped["trajectory_frames"]
        typer.echo(f"the mapper places {placed} frames with an error of {error:.3g} m")
    pictures = ["overlay.mp4", *(["trajectory.png"] if trajectory else [])]
    typer.echo(f"Look at {' and '.join(str(folder / name) for name in ['report.html', *pictures])}")
    if json:
        write_json(json, figures)


def _for_demo(config: Config) -> Config:
    """Return `config` for a node that starts by itself and processes every frame."""
    from d2_ros.config import with_values

    fixed = {
        "cameras": ["camera"],
        "autostart": True,
        "input.qos": "replay",
        "input.compressed": False,
        "input.rectified": False,
    }
    return with_values(config, fixed)


def _write_sequence(source: Source, path: Path) -> None:
    """Write the sequence as the bag of a calibrated camera with known poses."""
    from d2_ros.commands.convert import Written, write_frames
    from d2_ros.sources.writer import BagWriter

    with BagWriter(path) as bag:
        write_frames(source, source.poses(), bag, Written())


def _run_node(config: Config, folder: Path) -> None:
    """Play the bag to the node in its own process and record what it publishes."""
    from rich.console import Console
    from rich.progress import track

    from d2_ros.config import parameters
    from d2_ros.node.process import NodeProcess, isolate
    from d2_ros.node.round_trip import open_round_trip, output_topics
    from d2_ros.sources import open_source
    from d2_ros.sources.writer import BagWriter

    console = Console(stderr=True)
    values = {parameter.name: parameter.default for parameter in parameters(config)}
    values["cameras"] = list(config.cameras)
    sequence = open_source(folder / "sequence.mcap")
    isolate()
    with (
        BagWriter(folder / "features.mcap") as writer,
        NodeProcess(values, folder) as node,
        open_round_trip(node, writer, output_topics(config.output)) as round_trip,
    ):
        with console.status(f"Starting d2_frontend (ROS_DOMAIN_ID {os.environ['ROS_DOMAIN_ID']})"):
            round_trip.connect()
        for _ in track(round_trip.play(sequence), "Processing", len(sequence) + 1, console=console):
            pass


def _print_figures(figures: Mapping[str, float | int | str]) -> None:
    """Print accuracy before and after refinement."""
    from rich.table import Table

    from d2_ros.evaluation.report import ROWS
    from d2_ros.evaluation.tables import table_console

    table = Table(title="Position error of the published tracks against the exact ground truth")
    table.add_column("")
    table.add_column("D2-Net as detected", justify="right")
    table.add_column("after refinement", justify="right", style="bold")
    for label, before, after, form in ROWS:
        table.add_row(label, form.format(figures[before]), form.format(figures[after]))
    table_console().print(table)
    typer.echo(
        f"{figures['observations']} observations of {figures['tracks']} tracks in "
        f"{figures['frames']} frames; the node took {figures['node_s']:.0f} s, "
        f"everything {figures['total_s']:.0f} s."
    )
