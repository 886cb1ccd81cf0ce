"""``d2-ros replay``: the front-end over a recording, offline and deterministic."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

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
    progress,
    tell_ending,
    write_json,
)
from d2_ros.errors import D2RosError
from d2_ros.interruption import held
from d2_ros.timing import CLOCK_JUMP

if TYPE_CHECKING:
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from d2_ros.commands.replay_right import RightCamera
    from d2_ros.config import Config, OutputConfig
    from d2_ros.places.keeper import Keeper
    from d2_ros.processor import Processor
    from d2_ros.records import FrameResult
    from d2_ros.sources import Frame

NAMESPACE = "/d2_frontend/camera/"
CAMERA_INFO_TOPIC = "/camera/camera_info"
RIGHT_CAMERA_INFO_TOPIC = "/right/camera_info"


class Sink(Protocol):
    """The part of :class:`d2_ros.sources.writer.BagWriter` that takes the results."""

    def write(self, topic: str, message: Any) -> None:
        """Write a message of :mod:`d2_ros.sources.messages`."""
        ...

    def flush(self) -> None:
        """Hand everything so far to the system."""
        ...


class Receiver(Protocol):
    """What takes the results of a replay: :class:`ResultWriter`, or the keeper of places."""

    def reset(self) -> None:
        """Begin anew: the front-end was reset."""
        ...

    def write(
        self, frame: Frame, result: FrameResult, right: tuple[Frame, NDArray[np.void]] | None = None
    ) -> None:
        """Take the result of a frame; `right` as :meth:`RightCamera.find` gives it."""
        ...


@dataclass
class Tally:
    """What happened in a replay, counted as it goes."""

    frames: int = 0
    keyframes: int = 0
    features: int = 0
    inliers: int = 0
    resets: int = 0
    refused: list[str] = field(default_factory=list)
    timings_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    started: float = field(default_factory=time.perf_counter)

    def add(self, result: FrameResult) -> None:
        """Count one processed frame."""
        self.frames += 1
        self.keyframes += result.is_keyframe
        self.features += len(result.features)
        self.inliers += int(result.matches["inlier"].sum())
        for stage, milliseconds in result.timings_ms.items():
            self.timings_ms[stage].append(milliseconds)

    def figures(self) -> dict[str, float]:
        """Return the flat figures of ``--json``."""
        from statistics import median

        seconds = time.perf_counter() - self.started
        processed = max(self.frames, 1)
        return {
            "frames": self.frames,
            "frames_refused": len(self.refused),
            "keyframes": self.keyframes,
            "resets": self.resets,
            "features_per_frame": self.features / processed,
            "inlier_matches_per_frame": self.inliers / processed,
            "seconds": seconds,
            "frames_per_second": self.frames / seconds,
            **{f"{stage}.p50_ms": median(times) for stage, times in self.timings_ms.items()},
        }


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("replay")(replay)


def replay(
    source: SourceName,
    out: Annotated[
        Path, typer.Option(metavar="OUT.mcap", help="The bag; overwritten if it exists.")
    ],
    params_file: ParamsFile = None,
    overrides: Overrides = None,
    image_topic: ImageTopic = None,
    start: Start = 0,
    frames: Frames = None,
    right: Annotated[
        Path | None,
        typer.Option(metavar="SRC", help="The right camera, where SRC is the left one of a pair."),
    ] = None,
    right_image_topic: Annotated[
        str | None, typer.Option(help="The image topic of --right, where that bag has several.")
    ] = None,
    json: Json = None,
) -> None:
    """Run the front-end over every frame of SRC and write the node's topics to a bag.

    With --right the frames of both are paired by their stamps, within input.sync_tolerance or 3 ms.

    A frame that cannot be used is left out and counted; the exit code is then 2, as it is for a
    source that ends in damage. What was written until then, and the figures, are kept, after
    Ctrl-C and SIGTERM as well.
    """
    from d2_ros.commands.replay_right import RightCamera
    from d2_ros.frontend import FrontEnd
    from d2_ros.sources import open_source
    from d2_ros.sources.cut import cut
    from d2_ros.sources.pairs import pair_pose
    from d2_ros.sources.usable import usable
    from d2_ros.sources.writer import BagWriter

    config = load_config(params_file, overrides)
    output_files((out, json), source, params_file)
    whole = open_source(source, image_topic)
    opened = cut(whole, start, frames)
    other = None if right is None else open_source(right, right_image_topic)
    if other is not None:
        config = replace(config, input=replace(config.input, stereo=True))
    frontend = FrontEnd(config)
    keeper = make_keeper(config) if config.places.enabled else None
    tally, ending, partner = Tally(), None, None
    with BagWriter(out) as bag:

        def refuse(error: D2RosError) -> None:
            tally.refused.append(str(error))

        found = usable(opened, refuse)
        if other is not None:
            partner = RightCamera(
                usable(other, refuse),
                FrontEnd(config, frontend.extractor),
                pair_pose(whole, other),
            )
        try:
            run(
                progress(found, "Replaying", len(opened)),
                frontend,
                ResultWriter(bag, config.output, partner, keeper),
                tally,
                partner,
            )
        except (D2RosError, KeyboardInterrupt, SystemExit) as error:
            ending = error
    figures = tally.figures()
    typer.echo(
        f"{out}: {tally.frames} frames, {tally.keyframes} keyframes, "
        f"{figures['features_per_frame']:.0f} features and "
        f"{figures['inlier_matches_per_frame']:.0f} inlier matches per frame, "
        f"{figures['seconds']:.1f} s"
        + ("" if partner is None else f", {partner.pairs} stereo pairs")
    )
    if json:
        write_json(json, figures)
    tell_ending(out, tally.frames, tally.refused, ending)


def make_keeper(config: Config) -> Keeper:
    """Return a keeper of places that knows none yet."""
    from d2_ros.places.keeper import Keeper
    from d2_ros.places.memory import PlaceMemory
    from d2_ros.places.vlad import load_vocabulary

    return Keeper(PlaceMemory(), load_vocabulary(), config)


def run(
    frames: Iterable[Frame],
    frontend: Processor,
    writer: Receiver,
    tally: Tally,
    right: RightCamera | None = None,
) -> None:
    """Process `frames` in order, write the results and count them in `tally`.

    As in the node, a frame that is not later than the last one is refused; a large jump back, and
    another calibration or image size, start over with an empty window.
    """
    from d2_ros.camera import HeldCamera

    last: int | None = None
    window = HeldCamera()
    for frame in frames:
        jumped = last is not None and frame.stamp <= last - CLOCK_JUMP
        if last is not None and not jumped and frame.stamp <= last:
            tally.refused.append(f"frame {frame.stamp} is not later than {last}")
            continue
        last = frame.stamp
        if jumped:
            window.forget()
        height, width = frame.image.shape[:2]
        camera, change = window.update(frame.camera, (width, height))
        if jumped or change:
            frontend.reset()
            writer.reset()
            if right is not None:
                right.reset()
            tally.resets += 1
        frame = replace(frame, camera=camera)
        try:
            result = frontend.process(frame.image, frame.stamp, frame.camera)
        except D2RosError as error:
            tally.refused.append(f"frame {frame.stamp}: {error}")
            continue
        seen = None
        try:
            if right is not None:
                seen = right.find(frame, result)
        except D2RosError as error:  # the left camera's own tracks are still good
            tally.refused.append(f"right frame at {frame.stamp}: {error}")
        with held():
            writer.write(frame, result, seen)
            tally.add(result)


class ResultWriter:
    """Writes the node's messages of each frame, and the camera_info that its image came with.

    Parameters
    ----------
    bag
        Where they go.
    output
        Which topics there are beside the usual ones.
    right
        Of a stereo pair.
    keeper
        Where places are kept.
    """

    def __init__(
        self,
        bag: Sink,
        output: OutputConfig,
        right: RightCamera | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        from d2_ros.vins import VinsTracks

        self._bag = bag
        self._descriptors = output.descriptors
        self._vins = None
        if output.vins_format != "none":
            self._vins = VinsTracks(output.vins_format, cameras=1 if right is None else 2)
        self._T_left_right = None if right is None else right.T_left_right
        self._keeper = keeper
        self._told_uncalibrated = False

    def reset(self) -> None:
        """Begin anew: the front-end was reset."""
        if self._vins is not None:
            self._vins.reset()

    def write(
        self,
        frame: Frame,
        result: FrameResult,
        right: tuple[Frame, NDArray[np.void]] | None = None,
    ) -> None:
        """Write everything that `result` holds; `right` as :meth:`RightCamera.find` gives it."""
        from d2_ros.camera import rectification
        from d2_ros.records import pack_descriptors
        from d2_ros.sources.messages import camera_info, cloud, vins_cloud

        height, width = frame.image.shape[:2]
        stamp, frame_id, camera = frame.stamp, frame.frame_id, frame.camera
        own = pair = None
        if camera is not None and right is not None and self._T_left_right is not None:
            assert right[0].camera is not None  # find() gives none without
            own, pair = rectification(camera, right[0].camera, self._T_left_right)
        info = camera_info(stamp, frame_id, camera, width, height, own)
        self._bag.write(CAMERA_INFO_TOPIC, info)
        topics = {"features": result.features, "matches": result.matches, "tracks": result.tracks}
        if self._descriptors != "none":
            topics["descriptors"] = pack_descriptors(result.descriptors, self._descriptors)
        for topic, rows in topics.items():
            if rows is not None:
                self._bag.write(NAMESPACE + topic, cloud(stamp, frame_id, rows))
        if right is not None:
            other, stereo = right
            height, width = other.image.shape[:2]
            info = camera_info(other.stamp, other.frame_id, other.camera, width, height, pair)
            self._bag.write(RIGHT_CAMERA_INFO_TOPIC, info)
            self._bag.write(NAMESPACE + "stereo", cloud(stamp, frame_id, stereo))
        if self._vins is not None:
            seen = None if right is None else right[1]
            content = self._vins.update(stamp, result.features, frame.camera, seen)
            if content is not None:
                self._bag.write(NAMESPACE + "feature_tracks", vins_cloud(stamp, frame_id, content))
            elif not self._told_uncalibrated:
                self._told_uncalibrated = True
                typer.echo(f"frame {stamp} has no calibration: no feature_tracks for it", err=True)
        if self._keeper is not None and result.is_keyframe:
            self._write_loop(self._keeper, frame, result)
        # A frame is written as a whole, so that a process that is killed has lost no earlier one.
        self._bag.flush()

    def _write_loop(self, keeper: Keeper, frame: Frame, result: FrameResult) -> None:
        """Write what the place of a keyframe is known by, if it is."""
        from d2_ros.places.loops import loop_pose, loop_rows
        from d2_ros.sources.messages import cloud, pose_with_covariance

        found = keeper.take(result, frame.image, frame.camera)
        if found is None:
            return
        where = loop_pose(found)
        if where is not None:
            message = pose_with_covariance(frame.stamp, frame.frame_id, *where)
            self._bag.write(NAMESPACE + "loop_pose", message)
        self._bag.write(NAMESPACE + "loops", cloud(frame.stamp, frame.frame_id, loop_rows(found)))
