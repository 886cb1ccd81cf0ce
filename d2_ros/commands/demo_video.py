"""The overlays that were recorded, as a film and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError
from d2_ros.sources.bagfiles import Bag
from d2_ros.sources.images import decode_compressed

TOPIC = "/d2_frontend/camera/overlay/compressed"


def write_overlays(folder: Path, published: Sequence[tuple[int, NDArray[np.void]]]) -> None:
    """Write ``overlay.mp4`` (PNGs where OpenCV has no encoder) and ``overlay.png``.

    Parameters
    ----------
    folder
        Holds ``features.mcap``.
    published
        ``(stamp in ns, rows of records.FEATURES)`` per frame; the picture is the frame where
        most has been tracked for longest.
    """
    pictures = _overlays(folder / "features.mcap")
    best = int(
        np.argmax([rows["track_length"][rows["refined"] > 0].sum() for _, rows in published])
    )
    stamps = [stamp for stamp, _ in published]
    rate = 1e9 / float(np.median(np.diff(stamps))) if len(stamps) > 1 else 1.0
    film: cv2.VideoWriter | None = None
    for number, picture in enumerate(pictures):
        if number == 0:
            size = (picture.shape[1], picture.shape[0])
            code = cv2.VideoWriter.fourcc(*"mp4v")
            film = cv2.VideoWriter(str(folder / "overlay.mp4"), code, rate, size)
        if film is not None and film.isOpened():
            film.write(picture)
        else:
            _write_png(folder / f"overlay_{number:04d}.png", picture)
        if number == best:
            _write_png(folder / "overlay.png", picture)
    if film is not None:
        film.release()


def _overlays(bag: Path) -> Iterator[NDArray[Any]]:
    for _, message in Bag([bag]).messages([TOPIC]):
        yield decode_compressed(message.format, message.data)


def _write_png(path: Path, picture: NDArray[Any]) -> None:
    if not cv2.imwrite(str(path), picture):
        raise D2RosError(f"cannot write {path}")
