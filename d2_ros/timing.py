"""Where the time of a frame goes, and when time itself jumps."""

from __future__ import annotations

import time
from collections.abc import Callable

CLOCK_JUMP = 1_000_000_000
"""A frame this much (ns) before the last one means that the clock was set back or that the
recording starts over; the node and the offline replay then reset alike."""


class Stopwatch:
    """Milliseconds per timing section, one per stage, in the order in which they ended.

    Parameters
    ----------
    settle
        Called at the end of every section, to wait for a device that works asynchronously; without
        it, such work counts for the stage that first needs its result.
    """

    def __init__(self, settle: Callable[[], object] | None = None) -> None:
        self.sections_ms: dict[str, float] = {}
        self._settle = settle
        self._last = time.perf_counter()

    def end_section(self, stage: str) -> None:
        """End the section of `stage`; time spent twice under one name adds up."""
        if self._settle is not None:
            self._settle()
        now = time.perf_counter()
        self.sections_ms[stage] = self.sections_ms.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now
