"""How far one runtime's responses are from another's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from d2_ros.features import detection
from d2_ros.features.network import STRIDE

RADIUS_PX = 1.0
"""Two keypoints of one channel are equal within this many network px."""


@dataclass(frozen=True)
class Comparison:
    """Of one runtime with the reference.

    Attributes
    ----------
    worst_error
        Largest difference of two responses, as a share of the largest response.
    relative_error
        Length of all differences over the length of all responses.
    same_channel
        Share of cells whose strongest channel is the same.
    same_keypoints
        Share of the reference's keypoints found in the same channel, within :data:`RADIUS_PX`.
    keypoints
        Of the reference.
    """

    worst_error: float
    relative_error: float
    same_channel: float
    same_keypoints: float
    keypoints: int


@torch.inference_mode()
def compare(
    reference: Callable[[Tensor], Tensor],
    other: Callable[[Tensor], Tensor],
    images: Sequence[Tensor],
) -> Comparison:
    """Run both over batches of images, each as :meth:`Runtime.respond` takes them."""
    worst = largest = squares = length = 0.0
    same = cells = found = keypoints = 0
    for batch in images:
        first, second = reference(batch).float(), other(batch).float()
        worst = max(worst, float((first - second).abs().max()))
        largest = max(largest, float(first.abs().max()))
        squares += float((first - second).square().sum(dtype=torch.float64))
        length += float(first.square().sum(dtype=torch.float64))
        same += int((first.argmax(1) == second.argmax(1)).sum())
        cells += first.shape[0] * first.shape[2] * first.shape[3]
        for ours, theirs in zip(first, second, strict=True):
            equal = equal_keypoints(ours, theirs)
            found, keypoints = found + int(equal.sum()), keypoints + len(equal)
    return Comparison(
        worst_error=worst / max(largest, 1e-12),
        relative_error=float(np.sqrt(squares / max(length, 1e-12))),
        same_channel=same / max(cells, 1),
        same_keypoints=found / max(keypoints, 1),
        keypoints=keypoints,
    )


def equal_keypoints(reference: Tensor, other: Tensor) -> Tensor:
    """Which of the reference's keypoints the other response map has too.

    Parameters
    ----------
    reference, other
        ``(C, h, w)`` responses.

    Returns
    -------
    ``(N,)`` bool, in the order of :func:`~d2_ros.features.detection.detect`.
    """
    ours, theirs = detection.detect(reference), detection.detect(other)
    if not len(theirs.cells):
        return torch.zeros(len(ours.cells), dtype=torch.bool)
    near = torch.cdist(ours.cells.float(), theirs.cells.float()) * STRIDE <= RADIUS_PX
    return (near & (ours.channels[:, None] == theirs.channels)).any(1)
