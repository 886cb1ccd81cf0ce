"""A stretch of a source, for a first look at a long recording."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError
from d2_ros.sources.base import Frame, Source
from d2_ros.sources.files import ImageFiles


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
    if start >= len(source) and next(islice(source, start, None), None) is None:
        raise _nothing_left(source, start)
    return Stretch(source, start, stop)


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
        """Yield the frames in time order; damage behind the stretch does not matter."""
        frame = None
        for frame in islice(self.whole, self.start, self.stop):
            yield frame
        if frame is None:
            raise _nothing_left(self.whole, self.start)

    def poses(self) -> NDArray[np.float64] | None:
        """Ground truth ``T_world_camera``, ``(len, 4, 4)``, NaN where unknown; None without."""
        poses = self.whole.poses()
        return None if poses is None else poses[self.start : self.stop]


def _nothing_left(source: Source, start: int) -> D2RosError:
    return D2RosError(f"{source.name} has no frame after the first {start}; give a smaller --start")
