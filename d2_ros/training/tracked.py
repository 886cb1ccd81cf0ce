"""Pairs of frames of a recording, linked by the front-end's own refined tracks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.evaluation.decoding import read_features
from d2_ros.evaluation.geometry import epipolar_errors, relative
from d2_ros.evaluation.pairs import MIN_BASELINE
from d2_ros.records import columns
from d2_ros.sources import Frame, open_source
from d2_ros.training.pairs import Pair, as_bgr, inside, overlapping

FEATURES_TOPIC = "/d2_frontend/camera/features"
"""Where ``d2-ros replay`` writes what it found."""

MAX_EPIPOLAR = 2.0
"""Correspondences further from the true epipolar line, where poses are known, are left out, px."""


@dataclass(frozen=True)
class TrackedFrame:
    """One frame and the tracks it sees.

    Attributes
    ----------
    frame
        Image, stamp and calibration.
    tracks
        ``(N,)`` int64 ids, each once, ascending.
    pixels
        ``(N, 2)`` float64 refined places.
    T_world_camera
        ``(4, 4)``, NaN where unknown.
    """

    frame: Frame
    tracks: NDArray[np.int64]
    pixels: NDArray[np.float64]
    T_world_camera: NDArray[np.float64]


class Tracked:
    """Pairs of frames that share tracks; where poses are known, only what fits them is kept.

    Parameters
    ----------
    frames
        In time order.
    overlap
        Smallest and largest share of tracks in common.
    """

    def __init__(self, frames: Sequence[TrackedFrame], overlap: tuple[float, float]) -> None:
        self._frames = frames
        chosen = overlapping([seen.tracks for seen in frames], *overlap)
        self.pairs = [(i, j) for i, j in chosen if len(self._link(i, j)[0])]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    def draw(self, index: int, rng: np.random.Generator) -> Pair:
        """Return pair `index`; nothing about it is random."""
        i, j = self.pairs[index]
        first, second = (as_bgr(self._frames[k].frame.image) for k in (i, j))
        return Pair(first, second, *self._link(i, j))

    def _link(self, i: int, j: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Places of the common tracks in both frames."""
        a, b = self._frames[i], self._frames[j]
        _, ours, theirs = np.intersect1d(a.tracks, b.tracks, True, True)
        first, second = a.pixels[ours], b.pixels[theirs]
        keep = inside(first, *_size(a.frame)) & inside(second, *_size(b.frame))
        motion = relative(a.T_world_camera, b.T_world_camera)
        if (
            a.frame.camera
            and b.frame.camera
            and np.isfinite(motion).all()
            and np.linalg.norm(motion[:3, 3]) >= MIN_BASELINE
        ):
            cameras = (a.frame.camera, b.frame.camera)
            keep &= epipolar_errors(first, second, cameras, motion) <= MAX_EPIPOLAR
        return first[keep], second[keep]


def read_tracks(source: str, bag: Path | None, config: Config) -> list[TrackedFrame]:
    """Join the frames of a source with the tracks that were found in them.

    Parameters
    ----------
    source
        Anything that :func:`d2_ros.sources.open_source` opens.
    bag
        What ``d2-ros replay`` wrote about it; None runs the front-end over it now.
    config
        Of the front-end, if it is to run.

    Raises
    ------
    D2RosError
        If either cannot be read, or they have no frame in common.
    """
    opened = open_source(source)
    rows = dict(read_features(bag, FEATURES_TOPIC)) if bag else _run(opened, config)
    poses = opened.poses()
    frames = []
    for index, frame in enumerate(opened):
        if frame.stamp in rows:
            pose = np.full((4, 4), np.nan) if poses is None else poses[index]
            frames.append(_tracked(frame, rows[frame.stamp], pose))
    if not frames:
        raise D2RosError(
            f"{bag} has tracks of no frame of {source}; give the bag that `d2-ros replay {source}` "
            "wrote"
        )
    return frames


def _run(frames: Iterable[Frame], config: Config) -> dict[int, NDArray[np.void]]:
    from rich.console import Console
    from rich.progress import track

    from d2_ros.frontend import FrontEnd

    frontend = FrontEnd(config)
    watched = track(frames, "Tracking", console=Console(stderr=True))
    return {
        frame.stamp: frontend.process(frame.image, frame.stamp, frame.camera).features
        for frame in watched
    }


def _tracked(frame: Frame, rows: NDArray[Any], pose: NDArray[np.float64]) -> TrackedFrame:
    rows = rows[rows["track_id"] > 0]  # without an aligned match a row has no track
    tracks, order = np.unique(rows["track_id"].astype(np.int64), return_index=True)
    return TrackedFrame(frame, tracks, columns(rows, "u", "v")[order], pose)


def _size(frame: Frame) -> tuple[int, int]:
    return frame.image.shape[1], frame.image.shape[0]
