"""What happened to the frames of one camera: counts, times and the last error."""

from __future__ import annotations

import time
from collections import Counter, deque
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from d2_ros.records import FrameResult

LOG_INTERVAL = 10.0
"""Seconds between two log lines for the same cause of dropped frames."""

SMOOTHING = 0.1
"""Weight of the newest frame in the mean stage times."""

RECENT = 200
"""Frames over which latencies are given."""

REFUSALS = ("unmatched", "too_old", "bad_image", "bad_calibration", "refused", "device_failed",
            "failed")  # fmt: skip
"""Causes of drops that somebody should look into."""

DROPS = ("overwritten", "out_of_order", "stopped", *REFUSALS)
"""Every cause for which a received frame is not processed."""

WARNINGS = (*REFUSALS, "calibration_lost")
"""Counts that make a camera's status a warning while they grow. A frame whose calibration is lost
is processed, without bearings, in a window that had one."""

PILE = 3
PILE_FRAMES = 30
"""So many resets within so many frames are a warning: no track lives long, and what is wrong is
wrong again and again. A recording that starts over or a new calibration gives one reset."""


class FrameTimes(NamedTuple):
    """When a frame went where, milliseconds.

    Attributes
    ----------
    waited
        From its receipt to the beginning of its processing.
    total
        From there to its publication.
    age
        From its own stamp to its publication, by the node's clock.
    """

    waited: float
    total: float
    age: float


class CameraStatus:
    """Written by the executor's thread and the worker's, read by the diagnostics.

    Frames that were published but never came are lost, as far as the middleware tells. Every
    received frame is in the end either processed or dropped for one of :data:`DROPS`; until then
    it counts as waiting.
    """

    def __init__(self, camera: str) -> None:
        self.camera = camera
        self._lock = Lock()
        names = ("lost", "received", "processed", *DROPS, "keyframes", "resets", "calibration_lost",
                 "loops", "not_looked_up")  # fmt: skip
        self._counts: Counter[str] = Counter(dict.fromkeys(names, 0))
        self._stages: dict[str, float] = {}
        self._times: deque[FrameTimes] = deque(maxlen=RECENT)
        self._shape: dict[str, object] = {"tracks": 0}
        self._last_error = ""
        self._reset_at: deque[int] = deque(maxlen=PILE)  # frames processed by then
        self._reset_reason = ""
        self._logged: dict[str, float] = {}
        self._reported: Counter[str] = Counter()
        self._report_time = time.monotonic()

    def count(self, event: str, times: int = 1) -> None:
        """Count `event`."""
        with self._lock:
            self._counts[event] += times

    def counts(self) -> dict[str, int]:
        """Return all counts so far, and how many frames were dropped and still wait."""
        with self._lock:
            return self._all_counts()

    def _all_counts(self) -> dict[str, int]:
        dropped = sum(self._counts[cause] for cause in DROPS)
        waiting = self._counts["received"] - self._counts["processed"] - dropped
        return {**self._counts, "dropped": dropped, "waiting": waiting}

    def refuse(self, cause: str, reason: str) -> bool:
        """Count a frame with a fault; return whether it is time to log `cause` again."""
        with self._lock:
            self._counts[cause] += 1
            self._last_error = reason
            return self._due(cause)

    def reset(self, reason: str) -> tuple[bool, bool]:
        """Count a dropped window; whether to log it, and whether such resets pile up."""
        with self._lock:
            self._counts["resets"] += 1
            self._reset_at.append(self._counts["processed"])
            self._reset_reason = reason
            piled = bool(self._pile())
            if piled:
                self._last_error = f"keyframe window dropped {reason}"
            return self._due(f"reset {reason}, {piled}"), piled

    def _due(self, cause: str) -> bool:
        now = time.monotonic()
        due = now - self._logged.get(cause, -LOG_INTERVAL) >= LOG_INTERVAL
        if due:
            self._logged[cause] = now
        return due

    def _pile(self) -> str:
        """Return a complaint while resets pile up."""
        if len(self._reset_at) < PILE:
            return ""
        frames = self._counts["processed"] - self._reset_at[0]
        if frames > PILE_FRAMES:
            return ""
        return f"{PILE} resets in {frames} frames, the last {self._reset_reason}"

    def finish(
        self, result: FrameResult, times: FrameTimes, right: NDArray[np.void] | None = None
    ) -> None:
        """Record a processed frame, and what the right camera of a stereo pair saw of it."""
        shape = _shape(result)
        if right is not None:
            shape["stereo_matches"] = len(right)
        with self._lock:
            self._counts["processed"] += 1
            self._counts["keyframes"] += result.is_keyframe
            self._shape = shape
            self._times.append(times)
            for stage, spent in {**result.timings_ms, "total": times.total}.items():
                mean = self._stages.get(stage, spent)
                self._stages[stage] = mean + SMOOTHING * (spent - mean)

    def report(self) -> tuple[list[str], dict[str, object]]:
        """Return the warnings since the last report, and every value as of now."""
        now = time.monotonic()
        with self._lock:
            fresh = self._counts - self._reported  # keeps what has grown
            seconds = max(now - self._report_time, 1e-3)
            self._reported, self._report_time = self._counts.copy(), now
            values: dict[str, object] = {**self._all_counts(), **self._shape}
            values |= {f"{stage}_mean_ms": f"{mean:.2f}" for stage, mean in self._stages.items()}
            values["last_error"], pile = self._last_error, self._pile()
            times = np.array(self._times, np.float64).reshape(-1, 3)
        values["rate_in_hz"] = f"{fresh['received'] / seconds:.2f}"
        values["rate_out_hz"] = f"{fresh['processed'] / seconds:.2f}"
        latencies = {
            "queueing": times[:, 0],
            "latency": times[:, 0] + times[:, 1],
            "age_at_publication": times[:, 2],
        }
        for name, taken in latencies.items():
            if len(taken):
                values[f"{name}_p50_ms"], values[f"{name}_p99_ms"] = (
                    f"{value:.2f}" for value in np.percentile(taken, [50, 99])
                )
        warnings = [f"{fresh[cause]} {cause}" for cause in WARNINGS if fresh[cause]]
        return warnings + ([pile] if pile else []), values


def _shape(result: FrameResult) -> dict[str, object]:
    """Return what tells a good frame from a poor one."""
    features = result.features
    tracked = features[features["track_id"] > 0]
    refined = tracked[tracked["refined"] > 0]
    move = np.hypot(refined["u"] - refined["u_detected"], refined["v"] - refined["v_detected"])
    return {
        "keypoints": len(features),
        "tracks": len(tracked),
        "track_length_median": _median(tracked["track_length"]),
        "matches": len(result.matches),
        "inlier_share": _mean(result.matches["inlier"]),
        "refinement_move_median_px": _median(move),
    }


def _median(values: NDArray[Any]) -> str:
    return f"{np.median(values):.3g}" if len(values) else "none"


def _mean(values: NDArray[Any]) -> str:
    return f"{np.mean(values):.3f}" if len(values) else "none"
