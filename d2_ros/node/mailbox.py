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

    @property
    def closed(self) -> bool:
        """Whether the mailbox takes nothing any more."""
        return not self._open

    def put(self, camera: str, item: T) -> str | None:
        """Leave `item`; return why an item was dropped, if one was.

        ``overwritten``: it replaced one that nobody had taken; ``stopped``: the mailbox is closed.
        """
        with self._changed:
            if not self._open:
                return "stopped"
            replaced = camera in self._slots
            self._slots[camera] = item
            self._changed.notify()
            return "overwritten" if replaced else None

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

    def close(self) -> list[str]:
        """Drop what waits, let :meth:`take` return None from now on; return whose items it was."""
        with self._changed:
            self._open = False
            dropped = list(self._slots)
            self._slots.clear()
            self._changed.notify_all()
            return dropped


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

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def stop(self, patience: float) -> list[str]:
        """Close the mailbox; return the cameras whose items it dropped.

        The item at hand is waited for, but no longer than `patience` seconds: it ends by itself,
        and whoever handles it sees by the closed mailbox that its result is no longer wanted.
        """
        dropped = self._mailbox.close()
        self._thread.join(patience)
        return dropped

    def join(self) -> None:
        """Wait until the thread has ended, after :meth:`stop`."""
        self._thread.join()
