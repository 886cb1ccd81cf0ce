"""``d2-ros doctor --self-test``: every stage on this machine's device, against the CPU in fp32.

Each stage gets the same input on both sides, so that the one that is wrong is the one that is
named; the last one is the whole path, each side with its own network.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from d2_ros.benchmark.machine import device_name, settler
from d2_ros.commands.common import load_config, output_file, write_json
from d2_ros.config import Config, with_values
from d2_ros.features import detection
from d2_ros.features.batch import BatchResult
from d2_ros.features.device import to_device
from d2_ros.features.extractor import Extractor, ResponseMap
from d2_ros.frontend import FrontEnd
from d2_ros.matching import batched
from d2_ros.matching.cutting import cut
from d2_ros.matching.neighbours import match
from d2_ros.matching.patches import disc
from d2_ros.matching.pyramid import build_pyramid, to_gray
from d2_ros.matching.steps import steps_for
from d2_ros.records import columns
from d2_ros.sources.base import Frame
from d2_ros.sources.synthetic import open_synthetic
from d2_ros.tracks.following import flow

SEQUENCE = "size=240x180,frames=8"
"""Its first two frames are the pair: the same light, and no blur."""

RESPONSE = {"fp32": 0.01, "fp16": 0.02, "bf16": 0.1, "int8": 0.5}
"""Largest difference of two responses, as a share of the largest one: fp32 has room for TF32."""

LOST = {"fp32": 0.05, "fp16": 0.1, "bf16": 0.2, "int8": 0.4}
"""Share of a frame's features that the other network may place elsewhere."""

_NEAR = 1.0  # px

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

    def run(self) -> Iterator[Verdict]:
        """Yield a verdict for every stage, each as soon as it is known."""
        for name, stage in STAGES.items():
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


def network(test: SelfTest) -> Difference:
    """The response to an image."""

    def work(extractor: Extractor) -> torch.Tensor:
        return extractor.respond([test.frames[0].image])[0].values

    ours, theirs = (values.float().cpu() for values in test.both(work))
    worst = float((ours - theirs).abs().max() / ours.abs().max())
    tolerance = RESPONSE[test.tested.plan.precision]
    return Difference("response, as a share of the largest", worst, tolerance)


def detect(test: SelfTest) -> Difference:
    """The keypoints of one response."""

    def work(extractor: Extractor) -> NDArray[np.float32]:
        peaks = detection.detect(test.response(0, extractor).values)
        settings = extractor.config.features
        chosen = detection.spread(peaks.cells, peaks.scores, 4.0, settings.max_keypoints)
        return peaks.cells[chosen].cpu().numpy()

    ours, theirs = test.both(work)
    # Equal values of two channels, common in half precision, may be told apart either way.
    return Difference("share of keypoints elsewhere", _elsewhere(ours, theirs, 0.01), 0.02)


def describe(test: SelfTest) -> Difference:
    """The descriptors at given places of one response."""

    def work(extractor: Extractor) -> torch.Tensor:
        cells = to_device(test.cells[0].numpy(), extractor.device)
        return detection.sample(test.response(0, extractor).values, cells)

    ours, theirs = (values.cpu() for values in test.both(work))
    return Difference("descriptors of length 1", float((ours - theirs).abs().max()), 1e-3)


def matching(test: SelfTest) -> Difference:
    """The mutual nearest neighbours among given descriptors of two keyframes."""
    maps = [test.response(number, test.reference).values for number in (0, 1)]
    first, second = (
        detection.sample(values, cells) for values, cells in zip(maps, test.cells, strict=True)
    )

    def work(extractor: Extractor) -> set[tuple[int, ...]]:
        here = [to_device(part.numpy(), extractor.device) for part in (second, first, first[::2])]
        found = match(here[0], here[1:])
        return set(
            zip(
                found.keyframe.tolist(),
                found.index.tolist(),
                found.keyframe_index.tolist(),
                strict=True,
            )
        )

    ours, theirs = test.both(work)
    return Difference("share of matches that differ", len(ours ^ theirs) / max(len(ours), 1), 0.01)


