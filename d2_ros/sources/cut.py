"""A stretch of a source, for a first look at a long recording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError
from d2_ros.sources.base import Frame, Source, UnusableFrame
from d2_ros.sources.files import ImageFiles
from d2_ros.sources.truth import Timed


def cut(source: Source, start: int = 0, frames: int | None = None) -> Source:
    """Leave out the first `start` frames, and all but `frames` of the others.

    Parameters
    ----------
    source
        What was opened.
    start
        Frames to skip at the beginning.
    frames
        Frames to use at most; None for all.

    Returns
    -------
    `source` itself if that is all of it; else a source whose frames, length and poses are those
    of the stretch.

    Raises
    ------
    D2RosError
        If a number makes no sense or nothing is left; of a source whose length is an estimate,
        that shows while iterating.
    """
    if start < 0 or (frames is not None and frames < 1):
        raise D2RosError(
            f"--start {start} and --frames {frames} leave no frames; skip 0 or more, use 1 or more"
        )
    if start == 0 and frames is None:
        return source
    stop = None if frames is None else start + frames
    if isinstance(source, ImageFiles):  # no need to decode what is skipped
        if start >= len(source):
            raise _nothing_left(source, start)
        poses = source.ground_truth
        return replace(
            source,
            stamps=source.stamps[start:stop],
            files=source.files[start:stop],
            ground_truth=None if poses is None else poses[start:stop],
        )
    # The length may be an estimate (videos): only where it says that all is skipped, look.
    stretch = Stretch(source, start, stop)
    if start >= len(source):
        with suppress(UnusableFrame):
            next(iter(stretch))
    return stretch


@dataclass(frozen=True, eq=False)
class Stretch:
    """Frames `start` to `stop` (not itself; None for the end) of a source."""

    whole: Source
    start: int
    stop: int | None

    @property
    def name(self) -> str:
        """What was opened, for reports."""
        return self.whole.name

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(range(len(self.whole))[self.start : self.stop])

    def __iter__(self) -> Iterator[Frame]:
        """Return the frames in time order; damage behind the stretch does not matter."""
        return _Frames(self.whole, self.start, self.stop)

    def poses(self) -> NDArray[np.float64] | None:
        """Ground truth ``T_world_camera``, ``(len, 4, 4)``, NaN where unknown; None without."""
        poses = self.whole.poses()
        return None if poses is None else poses[self.start : self.stop]

    def clocks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Stamps of the frames and of the known poses, ns, where the whole tells them."""
        none: NDArray[np.int64] = np.empty(0, np.int64)
        images, truth = self.whole.clocks() if isinstance(self.whole, Timed) else (none, none)
        return images[self.start : self.stop], truth


class _Frames:
    """Frames `start` to `stop` of a source; like its own iterator, goes on after unusable ones."""

    def __init__(self, source: Source, start: int, stop: int | None) -> None:
        self._source = source
        self._frames = iter(source)
        self._start, self._stop = start, stop
        self._asked = 0

    def __iter__(self) -> _Frames:
        return self

    def __next__(self) -> Frame:
        if self._asked == self._stop:
            raise StopIteration
        try:
            while self._asked < self._start:
                self._asked += 1
                with suppress(UnusableFrame):
                    next(self._frames)
            frame = next(self._frames)
        except UnusableFrame:
            self._asked += 1
            raise
        except StopIteration:
            if self._asked <= self._start:
                raise _nothing_left(self._source, self._start) from None
            raise
        self._asked += 1
        return frame


def _nothing_left(source: Source, start: int) -> D2RosError:
    return D2RosError(f"{source.name} has no frame after the first {start}; give a smaller --start")
