"""How a command ends when it is told to: as after Ctrl-C, and never within a result."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGHUP)
"""Signals that ask a process to end, beside Ctrl-C's: at a shutdown, or a closed terminal."""


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP unwind the stack, so that files are closed; the code is 128 + number.

    A signal that somebody handles or ignores already, as under ``nohup``, stays so.
    """
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _unwind)


def _unwind(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextmanager
def held() -> Iterator[None]:
    """Put off Ctrl-C, SIGTERM and SIGHUP until the block has ended.

    So a bag never ends within a message, nor with a part of a frame's messages.
    """
    came: list[int] = []
    before = {}
    main = threading.current_thread() is threading.main_thread()  # the only one that gets signals
    try:
        for number in (signal.SIGINT, *ENDING) if main else ():
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
