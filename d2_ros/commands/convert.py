"""``d2-ros convert``: any source to a rosbag2 bag."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d2_ros.commands.common import (
    Frames,
    ImageTopic,
    Json,
    SourceName,
    Start,
    output_files,
    progress,
    tell_ending,
    write_json,
)
from d2_ros.errors import D2RosError
from d2_ros.interruption import held

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
    start: Start = 0,
    frames: Frames = None,
    json: Json = None,
) -> None:
    """Write SRC as a rosbag2 bag: /camera/image_raw, camera_info if calibrated, known poses.

    A frame that cannot be used is left out and counted; the exit code is then 2, as it is for a
    source that ends in damage. What was written until then is kept, after Ctrl-C and SIGTERM as
    well.
    """
    from d2_ros.sources import open_source
    from d2_ros.sources.cut import cut
    from d2_ros.sources.usable import usable
    from d2_ros.sources.writer import BagWriter

    output_files((out, json), source)
    opened = cut(open_source(source, image_topic), start, frames)
    began = time.perf_counter()
    tally, ending = Written(), None
    with BagWriter(out) as bag:
        found = usable(opened, lambda error: tally.refused.append(str(error)))
        try:
            shown = progress(found, "Converting", len(opened))
            write_frames(shown, opened.poses(), bag, tally)
        except (D2RosError, KeyboardInterrupt, SystemExit) as error:
            ending = error
    typer.echo(f"{out}: {tally.frames} frames, {tally.poses} poses")
    if json:
        seconds = time.perf_counter() - began
        figures = {"frames": tally.frames, "frames_refused": len(tally.refused)}
        write_json(json, {**figures, "poses": tally.poses, "seconds": seconds})
    tell_ending(out, tally.frames, tally.refused, ending)


@dataclass
class Written:
    """What is in the bag, counted as it goes."""

    frames: int = 0
    poses: int = 0
    refused: list[str] = field(default_factory=list)


def write_frames(
    frames: Iterable[Frame], poses: NDArray[np.float64] | None, bag: BagWriter, tally: Written
) -> None:
    """Write images, calibrations and the known ones of the poses, and count them in `tally`.

    Parameters
    ----------
    frames
        In time order.
    poses
        ``(N, 4, 4)`` ``T_world_camera`` of all frames, those that were refused among them, NaN
        where unknown, or None.
    bag
        Where they go.
    tally
        Counts what is written, and is told by others what is refused.
    """
    import numpy as np

    from d2_ros.sources import messages
    from d2_ros.sources.bags import POSE_TOPIC

    for frame in frames:
        stamp, frame_id, number = frame.stamp, frame.frame_id, tally.frames + len(tally.refused)
        with held():
            if frame.camera is not None:
                size = frame.camera.width, frame.camera.height
                info = messages.camera_info(stamp, frame_id, frame.camera, *size)
                bag.write(CAMERA_INFO_TOPIC, info)
            bag.write(IMAGE_TOPIC, messages.image(stamp, frame_id, frame.image))
            tally.frames += 1
            if poses is not None and np.isfinite(poses[number]).all():
                bag.write(POSE_TOPIC, messages.pose(stamp, "world", poses[number]))
                tally.poses += 1
