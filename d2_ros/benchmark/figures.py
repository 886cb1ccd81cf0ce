"""A measurement as figures: percentiles, ratios to the network, distances to the floors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from d2_ros.benchmark.measure import Measurement
from d2_ros.evaluation.tables import Column

STAGE_COLUMNS: tuple[Column, ...] = (
    *((f"{name}_ms", f"{name} ms", "{:.2f}") for name in ("p50", "p95", "p99", "max")),
    ("keyframe_p50_ms", "keyframes' p50", "{:.2f}"),
    ("over_network", "/ network", "{:.4f}"),
    ("floor_ms", "floor ms", "{:.2f}"),
    ("over_floor", "/ floor", "{:.1f}"),
)
SCALING_COLUMNS: tuple[Column, ...] = (
    *((f"{name}_p50_ms", f"{name} ms", "{:.1f}") for name in ("network", "rest", "total")),
    ("total_p95_ms", "total p95", "{:.1f}"),
    ("rest_over_network", "rest / network", "{:.3f}"),
    ("frames_per_second", "frames/s", "{:.2f}"),
    ("keypoints", "keypoints", "{:.0f}"),
    ("matches", "matches", "{:.0f}"),
    ("host_mib", "host MiB", "{:.0f}"),
    ("device_mib", "device MiB", "{:.0f}"),
)
LIVE_COLUMNS: tuple[Column, ...] = (
    ("offered", "offered", "{:d}"),
    ("processed", "processed", "{:d}"),
    ("dropped", "dropped", "{:d}"),
    ("frames_per_second", "frames/s", "{:.2f}"),
    *((f"latency_{name}_ms", f"{name} ms", "{:.1f}") for name in ("p50", "p95", "p99", "max")),
    ("longest_stop_ms", "longest stop ms", "{:.0f}"),
    ("tracks", "tracks", "{:.0f}"),
    ("followed", "followed", "{:d}"),
    ("extracted", "extracted", "{:d}"),
    ("keyframes", "keyframes", "{:d}"),
    ("cpu_share", "CPU", "{:.0%}"),
    ("memory_start_mib", "MiB at start", "{:.0f}"),
    ("memory_end_mib", "MiB at end", "{:.0f}"),
)


def stage_figures(
    measured: Measurement, floors_ms: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Figures of every stage, of ``rest`` (all but the network) and of ``total``."""
    times = with_rest(measured)
    network = float(np.median(_forward_passes(times)))
    figures = {stage: _percentiles(values) for stage, values in times.items()}
    figures["network"] = _percentiles(_forward_passes(times))
    for stage, named in figures.items():
        named["over_network"] = named["p50_ms"] / network
        if measured.keyframes.any():
            named["keyframe_p50_ms"] = float(np.median(times[stage][measured.keyframes]))
        if stage in floors_ms:
            named["floor_ms"] = floors_ms[stage]
            named["over_floor"] = named["p50_ms"] / floors_ms[stage]
    return figures


def with_rest(measured: Measurement) -> dict[str, NDArray[np.float64]]:
    """The stages' times with ``rest`` before the total."""
    times = dict(measured.stages_ms)
    total = times.pop("total")
    return {**times, "rest": total - times["network"], "total": total}


def _forward_passes(times: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """The network's times in the frames that it has seen: not in those that were followed."""
    return times["network"][times["network"] > 0]


def _percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    names = ("p50_ms", "p95_ms", "p99_ms", "max_ms")
    return dict(zip(names, np.percentile(values, [50, 95, 99, 100]).tolist(), strict=True))


def run_figures(measured: Measurement, cameras: int) -> dict[str, float]:
    """Figures of a whole run; throughput counts the frames of all cameras."""
    times = with_rest(measured)
    median = {name: float(np.median(times[name])) for name in ("rest", "total")}
    median["network"] = float(np.median(_forward_passes(times)))
    frames = cameras * len(measured)
    figures = {
        "frames": float(frames),
        **{f"{name}_p50_ms": value for name, value in median.items()},
        "total_p95_ms": float(np.percentile(times["total"], 95)),
        "rest_over_network": median["rest"] / median["network"],
        "frames_per_second": frames / measured.seconds,
        **measured.means,
        **measured.memory_mib,
    }
    if np.isfinite(measured.watts):
        figures["power_w"] = measured.watts
        figures["energy_per_frame_j"] = measured.watts * measured.seconds / frames
    return figures
