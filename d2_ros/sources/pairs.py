"""Frames of a second camera, by the time at which the first one took its own."""

from __future__ import annotations

from collections.abc import Iterable

from d2_ros.sources.base import Frame


class Partners:
    """Finds the frames that were taken together with others.

    Parameters
    ----------
    frames
        In time order.
    tolerance
        Largest difference of two stamps of one time, integer nanoseconds.
    """

    def __init__(self, frames: Iterable[Frame], tolerance: int) -> None:
        self._rest = iter(frames)
        self._next = next(self._rest, None)
        self._tolerance = tolerance

    def at(self, stamp: int) -> Frame | None:
        """Return the frame of that time, or None; ask in the order of time.

        A frame is given once. Those that nobody asks for are left out.
        """
        while self._next is not None and self._next.stamp < stamp - self._tolerance:
            self._next = next(self._rest, None)
        found = self._next
        if found is None or found.stamp > stamp + self._tolerance:
            return None
        self._next = next(self._rest, None)
        return found
