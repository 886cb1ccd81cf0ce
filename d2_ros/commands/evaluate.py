"""``d2-ros evaluate``: accuracy against ground truth, next to the peers on the same frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    write_json,
)
from d2_ros.errors import D2RosError

if TYPE_CHECKING:
    from d2_ros.evaluation.tables import Tables
    from d2_ros.evaluation.tracking import Figures

Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the page and its plots.")]
Gap = Annotated[int, typer.Option(min=1, help="Frames from the first to the second of a pair.")]
Every = Annotated[int, typer.Option(min=1, help="Frames from one pair to the next.")]

Ablation = Annotated[
    bool,
    typer.Option(
        "--ablation",
        help="Also judge the stages one by one, and the multi-view scheme of the paper "
        "(synthetic sequence only).",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    group = typer.Typer(
        help="Accuracy against ground truth, next to SIFT, ORB and KLT on the same frames.",
        no_args_is_help=True,
    )
    group.command("sequence")(sequence)
    group.command("homographies")(homographies)
    group.command("pairs")(pairs)
    group.command("stereo")(stereo)
    from d2_ros.commands import (  # they import this module
        evaluate_made,
        evaluate_places,
        evaluate_reconstruction,
        evaluate_trajectory,
    )

    evaluate_made.register(group)
    evaluate_places.register(group)
    evaluate_reconstruction.register(group)
    evaluate_trajectory.register(group)
    app.add_typer(group, name="evaluate")


def sequence(
    source: SourceName,
    out: Out,
    gap: Gap = 5,
    every: Every = 1,
    params_file: ParamsFile = None,
    overrides: Overrides = None,
    image_topic: ImageTopic = None,
    start: Start = 0,
    frames: Frames = None,
    ablation: Ablation = False,
    json: Json = None,
) -> None:
    """Run over the frames of SRC; judge pairs of frames by the true poses, and the tracks."""
    from d2_ros.evaluation.ablation import Recorder, ablation_figures
    from d2_ros.evaluation.curves import sequence_plots
    from d2_ros.evaluation.pairs import flatten
    from d2_ros.evaluation.sequences import run_sequence, sequence_figures
    from d2_ros.evaluation.tables import (
        ABLATION_COLUMNS,
        PAIR_COLUMNS,
        REFERENCE_POSE_COLUMNS,
        TRACK_COLUMNS,
    )
    from d2_ros.frontend import FrontEnd
    from d2_ros.sources import open_source
    from d2_ros.sources.cut import cut
    from d2_ros.sources.synthetic import Synthetic
    from d2_ros.sources.truth import known_poses

    config = load_config(params_file, overrides)
    opened = open_source(source, image_topic)
    if ablation and not isinstance(opened, Synthetic):
        raise D2RosError(f"--ablation needs exact ground truth: SRC synthetic, not {opened.name}")
    used = cut(opened, start, frames)
    poses = known_poses(used)
    output_files([json], source, params_file)
    folder = output_folder(out, source)
    frontend = FrontEnd(config)
    recorder = Recorder(frontend) if ablation else None
    damage: list[D2RosError] = []
    watched = _until_damage(_watched(used, "Evaluating"), damage)
    outcome = run_sequence(watched, poses, recorder or frontend, gap, every)
    if damage and not outcome.published:
        raise damage[0]
    figures, whole = sequence_figures(outcome, opened, poses, start)
    titles = {
        "Pairs of frames": PAIR_COLUMNS,
        "Pairs of frames: poses against klt's": REFERENCE_POSE_COLUMNS,
        "Tracks": TRACK_COLUMNS,
    }
    if recorder and isinstance(opened, Synthetic):
        figures |= ablation_figures(recorder.graphs, opened)
        titles["Stages, tracks of four or more keyframes"] = ABLATION_COLUMNS
    if not outcome.pairs:
        typer.echo(
            "No pair of frames could be judged: that takes a calibration, true poses, more "
            "frames than --gap, and a camera that moves.",
            err=True,
        )
    plots = sequence_plots(outcome)
    settings: Figures = {"source": opened.name, "start": start, "gap": gap, "every": every}
    everything = {**settings, **whole, **flatten(figures)}
    _tell(folder, f"Sequence {opened.name}", figures, titles, everything, plots, json)
    if damage:
        raise damage[0]


def homographies(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Scenes of images 1.* to N.* with H_1_k.")
    ],
    out: Out,
    params_file: ParamsFile = None,
    overrides: Overrides = None,
    json: Json = None,
) -> None:
    """Judge the matches of image pairs by the true homography: raw, verified and published."""
    import numpy as np

    from d2_ros.evaluation.curves import cumulative
    from d2_ros.evaluation.homographies import (
        find_pairs,
        homography_figures,
        judge_homography,
        load_pair,
    )
    from d2_ros.evaluation.match_sets import match_images
    from d2_ros.evaluation.pairs import flatten
    from d2_ros.evaluation.tables import HOMOGRAPHY_TABLES
    from d2_ros.frontend import FrontEnd

    config = load_config(params_file, overrides)
    found = find_pairs(folder)
    output_files([json], folder, params_file)
    target = output_folder(out, folder)
    frontend = FrontEnd(config)

    def judge(pair: Any) -> dict[str, Any]:
        images, homography = load_pair(pair)
        matches = match_images(frontend, images)
        return {name: judge_homography(points, homography) for name, points in matches.items()}

    results, damage = _judge_each(found, judge)
    figures = {name: homography_figures(judged) for name, judged in results.items()}
    errors = {name: [result["raw"] for result in judged] for name, judged in results.items()}
    plot = cumulative(errors, np.linspace(0, 10, 101), "error, px", "raw matches")
    everything = {"source": str(folder), **flatten(figures)}
    plots = {"Matching accuracy": plot}
    title = f"Homographies {folder.name}"
    _tell(target, title, figures, HOMOGRAPHY_TABLES, everything, plots, json)
    if damage:
        raise damage


def pairs(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Pairs in SuperGlue's format; with --write, any source."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the page and its plots.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images, if not that of FILE.")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Do not evaluate: make such a file from a sequence."),
    ] = None,
    gap: Gap = 5,
    every: Every = 5,
    params_file: ParamsFile = None,
    overrides: Overrides = None,
    json: Json = None,
) -> None:
    """Judge poses from pairs of images with known calibration and relative pose."""
    from d2_ros.evaluation.curves import pose_curve
    from d2_ros.evaluation.match_sets import match_images
    from d2_ros.evaluation.pairfile import check_images, load_views, read_pairs, write_pairs
    from d2_ros.evaluation.pairs import flatten, judge_match_sets, match_set_figures
    from d2_ros.evaluation.tables import PAIR_TABLES
    from d2_ros.frontend import FrontEnd
    from d2_ros.sources import open_source

    if write is not None:
        output_files([write, json], source)
        count = write_pairs(open_source(source), gap, every, write)
        typer.echo(f"{write}: {count} pairs")
        return
    if out is None:
        raise D2RosError("evaluate pairs needs --out DIR for its page, or --write FILE")
    config = load_config(params_file, overrides)
    file = Path(source)
    output_files([json], file, images, params_file)
    found = read_pairs(file, images or file.parent)
    check_images(file, found)
    folder = output_folder(out, file, images)
    frontend = FrontEnd(config)

    def judge(pair: Any) -> dict[str, Any]:
        views = load_views(pair)
        matches = match_images(frontend, views.images, views.cameras)
        truth = (views.cameras, views.T_second_first, config.matching)
        return {name: judge_match_sets(points, *truth) for name, points in matches.items()}

    results, damage = _judge_each(found, judge)
    figures = {name: match_set_figures(judged) for name, judged in results.items()}
    everything = {"source": source, **flatten(figures)}
    verified = {name: [result["verified"] for result in judged] for name, judged in results.items()}
    plots = {"Pose errors": pose_curve(verified)}
    _tell(folder, f"Pairs {file.name}", figures, PAIR_TABLES, everything, plots, json)
    if damage:
        raise damage


def stereo(
    out: Out,
    params_file: ParamsFile = None,
    overrides: Overrides = None,
    json: Json = None,
) -> None:
    """Judge the matches of Middlebury's motorcycle pair by its exact disparity."""
    import numpy as np

    from d2_ros.evaluation.curves import cumulative
    from d2_ros.evaluation.match_sets import match_images
    from d2_ros.evaluation.pairs import flatten
    from d2_ros.evaluation.stereo import judge_stereo, motorcycle, stereo_figures
    from d2_ros.evaluation.tables import STEREO_TABLES
    from d2_ros.frontend import FrontEnd

    config = load_config(params_file, overrides)
    pair = motorcycle()
    output_files([json], params_file)
    folder = output_folder(out)
    found = match_images(FrontEnd(config), (pair.left, pair.right))
    errors = {name: judge_stereo(points, pair.disparity) for name, points in found.items()}
    figures = {name: stereo_figures(off) for name, off in errors.items()}
    groups = {name: [off["raw"]] for name, off in errors.items()}
    plot = cumulative(groups, np.linspace(0, 3, 121), "error, px", "raw matches")
    everything = {"source": "skimage.data.stereo_motorcycle", **flatten(figures)}
    plots = {"Matching accuracy": plot}
    _tell(folder, "Stereo pair", figures, STEREO_TABLES, everything, plots, json)


