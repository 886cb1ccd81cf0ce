"""``d2-ros export``: a bag of outputs for programs that build maps."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d2_ros.commands.common import Json, output_files, output_folder, progress, write_json
from d2_ros.errors import D2RosError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from d2_ros.export.view_graph import ViewGraph
    from d2_ros.sources import Frame
    from d2_ros.sources.outputs import Outputs


class Matched(str, Enum):
    """What of the outputs says that two keypoints are one point."""

    tracks = "tracks"
    matches = "matches"


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    group = typer.Typer(help="A bag of outputs for programs that build maps.", no_args_is_help=True)
    group.callback()(lambda: None)  # a verb of its own, though it is the only one
    group.command("colmap")(colmap)
    app.add_typer(group, name="export")


def colmap(
    bag: Annotated[Path, typer.Argument(metavar="BAG", help="What d2-ros replay has written.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the database and so on.")],
    images: Annotated[
        str | None,
        typer.Option(metavar="SRC", help="Write the images too, of what the bag was made from."),
    ] = None,
    poses: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|SRC",
            help="Also triangulate a model at known poses: TUM's format (.txt, .tum), or a source "
            "with ground truth.",
        ),
    ] = None,
    matched: Annotated[
        Matched, typer.Option("--from", help="Which of the topics the matches are taken from.")
    ] = Matched.tracks,
    json: Json = None,
) -> None:
    """Write a COLMAP database of BAG: cameras, images, refined keypoints, verified matches.

    OUT gets database.db, with --images the folder images, with --poses the model triangulated.
    """
    from d2_ros.export.colmap import triangulate, write_database
    from d2_ros.sources.outputs import read_outputs

    outputs = read_outputs(bag)
    graph = graph_of(outputs, matched)
    if not graph.pairs:
        raise D2RosError(
            f"bag {bag} has no {matched.value} between its {len(graph.views)} frames; replay more "
            "of the recording"
        )
    known = None if poses is None else _poses(poses, graph)
    output_files([json], bag, images, poses)
    folder = output_folder(out, bag, images, poses)
    figures: dict[str, float | int | str] = {"images": len(graph.views), "pairs": len(graph.pairs)}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part") as name:
        part = Path(name)
        if images is not None:
            _write_images(images, graph, part / "images")
        ids = write_database(part / "database.db", graph, known)
        figures |= {
            "keypoints": sum(len(view.keypoints) for view in graph.views),
            "matches": sum(len(rows) for rows in graph.pairs.values()),
        }
        if known is not None:
            model_folder = part / "triangulated"
            model_folder.mkdir()
            pictures = part / "images" if images is not None else None
            model = triangulate(graph, part / "database.db", ids, known, model_folder, pictures)
            figures |= {
                "points": model.num_points3D(),
                "observations": model.compute_num_observations(),
                "mean_track_length": model.compute_mean_track_length(),
                "mean_reprojection_error_px": model.compute_mean_reprojection_error(),
            }
        _take_places(part, folder)
    typer.echo(
        f"{out}: {figures['images']} images, {figures['keypoints']} keypoints, "
        f"{figures['matches']} matches of {figures['pairs']} pairs"
    )
    if known is not None:
        typer.echo(
            f"model: {figures['points']} points, {figures['observations']} observations, mean "
            f"reprojection error {figures['mean_reprojection_error_px']:.3f} px"
        )
    if json:
        write_json(json, figures)


def graph_of(outputs: Outputs, matched: Matched) -> ViewGraph:
    """View graph of a recording, keypoints at the latest of their places.

    Raises
    ------
    D2RosError
        If the topics do not go together.
    """
    from d2_ros.export.view_graph import latest, match_pairs, track_pairs, view_graph

    observed = latest(outputs.frames, [rows for _, rows in outputs.tracks])
    pairs = (
        track_pairs([seen.tracks for seen in observed])
        if matched is Matched.tracks
        else match_pairs(outputs.frames)
    )
    return view_graph(outputs.frames, [seen.pixels for seen in observed], pairs)


def _poses(name: str, graph: ViewGraph) -> NDArray[np.float64]:
    """Poses of the views, NaN where unknown."""
    import numpy as np

    from d2_ros.sources.trajectories import interpolate
    from d2_ros.sources.truth import read_truth

    return interpolate(*read_truth(name), np.array([view.stamp for view in graph.views], np.int64))


def _write_images(name: str, graph: ViewGraph, folder: Path) -> None:
    """Write the image of every view, losslessly, under the name that the database has it by."""
    import cv2

    from d2_ros.sources import open_source
    from d2_ros.sources.usable import usable

    folder.mkdir()
    wanted = {view.stamp: view for view in graph.views}
    source = open_source(name)
    frames: Iterable[Frame] = usable(source, lambda _: None)
    for frame in progress(frames, "Writing images", len(source)):
        view = wanted.pop(frame.stamp, None)
        if view is None:
            continue
        if frame.image.shape[1::-1] != view.size:
            raise D2RosError(
                f"the image at {frame.stamp} ns of {name} is {frame.image.shape[1]}x"
                f"{frame.image.shape[0]}, in the bag {view.size[0]}x{view.size[1]}; give the "
                "source that the bag was made from"
            )
        if not cv2.imwrite(str(folder / view.name), frame.image):
            raise D2RosError(f"cannot write {folder / view.name}; make room there")
    if wanted:
        raise D2RosError(
            f"{name} has no image at {min(wanted)} ns, nor at {len(wanted) - 1} other stamps of "
            "the bag; give the source that the bag was made from"
        )


def _take_places(part: Path, folder: Path) -> None:
    """Put complete files in the place of those before; whatever else lies there is left alone."""
    for new in sorted(path for path in part.rglob("*") if path.is_file()):
        old = folder / new.relative_to(part)
        old.parent.mkdir(parents=True, exist_ok=True)
        new.replace(old)
