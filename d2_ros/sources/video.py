"""Video files, as far as OpenCV reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError
from d2_ros.sources.base import Frame


class Video:
    """Frames of a video without calibration, stamped by the file's own clock from zero.

    Where that clock stands still, a frame comes one nominal period after the last one.

    Raises
    ------
    D2RosError
        If OpenCV cannot read the file; while iterating, if it ends early.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        capture = self._open()
        rate = capture.get(cv2.CAP_PROP_FPS)
        self._count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        readable, _ = capture.read()
        capture.release()
        if not readable or not 0 < rate < 1e5 or self._count < 1:
            raise D2RosError(f"video {path} has no readable frames; convert it with ffmpeg")
        self._period = round(1e9 / rate)

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(self.name)
        if not capture.isOpened():
            raise D2RosError(
                f"{self.name} is neither a bag (.mcap, .db3, .bag) nor a video that OpenCV reads; "
                "convert it with ffmpeg or give the folder of a dataset"
            )
        return capture

    def __len__(self) -> int:
        """Return the number of frames that the file states."""
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
        if count < self._count:
            raise D2RosError(
                f"video {self.name} ends after {count} of {self._count} frames; it is cut short "
                "or damaged, convert it with ffmpeg"
            )

    def poses(self) -> NDArray[np.float64] | None:
        """There is no ground truth."""
        return None