def _judge_each(
    pairs: Iterable[Any], judge: Callable[[Any], dict[str, Any]]
) -> tuple[dict[str, list[Any]], D2RosError | None]:
    """Results of every pair per method; of those before one that cannot be used, and its error."""
    results: dict[str, list[Any]] = {}
    for pair in _watched(pairs, "Matching"):
        try:
            judged = judge(pair)
        except D2RosError as error:
            if not results:
                raise
            return results, error
        for name, result in judged.items():
            results.setdefault(name, []).append(result)
    return results, None


def _until_damage(frames: Iterable[Any], damage: list[D2RosError]) -> Iterator[Any]:
    """Frames up to an error, which is left in `damage`: what was judged until then is told."""
    try:
        yield from frames
    except D2RosError as error:
        damage.append(error)


def _watched(items: Iterable[Any], title: str) -> Iterable[Any]:
    from rich.console import Console
    from rich.progress import track

    return track(items, title, console=Console(stderr=True))


def _tell(
    folder: Path,
    title: str,
    figures: Mapping[str, Figures],
    tables: Tables,
    everything: Figures,
    plots: Mapping[str, bytes],
    json: Path | None,
) -> None:
    """Print the tables; write the page, its plots and the JSON file."""
    from d2_ros.evaluation.page import write_page
    from d2_ros.evaluation.tables import show

    show(figures, tables)
    write_page(folder, title, figures, tables, everything, plots)
    if "median_error_px" in everything:
        typer.echo(
            "Error of the published tracks against the exact ground truth: median "
            f"{everything['median_error_px']:.3f} px, {everything['median_error_detected_px']:.3f} "
            "px as detected."
        )
    typer.echo(f"Look at {folder / 'report.html'}")
    if json:
        write_json(json, everything)
