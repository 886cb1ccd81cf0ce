"""Mutual nearest neighbours of a frame's descriptors among those of every keyframe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Matches:
    """Tentative matches of a frame with the keyframes of a window.

    Attributes
    ----------
    index
        ``(M,)`` int64 row of the frame's keypoint.
    keyframe
        ``(M,)`` int64 position of the keyframe in the window.
    keyframe_index
        ``(M,)`` int64 row of that keyframe's keypoint.
    similarity
        ``(M,)`` float32 cosine similarity.
    """

    index: NDArray[np.int64]
    keyframe: NDArray[np.int64]
    keyframe_index: NDArray[np.int64]
    similarity: NDArray[np.float32]

    def __post_init__(self) -> None:
        lengths = {len(column) for column in vars(self).values()}
        if len(lengths) != 1:
            raise ValueError("the columns of Matches must have one length")

    def __len__(self) -> int:
        return len(self.index)

    def select(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Matches:
        """The matches of `rows`."""
        return Matches(
            self.index[rows],
            self.keyframe[rows],
            self.keyframe_index[rows],
            self.similarity[rows],
        )


def match(descriptors: torch.Tensor, keyframes: Sequence[torch.Tensor]) -> Matches:
    """Match `descriptors` with those of every keyframe, mutually nearest by cosine.

    No similarity threshold and no ratio test: both harm D2-Net, and the geometry decides.

    Parameters
    ----------
    descriptors
        ``(N, K)`` L2-normalised.
    keyframes
        K tensors ``(N_k, K)``, L2-normalised, on the same device.

    Returns
    -------
    Matches, ordered by keyframe, then by index.
    """
    # On a GPU the window is one batched product; a CPU is faster where each one stays in its cache.
    step = len(keyframes) if descriptors.is_cuda else 1
    parts = [
        _match(descriptors, keyframes[begin : begin + step], begin)
        for begin in range(0, len(keyframes), max(step, 1))
    ]
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Matches(*(np.concatenate(column) for column in columns)) if parts else no_matches()


def _match(descriptors: torch.Tensor, keyframes: Sequence[torch.Tensor], number: int) -> Matches:
    """Match with some keyframes, of which the first has this number, in one batched product."""
    sizes = [len(keyframe) for keyframe in keyframes]
    if len(descriptors) == 0 or sum(sizes) == 0:
        return no_matches()
    padded = torch.nn.utils.rnn.pad_sequence(list(keyframes), batch_first=True)
    similarity = descriptors @ padded.transpose(1, 2)  # (K, N, max N_k)
    for product, size in zip(similarity, sizes, strict=True):
        product[:, size:] = -2.0  # padding never wins
    best, forward = similarity.max(2)
    # The best of every column tells mutual pairs as well as its place would, and is found faster.
    mutual = (torch.gather(similarity.amax(1), 1, forward) == best) & (best > -2.0)
    # What is not mutual comes back as well, in one transfer: to be rid of it on a GPU takes as many
    # as there are columns. A float32 holds every row up to 2^24.
    table = torch.stack([mutual.float(), forward.float(), best.float()]).cpu().numpy()
    keyframe, index = np.nonzero(table[0])
    theirs = table[1, keyframe, index].astype(np.int64)
    # Of descriptors that are all alike, only the first is taken.
    first = np.sort(np.unique(keyframe * similarity.shape[2] + theirs, return_index=True)[1])
    return Matches(
        index[first],
        keyframe[first] + number,
        theirs[first],
        table[2, keyframe, index][first],
    )


def no_matches() -> Matches:
    """None at all."""
    none = np.empty(0, np.int64)
    return Matches(none, none, none, np.empty(0, np.float32))
