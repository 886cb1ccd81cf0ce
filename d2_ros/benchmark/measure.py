"""Time per stage of every frame, with the window full."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from d2_ros.benchmark.machine import PowerMeter, memory
from d2_ros.config import Config, with_values
from d2_ros.features.batch import BatchResult, respond_together
from d2_ros.frontend import FrontEnd
from d2_ros.records import FrameResult
from d2_ros.sources import Frame
from d2_ros.timing import Stopwatch


class Writer(Protocol):
    """What turns a frame's results into messages."""

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Serialise everything that `result` holds."""
        ...


@dataclass(frozen=True)
class Channel:
    """One camera: its front-end and where its results go, by the stage each way is timed as."""

    frontend: FrontEnd
    writers: dict[str, Writer]


@dataclass(frozen=True)
class Measurement:
    """What a run gave.

    Attributes
    ----------
    stages_ms
        Per stage, ``(F,)`` milliseconds of every frame, in the order of the stages; 0 where a
        frame did without one. ``total`` is from the decoded image to its messages.
    keyframes
        ``(F,)`` bool: whether the frame became a keyframe, in any of the cameras.
    seconds
        Of the whole run, decoding included.
    means
        Per frame, over the cameras: ``keypoints``, ``matches``, ``tracks``, and ``keyframes``, the
        share of frames that were one.
    memory_mib
        As of :func:`d2_ros.benchmark.machine.memory` at the end, and ``host_growth_mib``.
    watts
        Mean power of the GPU; NaN where it could not be had.
    """

    stages_ms: dict[str, NDArray[np.float64]]
    keyframes: NDArray[np.bool_]
    seconds: float
    means: dict[str, float]
    memory_mib: dict[str, float]
    watts: float

    def __len__(self) -> int:
        return len(self.keyframes)


def measure(
    frames: Iterator[Frame],
    channels: Sequence[Channel],
    config: Config,
    warmup: int,
    count: int,
    settle: Callable[[], object] | None = None,
    shown: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Measurement:
    """Process `warmup` frames, then `count` frames whose times count.

    In the warm-up every frame becomes a keyframe, and it lasts until the window is full.

    Parameters
    ----------
    frames
        Of all cameras alike.
    channels
        The cameras, whose times add up; several share a run of the network per frame, as
        synchronised cameras do in the node.
    config
        Parameters of the measured frames.
    warmup, count
        Frames.
    settle
        Waits for the device; called at the end of every stage.
    shown
        Wraps the numbers of the frames, to show progress.
    """
    eager = with_values(config, {"window.min_tracked_share": 1.0})
    warm, device = max(warmup, config.window.size), channels[0].frontend.device
    for channel in channels:
        channel.frontend.config = eager
        channel.frontend.stopwatch = partial(Stopwatch, settle)
    numbers = iter(shown(range(warm + count)))
    for _ in islice(numbers, warm):
        _process(next(frames), channels)
    for channel in channels:
        channel.frontend.config = config
    timings: list[dict[str, float]] = []
    counts, keyframes = [], []
    before, started = memory(device), time.perf_counter()
    with PowerMeter(device) as power:
        for _ in numbers:
            start = time.perf_counter()
            frame = next(frames)
            decode = (time.perf_counter() - start) * 1e3
            timing, results = _process(frame, channels)
            timings.append({"decode": decode, **timing})
            counts += [_count(result) for result in results]
            keyframes.append(any(result.is_keyframe for result in results))
        seconds = time.perf_counter() - started
    after = memory(device)
    if "host_mib" in after:
        after["host_growth_mib"] = after["host_mib"] - before["host_mib"]
    return Measurement(
        stages_ms={
            stage: np.array([timing.get(stage, 0.0) for timing in timings])
            for stage in _order(timings)
        },
        keyframes=np.array(keyframes),
        seconds=seconds,
        means={name: float(np.mean([count[name] for count in counts])) for name in counts[0]},
        memory_mib=after,
        watts=power.watts,
    )


def _process(
    frame: Frame, channels: Sequence[Channel]
) -> tuple[dict[str, float], list[FrameResult]]:
    """Times of one frame in every camera, added up, and the results."""
    timings: defaultdict[str, float] = defaultdict(float)
    results = []
    whole = Stopwatch()
    batch_results = _batch_results(frame, channels)
    whole.end_section("batch")
    timings["total"] += whole.sections_ms["batch"]
    for channel, batched in zip(channels, batch_results, strict=True):
        watch = Stopwatch()
        result = channel.frontend.process(frame.image, frame.stamp, frame.camera, batched)
        watch.end_section("process")
        for stage, writer in channel.writers.items():
            writer.write(frame, result)
            watch.end_section(stage)
        spent = watch.sections_ms.pop("process")
        timings["total"] += spent + watch.sections_ms.get("serialisation", 0.0)
        for stage, milliseconds in (*result.timings_ms.items(), *watch.sections_ms.items()):
            timings[stage] += milliseconds
        results.append(result)
    return dict(timings), results


def _batch_results(frame: Frame, channels: Sequence[Channel]) -> Sequence[BatchResult | None]:
    """What one batch over all cameras gives for each; None for a camera that is alone."""
    if len(channels) < 2:
        return [None]
    first = channels[0].frontend
    return respond_together(first.extractor, [frame.image] * len(channels), first.stopwatch())


def _count(result: FrameResult) -> dict[str, int]:
    return {
        "keypoints": len(result.features),
        "matches": len(result.matches),
        "tracks": int(np.count_nonzero(result.features["track_id"])),
        "keyframes": int(result.is_keyframe),
    }


def _order(timings: Sequence[Mapping[str, float]]) -> list[str]:
    """Every stage that occurs, those outside of the front-end and the total last."""
    last = ["serialisation", "publishing", "total"]
    names = dict.fromkeys(name for timing in timings for name in timing)
    return [*(name for name in names if name not in last), *(n for n in last if n in names)]
