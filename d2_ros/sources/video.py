"""Video files, as far as OpenCV reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError
from d2_ros.sources.base import Frame
from d2_ros.sources.containers import is_cut_short

FALLBACK_RATE = 25.0
"""Frames per second of a stream that tells no sensible rate."""


class Video:
    """Frames of a video without calibration, stamped by the file's own clock from zero.

    Where that clock stands still, a frame comes one nominal period after the last one.

    Raises
    ------
    D2RosError
        If OpenCV cannot read the file; while iterating, at the end if the file is cut short.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        capture = self._open()
        rate = capture.get(cv2.CAP_PROP_FPS)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        readable, _ = capture.read()
        capture.release()
        if not readable:
            cut = "is cut short and " if is_cut_short(path) else ""
            raise D2RosError(f"video {path} {cut}has no readable frames; convert it with ffmpeg")
        self._period = round(1e9 / (rate if 0 < rate < 1e5 else FALLBACK_RATE))
        self._count = count if 0 < count <= path.stat().st_size else 0

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(self.name)
        if capture.isOpened():
            return capture
        if is_cut_short(self._path):
            raise D2RosError(
                f"video {self.name} is cut short, and its index was at its end; copy it again"
            )
        raise D2RosError(
            f"{self.name} is neither a bag (.mcap, .db3, .bag) nor a video that OpenCV reads; "
            "convert it with ffmpeg or give the folder of a dataset"
        )

    def __len__(self) -> int:
        """Return an estimate of the number of frames, 0 where the file gives none."""
        return self._count

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in time order."""
        capture = self._open()
        stamp, count = -self._period, 0
        try:
            while True:
                readable, image = capture.read()
                if not readable:
                    break
                clock = round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
                stamp = clock if clock > stamp else stamp + self._period
                count += 1
                yield Frame(stamp, np.asarray(image, np.uint8), None)
        finally:
            capture.release()
        if is_cut_short(self._path):
            raise D2RosError(
                f"video {self.name} is cut short: it ends after {count} frames, before the end "
                "that it states; copy it again or convert it with ffmpeg"
            )

    def poses(self) -> NDArray[np.float64] | None:
        """There is no ground truth."""
        return None
