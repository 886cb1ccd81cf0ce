"""``d2-ros benchmark``: where the time of a frame goes, and how far that is from the floor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from d2_ros.commands.common import (
    ImageTopic,
    Json,
    Overrides,
    ParamsFile,
    load_config,
    output_files,
    output_folder,
    write_json,
)
from d2_ros.errors import D2RosError

if TYPE_CHECKING:
    from d2_ros.benchmark.measure import Channel, Measurement, Writer
    from d2_ros.config import Config
    from d2_ros.features.extractor import Extractor
    from d2_ros.sources import Frame, Source


Named = Mapping[str, Mapping[str, float]]
"""Stage, or step of a scaling table -> figure -> value."""


class Scaling(str, Enum):
    """What a scaling table can be made over."""

    size = "size"
    keypoints = "keypoints"
    window = "window"
    cameras = "cameras"


STEPS = {
    Scaling.size: (160, 320, 480, 640),
    Scaling.keypoints: (250, 500, 1000, 2000, 4000),
    Scaling.window: (3, 5, 7, 11, 15),
    Scaling.cameras: (1, 2, 3, 4),
}
"""The values of each table: long edge of the image in px, most keypoints, keyframes, cameras."""

LABELS = {
    Scaling.size: "long edge of the image, px",
    Scaling.keypoints: "features.max_keypoints",
    Scaling.window: "window.size",
    Scaling.cameras: "cameras",
}


@dataclass(frozen=True)
class Run:
    """What to measure: parameters, cameras, and the images' long edge in px if not their own."""

    config: Config
    cameras: int = 1
    edge: int | None = None


@dataclass(frozen=True)
class Bench:
    """What all runs of one command share."""

    source: Source
    extractor: Extractor
    frames: int
    warmup: int

    def measure(
        self, run: Run, title: str, settled: bool = True, others: Mapping[str, Writer] | None = None
    ) -> Measurement:
        """Measure one run on frames from the start of the source.

        `others` take the results of every frame too, timed as stages of their names.
        """
        from rich.console import Console
        from rich.progress import track

        from d2_ros.benchmark.frames import endless, resized
        from d2_ros.benchmark.machine import settler
        from d2_ros.benchmark.measure import measure

        frames: Iterator[Frame] = endless(self.source)
        if run.edge is not None:
            edge = run.edge
            frames = (resized(frame, edge) for frame in frames)
        return measure(
            frames,
            [self._channel(run.config, others or {}) for _ in range(run.cameras)],
            run.config,
            self.warmup,
            self.frames,
            settler(self.extractor.device) if settled else None,
            lambda numbers: track(numbers, title, console=Console(stderr=True)),
        )

    def _channel(self, config: Config, others: Mapping[str, Writer]) -> Channel:
        from d2_ros.benchmark.measure import Channel
        from d2_ros.commands.replay import ResultWriter
        from d2_ros.frontend import FrontEnd

        writer = ResultWriter(Serialiser(), config.output)
        return Channel(FrontEnd(config, self.extractor), {"serialisation": writer, **others})


class Serialiser:
    """Makes a bag's bytes of every message and drops them."""

    def write(self, topic: str, message: Any) -> None:
        from d2_ros.sources.messages import TYPES

        bytes(TYPES.serialize_cdr(message, message.__msgtype__))

    def flush(self) -> None:
        """Nothing is kept."""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("benchmark")(benchmark)


def benchmark(
    source: Annotated[
        str,
        typer.Argument(metavar="[SRC]", help="Any source; one that is too short starts over."),
    ] = "synthetic",
    frames: Annotated[
        int, typer.Option(min=1, help="Frames measured; with --live: played, over and over.")
    ] = 200,
    warmup: Annotated[
        int,
        typer.Option(
            min=1,
            help="Frames before, at least until the window is full; with --live: seconds from the "
            "first result on.",
        ),
    ] = 10,
    live: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=1000,
            metavar="RATE",
            help="Play at so many frames per second, next to KLT.",
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=86_400, help="With --live: how long is measured.", show_default="60"
        ),
    ] = None,
    scaling: Annotated[
        list[Scaling] | None, typer.Option(help="Also measure over this; repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for a page and its plots.")
    ] = None,
    params_file: ParamsFile = None,
    overrides: Overrides = None,
    image_topic: ImageTopic = None,
    json: Json = None,
) -> None:
    """Time every stage per frame, next to the network and to the floors of this machine.

    ``total`` is from the decoded image to the messages' bytes, ``rest`` is that without the
    network. Beside them stand decoding and, where ROS is there, publishing to topics that nobody
    listens to. On a GPU every stage waits for the device at its end, and a second run without that
    gives ``unsettled_total_p50_ms``. The floors are what a matrix product and a copy, measured at
    the start, would allow.

    With --live instead: frames at a camera's rate, the newest wins, as in the live node; what is
    processed, how late, and what it costs, next to KLT.
    """
    from d2_ros.benchmark.figures import run_figures, stage_figures, with_rest
    from d2_ros.benchmark.floors import floors_ms
    from d2_ros.benchmark.frames import endless
    from d2_ros.benchmark.machine import measure_machine
    from d2_ros.benchmark.plots import frame_times, scaling_curve, stage_bars
    from d2_ros.features.extractor import Extractor
    from d2_ros.sources import open_source

    config = load_config(params_file, overrides)
    if live is None and seconds is not None:
        raise D2RosError(f"--seconds {seconds:g} is for --live RATE; give both, or neither")
    if live is not None and scaling:
        raise D2RosError("--live makes no scaling tables; leave --scaling out")
    opened = open_source(source, image_topic)
    output_files([json], source, params_file)
    folder = output_folder(out, source) if out else None
    if live is not None:
        from d2_ros.commands.benchmark_live import Plan, benchmark_live

        plan = Plan(live, 60.0 if seconds is None else seconds, warmup, frames)
        benchmark_live(opened, config, plan, folder, json)
        return
    height, width = next(endless(opened)).image.shape[:2]
    extractor = Extractor(config)
    machine = measure_machine(extractor.device, extractor.dtype)
    bench = Bench(opened, extractor, frames, warmup)

    with publisher(config) as others:
        measured = bench.measure(Run(config), "Measuring", others=others)
    floors = floors_ms(config, machine, (width, height), measured.means["keypoints"])
    stages = stage_figures(measured, floors)
    figures: dict[str, float | int | str] = {
        "source": opened.name,
        "machine": machine.name,
        "runtime": extractor.plan.runtime,
        "precision": extractor.plan.precision,
        "size_px": f"{width}x{height}",
        "matrix_gmac_per_s": machine.macs_per_s * 1e-9,
        "copy_gb_per_s": machine.bytes_per_s * 1e-9,
        **run_figures(measured, 1),
    }
    if extractor.device.type == "cuda":
        free = bench.measure(Run(config), "Measuring without waiting", settled=False)
        figures["unsettled_total_p50_ms"] = run_figures(free, 1)["total_p50_ms"]
    plots = {"Stages": stage_bars(stages), "Frames": frame_times(with_rest(measured))}
    tables: dict[str, dict[str, float]] = {}
    for kind in dict.fromkeys(scaling or []):
        runs = _scale(bench, config, kind)
        tables |= {f"{kind.value} {value}": run for value, run in runs.items()}
        label = LABELS[kind]
        plots[f"Over {kind.value}"] = scaling_curve(label, list(runs), list(runs.values()))
    everything = {**figures, **_flat(stages), **_flat(tables)}
    _tell(figures, stages, tables, floors)
    if folder:
        _write_page(folder, everything, stages, tables, plots)
    if json:
        write_json(json, everything)


