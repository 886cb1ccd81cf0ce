"""Images of several cameras -> groups of one image each, taken at one time (no ROS in here)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

from d2_ros.timing import CLOCK_JUMP

T = TypeVar("T")

DEPTH = 2
"""Images of each camera that wait for the others' at most: with one alone, cameras whose images
reach the node a frame apart would never meet. Whoever can hold images back needs only one."""


@dataclass(frozen=True)
class Drop:
    """An image that belongs to no group: whose, why, its stamp (ns), and who was missing."""

    camera: str
    cause: str
    stamp: int
    missing: tuple[str, ...] = ()


class Groups(Generic[T]):
    """Sorts images into groups as they come.

    The stamps of a group lie within the tolerance of each other. The earliest image that waits is
    either the first of a group, or waits for a camera that may still send its own, or is dropped:
    once a camera is past its time, no partner can come any more. Hence groups leave in the order
    of time, and none is missed by whoever puts no image of a camera of which one waits.

    Where the time of one camera jumps back, what waits is dropped and sorting begins anew; the
    others then lag behind it until their time jumps as well, or is not far from its any more.

    Parameters
    ----------
    cameras
        Whose images make a group, one of each.
    tolerance
        Largest difference of two stamps in a group, integer nanoseconds.
    """

    def __init__(self, cameras: Iterable[str], tolerance: int) -> None:
        self._tolerance = tolerance
        self._waiting: dict[str, deque[tuple[int, T]]] = {camera: deque() for camera in cameras}
        self._last: dict[str, int] = {}
        self._lagging: set[str] = set()
        self._open = True
        self._lock = Lock()

    def put(self, camera: str, stamp: int, item: T) -> tuple[dict[str, T] | None, list[Drop]]:
        """Take an image; return the group that it completes, if it does, and who was dropped.

        Causes: ``out_of_order`` (not later than the camera's last image), ``unmatched``,
        ``stopped`` (after :meth:`close`).
        """
        with self._lock:
            if not self._open:
                return None, [Drop(camera, "stopped", stamp)]
            last = self._last.get(camera, stamp - 1)
            if last - CLOCK_JUMP < stamp <= last:
                return None, [Drop(camera, "out_of_order", stamp)]
            self._last[camera] = stamp
            dropped: list[Drop] = []
            if camera in self._lagging:
                newest = max(self._last[name] for name in self._last.keys() - self._lagging)
                if last < stamp and stamp - newest >= CLOCK_JUMP:
                    partners = tuple(name for name in self._waiting if name != camera)
                    return None, [Drop(camera, "unmatched", stamp, partners)]
                self._lagging.remove(camera)
            elif stamp <= last:
                self._lagging = self._waiting.keys() - {camera}
                while (earliest := self._earliest()) is not None:
                    dropped.append(self._drop(earliest))
            queue = self._waiting[camera]
            queue.append((stamp, item))
            group = self._sort(dropped)
            if len(queue) > DEPTH:
                dropped.append(self._drop(camera))
            return group, dropped

    def waits(self, camera: str) -> int:
        """Return how many images of `camera` wait for a partner."""
        return len(self._waiting[camera])

    def close(self) -> list[str]:
        """Drop what waits and take nothing any more; return whose images it was."""
        with self._lock:
            self._open = False
            dropped = [camera for camera, queue in self._waiting.items() for _ in queue]
            for queue in self._waiting.values():
                queue.clear()
            return dropped

    def _sort(self, dropped: list[Drop]) -> dict[str, T] | None:
        """Return the group that is complete; one image completes one at most."""
        while (earliest := self._earliest()) is not None:
            latest = self._waiting[earliest][0][0] + self._tolerance
            missing = self._missing(latest)
            if not missing:
                return {camera: queue.popleft()[1] for camera, queue in self._waiting.items()}
            if not any(self._is_past(latest, camera) for camera in missing):
                return None
            dropped.append(self._drop(earliest))
        return None

    def _is_past(self, time: int, camera: str) -> bool:
        return camera not in self._lagging and self._last.get(camera, time) > time

    def _earliest(self) -> str | None:
        heads = [(queue[0][0], camera) for camera, queue in self._waiting.items() if queue]
        return min(heads)[1] if heads else None

    def _missing(self, latest: int) -> tuple[str, ...]:
        """Return the cameras of which no image up to `latest` waits."""
        queues = self._waiting.items()
        return tuple(camera for camera, queue in queues if not queue or queue[0][0] > latest)

    def _drop(self, camera: str) -> Drop:
        stamp = self._waiting[camera][0][0]
        missing = self._missing(stamp + self._tolerance)
        self._waiting[camera].popleft()
        return Drop(camera, "unmatched", stamp, missing)
