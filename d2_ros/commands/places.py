"""``d2-ros places``: keyframes kept for good, and known again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
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
    progress,
    tell_ending,
    write_json,
)
from d2_ros.errors import D2RosError
from d2_ros.files import write_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from d2_ros.config import Config
    from d2_ros.places.keeper import Keeper
    from d2_ros.places.memory import PlaceMemory
    from d2_ros.places.place import Place
    from d2_ros.places.revisit import Revisit
    from d2_ros.records import FrameResult
    from d2_ros.sources import Frame

PlacesFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="What d2-ros places build has written.")
]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    group = typer.Typer(help="Keyframes kept for good, and known again.", no_args_is_help=True)
    for verb in (build, query, info, vocabulary):
        group.command(verb.__name__)(verb)
    app.add_typer(group, name="places")


def build(
    source: SourceName,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The places; overwritten.")],
    capacity: Annotated[int, typer.Option(min=1, help="Most keyframes to keep.")] = 10_000,
    params_file: ParamsFile = None,
    overrides: Overrides = None,
    image_topic: ImageTopic = None,
    start: Start = 0,
    frames: Frames = None,
    json: Json = None,
) -> None:
    """Run the front-end over SRC and keep its keyframes; tell where SRC comes back to a place."""
    from d2_ros.places.memory import PlaceMemory
    from d2_ros.places.storage import save_places

    config = load_config(params_file, overrides)
    output_files((out, json), source, params_file)
    memory = PlaceMemory(capacity=capacity)
    looking = _looking(config, memory, keeps=True)
    ending = _run(looking, config, source, image_topic, start, frames)
    kept = list(memory.places)
    if kept:
        save_places(out, kept, looking.keeper.vocabulary)
    figures = {**looking.figures(), **_figures(kept)}
    typer.echo(
        f"{out}: {len(kept)} keyframes of {looking.tally.frames} frames, "
        f"{figures['bytes_per_keyframe'] / 1000:.0f} kB each; "
        f"{len(looking.revisits)} places seen again"
    )
    if json:
        write_json(json, figures)
    tell_ending(out, len(kept), looking.tally.refused, ending)


def query(
    file: PlacesFile,
    source: Annotated[
        str, typer.Argument(metavar="SRC|IMAGE", help="Any source, or a single image.")
    ],
    camera: Annotated[
        Path | None,
        typer.Option(help="Of IMAGE: calibration of ROS, a printed camera_info, or of OpenCV."),
    ] = None,
    params_file: ParamsFile = None,
    overrides: Overrides = None,
    image_topic: ImageTopic = None,
    start: Start = 0,
    frames: Frames = None,
    json: Json = None,
) -> None:
    """Tell which of the places in FILE the keyframes of SRC show, or IMAGE does.

    Of a sequence a place is told once, and only after two keyframes running have shown it; a single
    image has no neighbours to ask.
    """
    from d2_ros.places.memory import PlaceMemory
    from d2_ros.places.storage import load_places
    from d2_ros.places.vlad import load_vocabulary

    config = load_config(params_file, overrides)
    output_files((json,), file, source, camera, params_file)
    places = load_places(file, load_vocabulary())
    memory = PlaceMemory(places, max(len(places), 1))
    ending, refused = None, []
    if _is_image(source):
        revisits, figures = _query_image(Path(source), camera, memory, config)
    elif camera is not None:
        raise D2RosError(f"--camera {camera} is for a single image; {source} has its own")
    else:
        looking = _looking(config, memory, keeps=False)
        ending = _run(looking, config, source, image_topic, start, frames)
        revisits, figures, refused = looking.revisits, looking.figures(), looking.tally.refused
    for item in revisits:
        typer.echo(describe(item))
    if not revisits:
        typer.echo(f"{source} shows none of the {len(places)} places in {file}")
    if json:
        write_json(json, figures)
    if ending is not None:
        raise ending
    if refused:
        raise D2RosError(f"{len(refused)} frames were left out: {refused[0]}")


def info(file: PlacesFile, json: Json = None) -> None:
    """Tell what is in FILE."""
    from d2_ros.places.storage import load_places
    from d2_ros.places.vlad import load_vocabulary

    output_files((json,), file)
    places = load_places(file, load_vocabulary())
    figures = _figures(places)
    first, last = places[0].stamp, places[-1].stamp
    calibrated = sum(place.camera is not None for place in places)
    typer.echo(
        f"{file}: {len(places)} keyframes from {first / 1e9:.3f} to {last / 1e9:.3f} s, "
        f"{calibrated} calibrated, {figures['keypoints_per_keyframe']:.0f} keypoints and "
        f"{figures['bytes_per_keyframe'] / 1000:.0f} kB each"
    )
    if json:
        write_json(json, {**figures, "calibrated": calibrated})


def vocabulary(
    out: Annotated[Path, typer.Option(metavar="FILE", help="A safetensors file.")],
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIR]...", help="Photographs, beside those of scikit-image."),
    ] = None,
    params_file: ParamsFile = None,
    overrides: Overrides = None,
) -> None:
    """Make the vocabulary that images are aggregated with, as the one in the package was made.

    The photographs are reduced to ``features.max_edge``.
    """
    from d2_ros.features.extractor import Extractor
    from d2_ros.places.training import make_vocabulary
    from d2_ros.places.vlad import vocabulary_bytes
    from d2_ros.sources.photographs import photographs

    config = load_config(params_file, overrides)
    output_files([out], *(folders or []), params_file)
    photos = photographs(folders or [])
    extractor = Extractor(config)
    keypoints, descriptors = [], []
    for photo in progress(photos, "Looking at photographs"):
        features = extractor.extract([photo.load()])[0]
        keypoints.append(features.keypoints)
        descriptors.append(features.descriptors.cpu().numpy())
    about = {
        "photographs": ", ".join(photo.name for photo in photos),
        "weights": config.weights,
        "max_edge": str(config.features.max_edge),
        "max_keypoints": str(config.features.max_keypoints),
    }
    made = make_vocabulary(keypoints, descriptors, about)
    write_file(out, vocabulary_bytes(made))
    typer.echo(f"{out}: vocabulary {made.identity} of {len(photos)} photographs")


@dataclass
class Looking:
    """Takes a replay's results, and looks every keyframe up."""

    keeper: Keeper
    tally: Any
    revisits: list[Revisit] = field(default_factory=list)
    looked: int = 0
    seconds: float = 0.0

    def reset(self) -> None:
        """Nothing: places outlive the window."""

    def write(
        self, frame: Frame, result: FrameResult, right: tuple[Frame, NDArray[np.void]] | None = None
    ) -> None:
        """Take one frame."""
        if not result.is_keyframe:
            return
        started = time.perf_counter()
        found = self.keeper.take(result, frame.image, frame.camera)
        if found is not None:
            self.revisits.append(found)
        self.looked += 1
        self.seconds += time.perf_counter() - started

    def figures(self) -> dict[str, float]:
        """Return the flat figures of ``--json``."""
        return {
            "frames": self.tally.frames,
            "frames_refused": len(self.tally.refused),
            "keyframes": self.looked,
            "revisits": len(self.revisits),
            "look_mean_ms": 1e3 * self.seconds / max(self.looked, 1),
        }


