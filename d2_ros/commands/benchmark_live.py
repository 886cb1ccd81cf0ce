"""``d2-ros benchmark --live``: a camera's frames into the live path, and into KLT beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import typer

from d2_ros.commands.common import write_json
from d2_ros.errors import D2RosError

if TYPE_CHECKING:
    from d2_ros.benchmark.live import LiveRun, Process
    from d2_ros.benchmark.measure import Writer
    from d2_ros.config import Config
    from d2_ros.features.extractor import Extractor
    from d2_ros.frontend import FrontEnd
    from d2_ros.sources import Frame, Source


@dataclass(frozen=True)
class Plan:
    """Frames per second, seconds measured, seconds of warm-up, frames of the source."""

    rate: float
    seconds: float
    warmup: float
    frames: int

    def __post_init__(self) -> None:
        for option, value in (("--live", self.rate), ("--seconds", self.seconds)):
            if not math.isfinite(value):
                raise D2RosError(f"{option} is {value}; it must be a positive number")


def benchmark_live(
    source: Source, config: Config, plan: Plan, folder: Path | None, json: Path | None
) -> None:
    """Measure the front-end, then KLT; after Ctrl-C and SIGTERM tell what there is.

    Raises
    ------
    D2RosError
        If the parameters are not those of a live node, or a frame cannot be used.
    """
    from d2_ros.benchmark.live import live_figures, of_one_size
    from d2_ros.benchmark.machine import device_name
    from d2_ros.features.extractor import Extractor
    from d2_ros.tracks.policy import settled

    if config.input.qos != "live":
        raise D2RosError(
            f"parameter input.qos is {config.input.qos!r}, but --live plays to a live node; "
            "leave it at live"
        )
    frames = of_one_size(islice(source, plan.frames))
    extractor = Extractor(config)
    height, width = frames[0].image.shape[:2]
    common: dict[str, float | int | str] = {
        "source": source.name,
        "machine": device_name(extractor.device),
        "runtime": extractor.plan.runtime,
        "precision": extractor.plan.precision,
        "size_px": f"{width}x{height}",
        "extract": settled(config, True, extractor.device.type).features.extract,
        "rate_hz": plan.rate,
        "warmup_s": plan.warmup,
    }
    runs: dict[str, LiveRun] = {}
    ending = None
    for name, open_process in (
        ("d2", partial(_frontend, config, extractor)),
        ("klt", _klt),
    ):
        with open_process() as process:
            run = _measure(name, frames, plan, process, config)
        if run.offered:
            runs[name] = run
        if run.ending is not None:
            ending = run.ending
            break
    rows = {name: live_figures(run) for name, run in runs.items()}
    if rows:
        _tell(common, rows, runs, folder, json)
    if ending is not None:
        known = " and ".join(f"{row['seconds']:.1f} s of {name}" for name, row in rows.items())
        typer.echo(f"d2-ros: interrupted; measured until then: {known or 'nothing'}", err=True)
        raise ending


def _measure(
    name: str, frames: list[Frame], plan: Plan, process: Process, config: Config
) -> LiveRun:
    from rich.console import Console
    from rich.progress import track

    from d2_ros.benchmark.live import play

    typer.echo(f"{name}: warming up, {plan.warmup:g} s from the first result on", err=True)
    return play(
        frames,
        plan.rate,
        plan.seconds,
        plan.warmup,
        process,
        config.input.max_age,
        lambda numbers: track(numbers, f"{name}: measuring", console=Console(stderr=True)),
    )


@contextmanager
def _frontend(config: Config, extractor: Extractor) -> Iterator[Process]:
    """The front-end with its workers as the live node has them, to its messages."""
    from d2_ros.commands.benchmark import Serialiser, publisher
    from d2_ros.commands.replay import ResultWriter
    from d2_ros.frontend import FrontEnd
    from d2_ros.workers import workers_beside

    with (
        publisher(config) as others,
        closing(workers_beside(partial(typer.echo, err=True))) as workers,
    ):
        writer = others.get("publishing") or ResultWriter(Serialiser(), config.output)
        yield partial(_process, FrontEnd(config, extractor, workers), writer)


def _process(frontend: FrontEnd, writer: Writer, frame: Frame) -> dict[str, int]:
    result = frontend.process(frame.image, frame.stamp, frame.camera)
    writer.write(frame, result)
    return {
        "tracks": int(np.count_nonzero(result.features["track_id"])),
        "followed": int(result.followed),
        "extracted": int(not result.followed),
        "keyframes": int(result.is_keyframe),
    }


@contextmanager
def _klt() -> Iterator[Process]:
    """Corners and Lucas-Kanade with the way back, without a geometric verification."""
    from d2_ros.evaluation.peers import Klt, gray8
    from d2_ros.evaluation.sequences import KLT_POINTS

    tracker = Klt(*KLT_POINTS["klt"])

    def process(frame: Frame) -> dict[str, int]:
        seen = tracker.track(gray8(frame.image), lambda before, _: np.ones(len(before), bool))
        return {"tracks": len(seen.ids)}

    yield process


def _tell(
    common: dict[str, float | int | str],
    rows: dict[str, dict[str, float | int | str]],
    runs: dict[str, LiveRun],
    folder: Path | None,
    json: Path | None,
) -> None:
    """Print the table, write page and file."""
    from d2_ros.benchmark.figures import LIVE_COLUMNS
    from d2_ros.benchmark.plots import latencies
    from d2_ros.evaluation.page import write_page
    from d2_ros.evaluation.tables import show

    tables = {f"Live, {common['rate_hz']:g} frames per second": LIVE_COLUMNS}
    show(rows, tables)
    typer.echo(
        f"{common['machine']}, {common['runtime']} {common['precision']}, {common['size_px']}, "
        f"features.extract {common['extract']}; each {common['warmup_s']:g} s from its first "
        "result on are left out"
    )
    everything = common | {
        f"{name}.{key}": value for name, row in rows.items() for key, value in row.items()
    }
    if folder:
        write_page(folder, "Live", rows, tables, everything, {"Latency": latencies(runs)})
        typer.echo(f"Look at {folder / 'report.html'}")
    if json:
        write_json(json, everything)
