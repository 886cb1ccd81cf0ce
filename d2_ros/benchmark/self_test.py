"""A stage on this machine's device and on the CPU in fp32, from the same input."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.benchmark.machine import settler
from d2_ros.config import Config, with_values
from d2_ros.features import detection
from d2_ros.features.extractor import Extractor, ResponseMap
from d2_ros.matching.pyramid import to_gray
from d2_ros.sources.base import Frame
from d2_ros.sources.synthetic import open_synthetic

SEQUENCE = "size=240x180,frames=8"
"""Its first two frames are the pair: the same light, and no blur."""

_Output = TypeVar("_Output")


class Difference(NamedTuple):
    """How far a stage's two results are apart, in the unit that `compared` says."""

    compared: str
    worst: float
    tolerance: float


@dataclass(frozen=True)
class Verdict:
    """One line of the report.

    Attributes
    ----------
    stage
        Name.
    difference
        None where the stage has raised an exception.
    reference_ms, tested_ms
        Time of the stage on both sides.
    reason
        What the exception said.
    """

    stage: str
    difference: Difference | None
    reference_ms: float
    tested_ms: float
    reason: str = ""

    @property
    def good(self) -> bool:
        """Whether the stage does what it does on the CPU."""
        return self.difference is not None and self.difference.worst <= self.difference.tolerance


class SelfTest:
    """Both sides, and what they are given.

    Parameters
    ----------
    config
        As the node would have it: its device, precision, runtime and weights are tested.

    Raises
    ------
    D2RosError
        If the network cannot be used as `config` says, or there is nothing to render the
        sequence with.
    """

    def __init__(self, config: Config) -> None:
        # Followed frames would not show what the network has to do with it.
        self.config = with_values(config, {"features.extract": "every_frame"})
        plain = {"device": "cpu", "precision": "fp32", "runtime": "torch"}
        self.tested = Extractor(self.config)
        self.reference = Extractor(with_values(self.config, plain))
        self.frames: list[Frame] = list(islice(open_synthetic(SEQUENCE), 2))
        self.grays = [to_gray(frame.image) for frame in self.frames]
        self._times: list[float] = []

    def run(self, stages: Mapping[str, Stage]) -> Iterator[Verdict]:
        """Yield a verdict for every stage, each as soon as it is known."""
        for name, stage in stages.items():
            self._times, reason, difference = [], "", None
            try:
                with torch.inference_mode():
                    difference = stage(self)
            except Exception as error:  # whatever a device can do wrong is what is looked for
                text = (str(error).strip().splitlines() or [""])[0]
                reason = f"raises {type(error).__name__}: {text}"
            times = [*self._times, np.nan, np.nan]
            yield Verdict(name, difference, times[0], times[1], reason)

    def both(
        self, work: Callable[[Extractor], _Output], warm: bool = False
    ) -> tuple[_Output, _Output]:
        """What `work` gives on the CPU and on the tested side, timed.

        The first use of a GPU is slow, so it is done twice but where all is `warm` already.
        """
        results = []
        for extractor in (self.reference, self.tested):
            settle = settler(extractor.device) or (lambda: None)
            if not warm:
                work(extractor)
                settle()
            begin = time.perf_counter()
            results.append(work(extractor))
            settle()
            self._times.append((time.perf_counter() - begin) * 1e3)
        return results[0], results[1]

    def response(self, number: int, extractor: Extractor) -> ResponseMap:
        """The CPU's response to a frame, rounded to what the tested side computes in."""
        known = self._responses[number]
        values = known.values.to(self.tested.dtype).to(extractor.device, extractor.dtype)
        return ResponseMap(values, known.scale, known.projection)

    @cached_property
    def _responses(self) -> list[ResponseMap]:
        return self.reference.respond([frame.image for frame in self.frames])

    @cached_property
    def cells(self) -> list[torch.Tensor]:
        """Where the CPU detects keypoints in each frame, cells."""
        maps = [self.response(number, self.reference) for number in (0, 1)]
        return [detection.detect(response.values).cells for response in maps]

    @cached_property
    def places(self) -> NDArray[np.float64]:
        """The same in the first frame, px."""
        return self._responses[0].cells_to_pixels(self.cells[0].numpy())


Stage = Callable[[SelfTest], Difference]
"""Does one thing on both sides and says how far the results are apart."""
