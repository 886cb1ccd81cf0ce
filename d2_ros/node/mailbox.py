"""Hand-over of images from the executor's thread to the worker (no ROS in here)."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition, Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """One slot per camera that holds its newest item.

    The camera that has waited longest is served first; an item that replaces another takes
    over its place in the queue, so a fast camera cannot starve a slow one.
    """

    def __init__(self) -> None:
        self._slots: dict[str, T] = {}
        self._changed = Condition()
        self._open = True

    def put(self, camera: str, item: T) -> bool:
        """Leave `item`; return whether it replaced one that nobody had taken."""
        with self._changed:
            replaced = camera in self._slots
            self._slots[camera] = item
            self._changed.notify()
            return replaced

    def take(self) -> tuple[str, T] | None:
        """Wait for an item and take it; None once the mailbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._slots or not self._open)
            if not self._open:
                return None
            camera = next(iter(self._slots))
            return camera, self._slots.pop(camera)

    def full(self, camera: str) -> bool:
        """Return whether an item of `camera` waits to be taken."""
        return camera in self._slots

    def close(self) -> None:
        """Drop what waits and let :meth:`take` return None from now on."""
        with self._changed:
            self._open = False
            self._slots.clear()
            self._changed.notify_all()


class Worker(Generic[T]):
    """The one thread that empties a mailbox.

    Parameters
    ----------
    mailbox
        Where the items come from; stopping the worker closes it.
    handle
        Called with camera and item, one after the other. It must not raise.
    on_take
        Called each time a slot has become free.
    """

    def __init__(
        self, mailbox: Mailbox[T], handle: Callable[[str, T], None], on_take: Callable[[], None]
    ) -> None:
        self._mailbox = mailbox
        self._handle = handle
        self._on_take = on_take
        self._thread = Thread(target=self._run, name="d2_frontend_worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (entry := self._mailbox.take()) is not None:
            self._on_take()
            self._handle(*entry)

    def stop(self) -> None:
        """Close the mailbox and wait until the item at hand is done."""
        self._mailbox.close()
        self._thread.join()