def describe(item: Revisit) -> str:
    """One line on a place that is known again."""
    now, then = item.place, item.known
    motion = "uncalibrated"
    if item.rotation is not None:
        import cv2
        import numpy as np

        turn = np.degrees(np.linalg.norm(cv2.Rodrigues(item.rotation)[0]))
        motion = f"turned by {turn:.1f} deg"
    if item.direction is not None:
        motion += ", moved along ({:.2f}, {:.2f}, {:.2f})".format(*item.direction)
    return (
        f"{now.stamp / 1e9:.3f} s is the place of {then.stamp / 1e9:.3f} s (session "
        f"{then.session}): {item.inliers} of {item.matches} matches agree, "
        f"{len(item.pixels)} {'aligned' if item.aligned else 'as detected'}; {motion}"
    )


def _looking(config: Config, memory: PlaceMemory, keeps: bool) -> Looking:
    from d2_ros.commands.replay import Tally
    from d2_ros.places.keeper import Keeper
    from d2_ros.places.vlad import load_vocabulary

    return Looking(Keeper(memory, load_vocabulary(), config, keeps), Tally())


def _run(
    looking: Looking,
    config: Config,
    source: str,
    image_topic: str | None,
    start: int,
    frames: int | None,
) -> BaseException | None:
    """Look all keyframes of a source; return what has ended it early."""
    from d2_ros.commands.replay import run
    from d2_ros.frontend import FrontEnd
    from d2_ros.sources import open_source
    from d2_ros.sources.cut import cut
    from d2_ros.sources.usable import usable

    opened = cut(open_source(source, image_topic), start, frames)
    found = usable(opened, lambda error: looking.tally.refused.append(str(error)))
    try:
        shown = progress(found, "Looking at places", len(opened))
        run(shown, FrontEnd(config), looking, looking.tally)
    except (D2RosError, KeyboardInterrupt, SystemExit) as error:
        return error
    return None


def _query_image(
    path: Path, camera: Path | None, memory: PlaceMemory, config: Config
) -> tuple[list[Revisit], dict[str, float]]:
    """The best revisit of one image, if there is any."""
    from d2_ros.features.extractor import Extractor
    from d2_ros.places.place import place_of_features
    from d2_ros.places.recognition import RecognitionSettings, look_up
    from d2_ros.places.vlad import load_vocabulary
    from d2_ros.sources.calibration import load_camera
    from d2_ros.sources.images import read_image

    image, settings = read_image(path), RecognitionSettings()
    height, width = image.shape[:2]
    calibration = load_camera(camera).at_size(width, height) if camera else None
    features = Extractor(config).extract([image])[0]
    own = -1  # a run of its own
    place = place_of_features(features, 0, image, calibration, load_vocabulary(), own)
    found = look_up(place, memory, config, settings)
    known = [item for item in found[:1] if item.inliers >= settings.min_inliers]
    inliers = known[0].inliers if known else 0
    return known, {"revisits": len(known), "inliers": inliers}


def _figures(places: Sequence[Place]) -> dict[str, float]:
    count = max(len(places), 1)
    sessions = {place.session for place in places}
    return {
        "places": len(places),
        "sessions": len(sessions),
        "keypoints_per_keyframe": sum(len(place.pixels) for place in places) / count,
        "bytes_per_keyframe": sum(place.nbytes for place in places) / count,
        "image_bytes_per_keyframe": sum(place.image.nbytes for place in places) / count,
    }


def _is_image(name: str) -> bool:
    from d2_ros.sources.files import SUFFIXES

    return Path(name).suffix.lower() in SUFFIXES
