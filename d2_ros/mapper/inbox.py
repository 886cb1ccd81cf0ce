"""What a mapper is told, put in its order: messages of several topics come as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

_AHEAD = 10
"""Messages that wait for others. Windows supersede those before; a frame goes without stereo."""


class Ready(NamedTuple, Generic[T]):
    """A message whose turn has come, and for ``features`` what ``stereo`` says of them, if any."""

    topic: str
    stamp: int
    message: T
    stereo: T | None


class Inbox(Generic[T]):
    """Puts messages in their order.

    ``features`` wait for ``stereo`` of the same stamp, ``tracks`` for its frame, and ``loops`` for
    the ``tracks`` that tell of its keyframe.

    Parameters
    ----------
    stereo
        Whether there is such a topic.
    """

    def __init__(self, stereo: bool) -> None:
        self._pair = stereo
        self._frames: deque[tuple[int, T]] = deque()
        self._windows: deque[tuple[int, T]] = deque(maxlen=_AHEAD)
        self._loops: deque[tuple[int, T]] = deque(maxlen=_AHEAD)
        self._stereo: dict[int, T] = {}
        self._reached = self._mapped = -1

    def put(self, topic: str, stamp: int, message: T) -> Iterator[Ready[T]]:
        """Take a message; yield those whose turn has come."""
        if topic == "features":
            newest = self._frames[-1][0] if self._frames else self._reached
            if stamp < newest:  # time has jumped: what waits is of another run
                yield from self.flush()
                self._windows.clear()
                self._stereo.clear()
                self._reached = self._mapped = -1
            self._frames.append((stamp, message))
        elif topic == "tracks":
            self._windows.append((stamp, message))
        elif topic == "loops":
            self._loops.append((stamp, message))
        else:
            self._stereo[stamp] = message
            while len(self._stereo) > _AHEAD:
                del self._stereo[next(iter(self._stereo))]
        while self._frames and self._is_complete(self._frames[0][0]):
            yield from self._next_frame()
        yield from self._due()

    def flush(self) -> Iterator[Ready[T]]:
        """Yield the frames and loops that still wait, at the end of a recording."""
        while self._frames:
            yield from self._next_frame()
        while self._loops:
            yield Ready("loops", *self._loops.popleft(), None)

    def _is_complete(self, stamp: int) -> bool:
        late = max(self._stereo, default=-1) >= stamp or len(self._frames) > _AHEAD
        return late or not self._pair

    def _next_frame(self) -> Iterator[Ready[T]]:
        self._reached, message = self._frames.popleft()
        yield Ready("features", self._reached, message, self._stereo.pop(self._reached, None))
        yield from self._due()

    def _due(self) -> Iterator[Ready[T]]:
        while self._windows and self._windows[0][0] <= self._reached:
            self._mapped, message = self._windows.popleft()
            yield Ready("tracks", self._mapped, message, None)
        while self._loops and self._loops[0][0] <= self._mapped:
            yield Ready("loops", *self._loops.popleft(), None)