def pyramid(test: SelfTest) -> Difference:
    """The gray pyramid of an image."""

    def work(extractor: Extractor) -> list[torch.Tensor]:
        levels = build_pyramid(test.grays[0], test.config.alignment.levels, extractor.device)
        return [level.texels for level in levels]

    ours, theirs = test.both(work)
    worst = max(float((a - b.cpu()).abs().max()) for a, b in zip(ours, theirs, strict=True))
    return Difference("gray values, of 255", worst, 0.01)


def alignment(test: SelfTest) -> Difference:
    """Patches of the first image in the second, from given places: a CPU's way, and a GPU's."""
    before, now = (np.rint(gray).astype(np.uint8) for gray in test.grays)
    starts, found = flow(before, now, test.places)
    places, starts = test.places[found], starts[found].astype(np.float32)
    settings = test.config.alignment

    def work(extractor: Extractor) -> torch.Tensor:
        device = extractor.device
        one, two = (build_pyramid(gray, 1, device) for gray in test.grays)
        patches = cut(one, places, settings.patch_radius)[0]
        shape = disc(settings.patch_radius, device)
        pixels = to_device(starts, device)[None]
        affine = torch.eye(2, device=device).expand(1, len(starts), 2, 2).contiguous()
        # Without a GPU what one would do is done on the CPU: machine code is held against it.
        steps = steps_for(two[0]) if extractor is test.reference else batched
        place, shear = steps.track(patches, two[0], pixels, affine, shape, settings.max_iterations)
        place, _, score = steps.finish(patches, two[0], place, shear, shape)
        return torch.cat([place, score[:, 1:2]], 1)

    ours, theirs = (values.cpu().numpy() for values in test.both(work))
    sure = ours[:, 2] > settings.min_correlation
    distance = np.linalg.norm((ours - theirs)[sure, :2], axis=1)
    return Difference("px, of 99 % of the patches", _most(distance), 0.03)


def refinement(test: SelfTest) -> Difference:
    """Places of the second frame's keypoints, from the same responses on both sides."""

    def work(extractor: Extractor) -> NDArray[np.void]:
        return _second(test, extractor, shared=True)

    ours, theirs = test.both(work)
    near, row = cKDTree(_columns(theirs, "detected")).query(_columns(ours, "detected"))
    moved = np.linalg.norm(_columns(ours) - _columns(theirs)[row], axis=1)
    distance = np.where(near < 0.01, moved, np.inf)[ours["track_id"] > 0]
    return Difference("px, of 95 % of the tracked features", _most(distance, 0.95), 0.03)


def frame(test: SelfTest) -> Difference:
    """The second frame by the whole path, each side with its own network."""

    def work(extractor: Extractor) -> NDArray[np.void]:
        return _second(test, extractor, shared=False)

    ours, theirs = test.both(work, warm=True)
    ours, theirs = (rows[rows["track_id"] > 0] for rows in (ours, theirs))
    lost = _elsewhere(_columns(ours), _columns(theirs), _NEAR)
    tolerance = LOST[test.tested.plan.precision]
    return Difference("share of tracked features elsewhere", lost, tolerance)


STAGES: dict[str, Callable[[SelfTest], Difference]] = {
    "network": network,
    "detection": detect,
    "description": describe,
    "matching": matching,
    "pyramid": pyramid,
    "alignment": alignment,
    "refinement": refinement,
    "frame": frame,
}
"""In the order in which a frame goes through them."""


def _second(test: SelfTest, extractor: Extractor, shared: bool) -> NDArray[np.void]:
    """Features of the second frame; `shared`: from the CPU's response."""
    frontend = FrontEnd(extractor.config, extractor)
    for number, image in enumerate(test.frames):
        given = BatchResult(extractor, test.response(number, extractor), {}) if shared else None
        result = frontend.process(image.image, image.stamp, image.camera, given)
    return result.features


