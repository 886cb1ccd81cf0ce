"""``d2-ros convert``: any source to a rosbag2 bag."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d2_ros.commands.common import ImageTopic, Json, SourceName, output_file, write_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from d2_ros.sources import Frame
    from d2_ros.sources.writer import BagWriter

IMAGE_TOPIC = "/camera/image_raw"
CAMERA_INFO_TOPIC = "/camera/camera_info"


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("convert")(convert)


def convert(
    source: SourceName,
    out: Annotated[
        Path, typer.Argument(metavar="OUT.mcap", help="The bag; overwritten if it exists.")
    ],
    image_topic: ImageTopic = None,
    json: Json = None,
) -> None:
    """Write SRC as a rosbag2 bag: /camera/image_raw, camera_info if calibrated, known poses."""
    from rich.console import Console
    from rich.progress import track

    from d2_ros.sources import open_source
    from d2_ros.sources.writer import BagWriter

    frames = open_source(source, image_topic)
    started = time.perf_counter()
    with BagWriter(output_file(out, source)) as bag:
        shown = track(frames, "Converting", console=Console(stderr=True))
        count, poses = write_frames(shown, frames.poses(), bag)
    figures = {"frames": count, "poses": poses, "seconds": time.perf_counter() - started}
    typer.echo(f"{out}: {count} frames, {poses} poses")
    if json:
        write_json(json, figures)


def write_frames(
    frames: Iterable[Frame], poses: NDArray[np.float64] | None, bag: BagWriter
) -> tuple[int, int]:
    """Write images, calibrations and the known ones of the poses; return how many of each.

    Parameters
    ----------
    frames
        In time order.
    poses
        ``(N, 4, 4)`` ``T_world_camera`` of the frames, NaN where unknown, or None.
    bag
        Where they go.
    """
    import numpy as np

    from d2_ros.sources import messages
    from d2_ros.sources.bags import POSE_TOPIC

    count = known = 0
    for frame in frames:
        stamp, frame_id = frame.stamp, frame.frame_id
        if frame.camera is not None:
            size = frame.camera.width, frame.camera.height
            info = messages.camera_info(stamp, frame_id, frame.camera, *size)
            bag.write(CAMERA_INFO_TOPIC, info)
        bag.write(IMAGE_TOPIC, messages.image(stamp, frame_id, frame.image))
        if poses is not None and np.isfinite(poses[count]).all():
            bag.write(POSE_TOPIC, messages.pose(stamp, "world", poses[count]))
            known += 1
        count += 1
    return count, known
