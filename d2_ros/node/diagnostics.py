"""Counts, times and the last error, as ``diagnostic_msgs/DiagnosticArray``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from threading import Lock

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from d2_ros.records import FrameResult

LOG_INTERVAL = 10.0
"""Seconds between two log lines for the same cause of refused frames."""

SMOOTHING = 0.1
"""Weight of the newest frame in the mean stage times."""

REFUSALS = ("bad_image", "bad_calibration", "refused", "failed")
"""Causes that make a camera's status a warning while they grow."""


class CameraStatus:
    """What happened to the frames of one camera; written by two threads."""

    def __init__(self, camera: str) -> None:
        self.camera = camera
        self._lock = Lock()
        self._counts: Counter[str] = Counter(
            received=0, processed=0, keyframes=0, overwritten=0, out_of_order=0, resets=0
        )
        self._counts.update(dict.fromkeys(REFUSALS, 0))
        self._times: dict[str, float] = {}
        self._tracks = 0
        self._last_error = ""
        self._logged: dict[str, float] = {}
        self._reported: Counter[str] = Counter()

    def count(self, event: str) -> None:
        """Count one `event`."""
        with self._lock:
            self._counts[event] += 1

    def counts(self) -> dict[str, int]:
        """Return all counts so far."""
        with self._lock:
            return dict(self._counts)

    def refuse(self, cause: str, reason: str) -> bool:
        """Count a refused frame; return whether it is time to log `cause` again."""
        now = time.monotonic()
        with self._lock:
            self._counts[cause] += 1
            self._last_error = reason
            due = now - self._logged.get(cause, -LOG_INTERVAL) >= LOG_INTERVAL
            if due:
                self._logged[cause] = now
            return due

    def finish(self, result: FrameResult, total_ms: float) -> None:
        """Record a processed frame."""
        with self._lock:
            self._counts["processed"] += 1
            self._counts["keyframes"] += result.is_keyframe
            self._tracks = int(np.count_nonzero(result.features["track_id"]))
            for stage, spent in {**result.timings_ms, "total": total_ms}.items():
                mean = self._times.get(stage, spent)
                self._times[stage] = mean + SMOOTHING * (spent - mean)

    def report(self) -> DiagnosticStatus:
        """Return the state, a warning if frames were refused since the last report."""
        with self._lock:
            fresh = {
                cause: self._counts[cause] - self._reported[cause]
                for cause in REFUSALS
                if self._counts[cause] > self._reported[cause]
            }
            self._reported = self._counts.copy()
            values: dict[str, object] = dict(self._counts)
            values |= {"tracks": self._tracks, "last_error": self._last_error}
            values |= {f"{stage}_mean_ms": f"{mean:.2f}" for stage, mean in self._times.items()}
        if fresh:
            level = DiagnosticStatus.WARN
            message = ", ".join(f"{count} {cause}" for cause, count in fresh.items())
        else:
            level, message = DiagnosticStatus.OK, "ok"
        return make_status(level, self.camera, message, values)


def make_status(
    level: bytes, name: str, message: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """Return one entry of the array; `name` is ``node`` or a camera."""
    return DiagnosticStatus(
        level=level,
        name=f"d2_frontend: {name}",
        message=message,
        hardware_id=name,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )


def make_array(header: Header, statuses: list[DiagnosticStatus]) -> DiagnosticArray:
    """Return the message for ``/diagnostics``."""
    return DiagnosticArray(header=header, status=statuses)
