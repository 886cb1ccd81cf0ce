"""Matching accuracy on held-back pairs, as the front-end detects, describes and matches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from d2_ros.features import detection
from d2_ros.features.network import OFFSET, STRIDE
from d2_ros.matching.neighbours import match
from d2_ros.training.pairs import Pair, true_places

THRESHOLDS_PX = (1, 3, 5)

Respond = Callable[[Tensor], Tensor]
"""``(2, H, W, 3)`` uint8 BGR windows, on the CPU -> ``(2, C, h, w)`` response, stride 4."""

_GRID_CELLS = 16  # along the image, over which keypoints are spread, as in the front-end


@dataclass(frozen=True)
class Accuracy:
    """What a network does on a set of pairs.

    Attributes
    ----------
    mma_1px, mma_3px, mma_5px
        Share of the mutual matches, of those whose true place is known, that lie within so much
        of it; mean over pairs, where one without such matches counts as 0.
    matches
        Mutual matches with a known true place, mean over pairs.
    """

    mma_1px: float
    mma_3px: float
    mma_5px: float
    matches: float


@torch.inference_mode()
def validate(respond: Respond, pairs: Sequence[Pair], max_keypoints: int) -> Accuracy:
    """Match every pair on the grid in use.

    Parameters
    ----------
    respond
        The network.
    pairs
        Held back from the training.
    max_keypoints
        Most keypoints per image.
    """
    found = [match_errors(respond, pair, max_keypoints) for pair in pairs]
    shares = [
        [float((errors <= limit).sum()) / max(len(errors), 1) for limit in THRESHOLDS_PX]
        for errors in found
    ]
    within_1, within_3, within_5 = np.mean(shares, axis=0).tolist()
    matches = float(np.mean([len(errors) for errors in found]))
    return Accuracy(within_1, within_3, within_5, matches)


def match_errors(respond: Respond, pair: Pair, max_keypoints: int) -> NDArray[np.float64]:
    """Distance of the mutual matches of a pair from their true places, px; known ones only."""
    responses = respond(torch.from_numpy(np.stack([pair.first, pair.second])))
    first, second = (keypoints(values, max_keypoints) for values in responses)
    matches = match(second[1], [first[1]])
    truth = true_places(pair, first[0][matches.keyframe_index])
    errors = np.linalg.norm(truth - second[0][matches.index], axis=1)
    return errors[np.isfinite(errors)]


def keypoints(values: Tensor, most: int) -> tuple[NDArray[np.float64], Tensor]:
    """``(N, 2)`` pixels and ``(N, C)`` descriptors of the keypoints of one response."""
    peaks = detection.detect(values)
    chosen = detection.spread(peaks.cells, peaks.scores, max(values.shape[1:]) / _GRID_CELLS, most)
    cells = peaks.cells[chosen]
    pixels = cells.cpu().numpy().astype(np.float64) * STRIDE + OFFSET
    return pixels, detection.sample(values, cells)