def _columns(rows: NDArray[np.void], kind: str = "") -> NDArray[np.float64]:
    names = [f"{axis}_{kind}" if kind else axis for axis in ("u", "v")]
    return columns(rows, *names)


def _elsewhere(ours: NDArray[Any], theirs: NDArray[Any], near: float) -> float:
    """Share of places that have none of the other side's nearby; 1 where there are none."""
    if not len(ours) or not len(theirs):
        return 1.0
    return float((cKDTree(theirs).query(ours)[0] > near).mean())


def _most(distances: NDArray[np.float64], share: float = 0.99) -> float:
    """What that share of them does not exceed; infinite where there are none."""
    if not len(distances):
        return float(np.inf)
    return float(np.sort(np.nan_to_num(distances, nan=np.inf))[int(share * (len(distances) - 1))])


def title(test: SelfTest, asked: str) -> str:
    """What is tested against what, in a sentence; `asked` is the parameter ``device``."""
    plan = test.tested.plan
    what = f"network in {plan.precision} by {plan.runtime}"
    if plan.device.type != "cpu":
        return f"{device_name(plan.device)}, {what}, against the CPU in fp32:"
    why = "" if asked == "cpu" else "There is no GPU here that torch can use. Tested instead: "
    return f"{why}this CPU, {what}, against itself in fp32, torch's batched alignment included:"


def report(
    device: str | None,
    params_file: Path | None,
    overrides: Sequence[str] | None,
    json_file: Path | None,
) -> bool:
    """Print a line per stage; whether all are good.

    Raises
    ------
    D2RosError
        For parameters that the node would refuse, and as :class:`SelfTest` does.
    """
    config = load_config(params_file, overrides)
    config = config if device is None else with_values(config, {"device": device})
    if json_file:
        output_file(json_file, params_file)
    test, verdicts = SelfTest(config), []
    typer.echo(title(test, config.device))
    for verdict in test.run():
        verdicts.append(verdict)
        typer.echo(line(verdict))
    if json_file:
        write_json(json_file, to_figures(verdicts))
    wrong = ", ".join(verdict.stage for verdict in verdicts if not verdict.good)
    typer.echo(f"\nNot as on the CPU: {wrong}." if wrong else "\nEvery stage is as on the CPU.")
    return not wrong


def line(verdict: Verdict) -> str:
    """A verdict in words."""
    state = typer.style(
        f"{'ok' if verdict.good else 'FAIL':5}", fg="green" if verdict.good else "red"
    )
    if verdict.difference is None:
        return f"{verdict.stage:12} {state} {verdict.reason}"
    compared, worst, tolerance = verdict.difference
    times = f"CPU {verdict.reference_ms:.1f} ms, tested {verdict.tested_ms:.1f} ms"
    return f"{verdict.stage:12} {state} {compared}: {worst:.2g} (at most {tolerance:g}); {times}"


def to_figures(verdicts: Sequence[Verdict]) -> dict[str, float | int | str]:
    """Flatten verdicts to ``<stage>.state``, ``.worst``, ``.tolerance`` and times in ms.

    Of a stage that has raised an exception there is ``.reason`` instead of figures.
    """
    figures: dict[str, float | int | str] = {}
    for verdict in verdicts:
        figures[f"{verdict.stage}.state"] = "ok" if verdict.good else "FAIL"
        if verdict.difference is None:
            figures[f"{verdict.stage}.reason"] = verdict.reason
            continue
        figures[f"{verdict.stage}.compared"] = verdict.difference.compared
        figures[f"{verdict.stage}.worst"] = min(verdict.difference.worst, sys.float_info.max)
        figures[f"{verdict.stage}.tolerance"] = verdict.difference.tolerance
        figures[f"{verdict.stage}.cpu_ms"] = verdict.reference_ms
        figures[f"{verdict.stage}.tested_ms"] = verdict.tested_ms
    return figures
