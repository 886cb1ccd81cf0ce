"""Where the time of a frame goes, and when time itself jumps."""

from __future__ import annotations

import time

CLOCK_JUMP = 1_000_000_000
"""A frame this much (ns) before the last one means that the clock was set back or that the
recording starts over; the node and the offline replay then reset alike."""


class Stopwatch:
    """Milliseconds per stage, in the order in which the stages ended."""

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """End `stage`; time spent twice under one name adds up."""
        now = time.perf_counter()
        self.laps_ms[stage] = self.laps_ms.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now