@contextmanager
def publisher(config: Config) -> Iterator[dict[str, Writer]]:
    """The stage ``publishing``, where ROS is there."""
    from d2_ros.node import require_ros

    try:
        require_ros()
    except D2RosError as error:
        typer.echo(f"Publishing is not timed: {error}", err=True)
        yield {}
        return
    from d2_ros.node.publishing import Publishing

    with Publishing(config.output) as publishing:
        yield {"publishing": publishing}


def _scale(bench: Bench, config: Config, kind: Scaling) -> dict[int, dict[str, float]]:
    """Figures of a run at every step of one table."""
    from d2_ros.benchmark.figures import run_figures

    runs = {}
    for value in STEPS[kind]:
        run = _run_at(config, kind, value)
        measured = bench.measure(run, f"Measuring {kind.value} {value}")
        runs[value] = run_figures(measured, run.cameras)
    return runs


def _run_at(config: Config, kind: Scaling, value: int) -> Run:
    from d2_ros.config import with_values

    if kind is Scaling.size:
        return Run(config, edge=value)
    if kind is Scaling.cameras:
        return Run(config, cameras=value)
    return Run(with_values(config, {LABELS[kind]: value}))


def _flat(named: Named) -> dict[str, float]:
    return {
        f"{name.replace(' ', '.')}.{key}": value
        for name, figures in named.items()
        for key, value in figures.items()
    }


def _tell(
    figures: Mapping[str, float | int | str],
    stages: Named,
    tables: Named,
    floors: Mapping[str, float],
) -> None:
    """Print the tables and what stands in none of them."""
    from d2_ros.benchmark.figures import SCALING_COLUMNS, STAGE_COLUMNS
    from d2_ros.evaluation.tables import show

    show(stages, {"Milliseconds per frame": STAGE_COLUMNS})
    if tables:
        show(tables, {"Scaling": SCALING_COLUMNS})
    for line in _summary(figures, floors):
        typer.echo(line)


def _summary(figures: Mapping[str, Any], floors: Mapping[str, float]) -> Sequence[str]:
    lines = [
        f"{figures['machine']}, {figures['runtime']} {figures['precision']}, {figures['size_px']}: "
        f"{figures['frames_per_second']:.2f} frames/s over {figures['frames']:.0f} frames, "
        f"{figures['keypoints']:.0f} keypoints, {figures['matches']:.0f} matches, "
        f"{figures['keyframes']:.0%} keyframes",
        f"All but the network takes {figures['rest_over_network']:.3f} of the network's time",
        f"Matrix product {figures['matrix_gmac_per_s']:.0f} GMAC/s, copy "
        f"{figures['copy_gb_per_s']:.1f} GB/s: the network's floor is {floors['network']:.1f} ms, "
        f"its median {figures['network_p50_ms'] / floors['network']:.2f} times that",
        "Memory, MiB: "
        + ", ".join(f"{key[:-4]} {figures[key]:.0f}" for key in figures if key.endswith("_mib")),
    ]
    if "energy_per_frame_j" in figures:
        lines.append(f"Energy {figures['energy_per_frame_j']:.2f} J per frame")
    return lines


def _write_page(
    folder: Path,
    everything: Mapping[str, float | int | str],
    stages: Named,
    tables: Named,
    plots: Mapping[str, bytes],
) -> None:
    from d2_ros.benchmark.figures import SCALING_COLUMNS, STAGE_COLUMNS
    from d2_ros.evaluation.page import write_page

    shown = {"Milliseconds per frame": STAGE_COLUMNS, "Scaling": SCALING_COLUMNS}
    columns = shown if tables else {"Milliseconds per frame": STAGE_COLUMNS}
    write_page(folder, "Benchmark", {**stages, **tables}, columns, everything, plots)
    typer.echo(f"Look at {folder / 'report.html'}")
