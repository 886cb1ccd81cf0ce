"""The second camera of a pair: where it is, and its frames by the time of the first one's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import right_of
from d2_ros.sources.base import Frame, Source


@runtime_checkable
class Mounted(Protocol):
    """A source that knows where its camera is on the body that carries it."""

    def mount(self) -> NDArray[np.float64] | None:
        """``(4, 4)`` T_body_camera, m; None where it is not known."""
        ...


def pair_pose(left: Source, right: Source) -> NDArray[np.float64] | None:
    """``(4, 4)`` T_left_right of two cameras of one recording, m; None where it is not known."""
    if type(left) is not type(right) or not (
        isinstance(left, Mounted) and isinstance(right, Mounted)
    ):
        return None  # what they call their body need not be the same
    return right_of(left.mount(), right.mount())


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
