"""``d2-ros view``: a bag of outputs in Rerun."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d2_ros.commands.common import output_file, progress
from d2_ros.errors import D2RosError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from d2_ros.sources.outputs import Outputs
    from d2_ros.viewer.recording import Recording

    Trajectory = tuple[NDArray[np.int64], NDArray[np.float64]]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("view")(view)


def view(
    bag: Annotated[Path, typer.Argument(metavar="BAG", help="What d2-ros replay has written.")],
    images: Annotated[
        str | None, typer.Option(metavar="SRC", help="Show the images: what BAG was made from.")
    ] = None,
    poses: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|SRC",
            help="Show a trajectory: TUM's format (.txt, .tum), or a source with ground truth; "
            "repeatable, the first moves the camera.",
        ),
    ] = None,
    points: Annotated[
        Path | None, typer.Option(metavar="FILE.ply", help="Show the points of a map.")
    ] = None,
    ellipse_scale: Annotated[
        float, typer.Option(min=0.001, help="How many times as large ellipses are drawn.")
    ] = 1,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.rrd", help="Write a recording, start no viewer.")
    ] = None,
) -> None:
    """Show BAG in Rerun: images, tracks, detected and refined places, covariances, map.

    All on one time line. A trajectory (nav_msgs/Odometry) and landmarks that a mapper has published
    in BAG are shown too.
    """
    from d2_ros.sources.outputs import read_map, read_outputs
    from d2_ros.sources.ply import read_points
    from d2_ros.viewer.recording import Recording, load_rerun, opened

    load_rerun()
    if out is not None and out.suffix != ".rrd":
        raise D2RosError(f"output {out} must have a name that ends in .rrd")
    if out is None and sys.platform == "linux" and not _has_display():
        raise D2RosError(
            "no screen to show it on; give --out FILE.rrd and open that where there is one, with "
            "`rerun FILE.rrd`"
        )
    outputs, made = read_outputs(bag), read_map(bag)
    trajectories = {name: _trajectory(name, outputs) for name in poses or []}
    trajectories |= made.odometry
    landmarks = None if points is None else read_points(points)
    part = None
    if out is not None:
        output_file(out, bag, images, points, *(poses or []))
        part = out.with_name(f".{out.stem}.{os.getpid()}.part.rrd")
    in_space = bool(trajectories) or landmarks is not None or bool(made.landmarks)
    try:
        with opened(part, in_space) as stream:
            recording = Recording(stream, ellipse_scale)
            for number, (name, (stamps, known)) in enumerate(trajectories.items()):
                entity = f"{number + 1}_{Path(name).name}"
                recording.add_trajectory(entity, stamps, known, number)
            if landmarks is not None:
                recording.add_points(landmarks)
            for stamp, cloud in made.landmarks:
                recording.add_points(cloud, stamp)
            for frame in progress(outputs.frames, "Drawing", len(outputs.frames)):
                recording.add_frame(frame)
            if images is not None:
                _add_images(images, outputs, recording)
        if part is not None and out is not None:
            part.replace(out)
            typer.echo(f"{out}: {len(outputs.frames)} frames; open it with `rerun {out}`")
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _trajectory(name: str, outputs: Outputs) -> Trajectory:
    """A file's own poses; a source's at the stamps of the frames."""
    import numpy as np

    from d2_ros.sources.trajectories import interpolate
    from d2_ros.sources.truth import is_trajectory, read_truth

    known = read_truth(name)
    if is_trajectory(name):
        return known
    stamps = np.array([frame.stamp for frame in outputs.frames], np.int64)
    return stamps, interpolate(*known, stamps)


def _add_images(name: str, outputs: Outputs, recording: Recording) -> None:
    """Show the images of the frames that the bag has."""
    from d2_ros.sources import open_source
    from d2_ros.sources.usable import usable

    wanted = {frame.stamp for frame in outputs.frames}
    source = open_source(name)
    for frame in progress(usable(source, lambda _: None), "Adding images", len(source)):
        if frame.stamp in wanted:
            wanted.discard(frame.stamp)
            recording.add_image(frame.stamp, frame.image)
    if wanted:
        raise D2RosError(
            f"{name} has no image at {min(wanted)} ns, nor at {len(wanted) - 1} other stamps of "
            "the bag; give the source that the bag was made from"
        )
