"""Frames at a camera's rate: how many are processed, how late, and what that costs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple

import numpy as np

from d2_ros.benchmark.machine import Usage, usage
from d2_ros.errors import D2RosError
from d2_ros.interruption import held
from d2_ros.node.mailbox import Mailbox, Worker
from d2_ros.sources import Frame

Process = Callable[[Frame], Mapping[str, int]]
"""Processes a frame to its messages; what was in it, ``tracks`` above all."""

_CAMERA = "camera"


class Processed(NamedTuple):
    """A frame with a result: when it was due and when that was there (perf_counter, s)."""

    due: float
    finished: float
    counts: Mapping[str, int]


@dataclass(frozen=True)
class LiveRun:
    """What a run gave, the warm-up left out.

    Attributes
    ----------
    offered
        Frames that the camera has sent.
    results
        Those that were processed, in their order; all others were dropped.
    start, end
        From when the first frame was due until the last result was there (perf_counter, s).
    before, after
        What the processes had used by then.
    ending
        What has ended the run early, such as Ctrl-C; None else.
    """

    offered: int
    results: Sequence[Processed]
    start: float
    end: float
    before: Usage
    after: Usage
    ending: BaseException | None


def back_and_forth(frames: Sequence[Frame], rate: float) -> Iterator[Frame]:
    """Yield the frames forwards, backwards and so on, so that the motion has no jump.

    Their stamps go on from the first one's, at `rate` frames per second.
    """
    last = len(frames) - 1
    for number in count():
        place = number % max(2 * last, 1)
        stamp = frames[0].stamp + round(number * 1e9 / rate)
        yield replace(frames[min(place, 2 * last - place)], stamp=stamp)


def of_one_size(frames: Iterable[Frame]) -> list[Frame]:
    """Take the frames into memory.

    Raises
    ------
    D2RosError
        If there is none, or one has another size.
    """
    taken: list[Frame] = []
    for frame in frames:
        if taken and frame.image.shape != taken[0].image.shape:
            sizes = [" x ".join(map(str, one.image.shape)) for one in (taken[0], frame)]
            raise D2RosError(
                f"--live plays images of one size, but they are {sizes[0]} and then {sizes[1]}; "
                f"use the first {len(taken)} (--frames)"
            )
        taken.append(frame)
    if not taken:
        raise D2RosError("--live has no frames to play")
    return taken


def play(
    frames: Sequence[Frame],
    rate: float,
    seconds: float,
    warmup: float,
    process: Process,
    max_age: float = 0.0,
    shown: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> LiveRun:
    """Hand frames over as a camera does, to a worker that takes the newest, as the node's does.

    The hand-over never waits for the worker. The end does: for the frame at hand and the one that
    waits.

    Parameters
    ----------
    frames
        What the camera sees, forwards, backwards and so on.
    rate
        Frames per second.
    seconds
        That are measured.
    warmup
        Seconds from the first result until then.
    process
        Called in the worker's thread.
    max_age
        Frames that have waited longer, s, are dropped; 0 takes all.
    shown
        Wraps the numbers of the measured frames, to show progress.

    Raises
    ------
    Exception
        What `process` has raised.
    """
    mailbox: Mailbox[tuple[float, Frame]] = Mailbox()
    results: list[Processed] = []
    failures: list[Exception] = []

    def handle(_: str, item: tuple[float, Frame]) -> None:
        due, frame = item
        too_old = 0 < max_age < time.perf_counter() - due
        if failures or (too_old and results):  # the first one ends the wait for it in any case
            return
        try:
            counts = process(frame)
        except Exception as error:  # raised where the frames come from
            failures.append(error)
            return
        results.append(Processed(due, time.perf_counter(), counts))

    worker = Worker(mailbox, handle, lambda: None)
    camera, begin = back_and_forth(frames, rate), time.perf_counter()
    sent, offered, ending = 0, 0, None
    start, before = begin, usage()
    try:
        while not failures and (not results or start < results[0].finished + warmup):
            _hand_over(mailbox, camera, start)
            sent += 1
            start = begin + sent / rate
        before = usage()
        for number in shown(range(max(round(rate * seconds), 1))):
            if failures:
                break
            _hand_over(mailbox, camera, start + number / rate)
            offered = number + 1
        _sleep_until(start + offered / rate)
        while mailbox.full(_CAMERA):
            time.sleep(0.001)
    except (KeyboardInterrupt, SystemExit) as error:
        ending = error
    finally:
        with held():
            worker.stop(0)
            worker.join()
    if failures:
        raise failures[0]
    measured = [result for result in results if result.due >= start] if offered else []
    return LiveRun(offered, measured, start, time.perf_counter(), before, usage(), ending)


def _hand_over(mailbox: Mailbox[tuple[float, Frame]], camera: Iterator[Frame], due: float) -> None:
    frame = next(camera)
    _sleep_until(due)
    mailbox.put(_CAMERA, (due, frame))


def _sleep_until(due: float) -> None:
    time.sleep(max(due - time.perf_counter(), 0))


def live_figures(run: LiveRun) -> dict[str, float | int | str]:
    """Figures of a run; those of the results are left out where there is none."""
    done, seconds = run.results, run.end - run.start
    stops = np.diff([run.start, *(result.finished for result in done), run.end])
    figures: dict[str, float | int | str] = {
        "seconds": seconds,
        "offered": run.offered,
        "processed": len(done),
        "dropped": run.offered - len(done),
        "frames_per_second": len(done) / seconds,
        "longest_stop_ms": float(stops.max()) * 1e3,
        "cpu_share": (run.after.cpu_s - run.before.cpu_s) / seconds / (os.cpu_count() or 1),
        "memory_start_mib": run.before.memory_mib,
        "memory_end_mib": run.after.memory_mib,
    }
    if done:
        latency = np.percentile([r.finished - r.due for r in done], [50, 95, 99, 100]) * 1e3
        names = (f"latency_{name}_ms" for name in ("p50", "p95", "p99", "max"))
        figures |= dict(zip(names, latency.tolist(), strict=True))
        totals = {name: sum(r.counts[name] for r in done) for name in done[0].counts}
        figures["tracks"] = totals.pop("tracks") / len(done)
        figures |= totals
    return figures
