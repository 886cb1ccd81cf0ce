"""The stages of a frame, as the self-test compares them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from d2_ros.benchmark.self_test import Difference, SelfTest, Stage
from d2_ros.features import detection
from d2_ros.features.batch import BatchResult
from d2_ros.features.device import to_device
from d2_ros.features.extractor import Extractor
from d2_ros.frontend import FrontEnd
from d2_ros.matching import batched
from d2_ros.matching.cutting import cut
from d2_ros.matching.neighbours import match
from d2_ros.matching.patches import disc
from d2_ros.matching.pyramid import build_pyramid
from d2_ros.matching.steps import steps_for
from d2_ros.records import columns
from d2_ros.tracks.following import flow

RESPONSE = {"fp32": 0.01, "fp16": 0.02, "bf16": 0.1, "int8": 0.5}
"""Largest difference of two responses, as a share of the largest one: fp32 has room for TF32."""

LOST = {"fp32": 0.05, "fp16": 0.1, "bf16": 0.2, "int8": 0.4}
"""Share of a frame's features that the other network may place elsewhere."""

_NEAR = 1.0  # px


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


STAGES: dict[str, Stage] = {
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
