"""Sources of pairs by their description, ``KIND:PLACE``, split into training and validation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.training.config import TrainingConfig
from d2_ros.training.pairs import PairSource

Part = Literal["training", "validation", "all"]
"""Which images of a source to use: all but its last ones, its last ones, or all."""

BUNDLED = "skimage"
"""``photos:skimage`` is the photographs inside scikit-image, in this order."""

_BUNDLED_PHOTOS = (
    "astronaut", "brick", "camera", "coffee", "gravel", "grass", "hubble", "ihc", "rocket",
    "chelsea", "motorcycle",
)  # fmt: skip


def open_pairs(description: str, part: Part, config: TrainingConfig) -> PairSource:
    """Open a source of pairs.

    Parameters
    ----------
    description
        ``photos:FOLDER`` or ``photos:skimage``, ``synthetic[:key=value,...]``,
        ``colmap:WORKSPACE``, ``megadepth:WORKSPACE``, ``tracks:SRC`` or ``tracks:SRC@BAG``.
    part
        Which of its images to use.
    config
        Uses ``data`` and ``augmentation``, and to run the front-end ``network.weights``.

    Raises
    ------
    D2RosError
        If the kind is unknown, or the source cannot be read or has no pairs.
    """
    kind, _, place = description.partition(":")
    openers: dict[str, Callable[[str, Part, TrainingConfig], PairSource]] = {
        "photos": _photos,
        "synthetic": _synthetic,
        "colmap": _colmap,
        "megadepth": _megadepth,
        "tracks": _tracks,
    }
    if kind not in openers or not (place or kind == "synthetic"):
        raise D2RosError(
            f"data source {description!r} is not understood; write KIND:PLACE with one of "
            f"{', '.join(openers)}"
        )
    pairs = openers[kind](place, part, config)
    if not len(pairs):
        raise D2RosError(
            f"data source {description!r} has no pairs for {part}; check data.held_back, "
            "data.min_overlap and data.max_overlap"
        )
    return pairs


def split(count: int, held_back: float, part: Part) -> range:
    """Indices of one part of `count` images: the last ones are held back.

    So no two neighbours of a sequence, and no two photographs of one place that stand next to each
    other, fall into different parts, but at the one seam.
    """
    first_held = count - round(count * held_back)
    return {
        "training": range(first_held),
        "validation": range(first_held, count),
        "all": range(count),
    }[part]


def _photos(place: str, part: Part, config: TrainingConfig) -> PairSource:
    from d2_ros.sources.folder import open_folder
    from d2_ros.sources.images import read_image
    from d2_ros.sources.synthetic.textures import photograph
    from d2_ros.training.photographs import Photographs

    data = config.data
    if place == BUNDLED:
        load = [partial(photograph, name) for name in _BUNDLED_PHOTOS]
    elif not Path(place).is_dir():
        raise D2RosError(f"{place} is no folder of photographs; give one, or photos:{BUNDLED}")
    else:
        load = [partial(read_image, file) for file in open_folder(Path(place)).files]
    chosen = [load[index] for index in split(len(load), data.held_back, part)]
    return Photographs(chosen, data.crop, data.max_edge, config.augmentation)


def _synthetic(place: str, part: Part, config: TrainingConfig) -> PairSource:
    from d2_ros.sources.synthetic import open_synthetic
    from d2_ros.training.rendered import Rendered

    sequence, data = open_synthetic(place), config.data
    frames = split(len(sequence), data.held_back, part)
    return Rendered(sequence, frames, (data.min_overlap, data.max_overlap))


def _colmap(place: str, part: Part, config: TrainingConfig) -> PairSource:
    from d2_ros.training.colmap import SparsePoints, read_views

    views, data = read_views(Path(place)), config.data
    chosen = [views[index] for index in split(len(views), data.held_back, part)]
    return SparsePoints(chosen, (data.min_overlap, data.max_overlap))


def _megadepth(place: str, part: Part, config: TrainingConfig) -> PairSource:
    from d2_ros.training.colmap import read_views
    from d2_ros.training.depth import DepthMaps

    views, data = read_views(Path(place), pinhole=True), config.data
    chosen = [views[index] for index in split(len(views), data.held_back, part)]
    return DepthMaps(chosen, Path(place) / "depths", (data.min_overlap, data.max_overlap))


def _tracks(place: str, part: Part, config: TrainingConfig) -> PairSource:
    from d2_ros.training.tracked import Tracked, read_tracks

    source, _, bag = place.partition("@")
    data = config.data
    settings = Config(device=config.device, weights=config.network.weights)
    frames = read_tracks(source, Path(bag) if bag else None, settings)
    chosen = [frames[index] for index in split(len(frames), data.held_back, part)]
    return Tracked(chosen, (data.min_overlap, data.max_overlap))
