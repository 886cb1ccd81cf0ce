"""Making a vocabulary out of photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError, optional_import
from d2_ros.places.vlad import Floats, Vocabulary, aggregate, unit

LOCAL, WORDS, SIZE = 128, 64, 256
"""Axes that descriptors are projected to, words, and length of the whitened VLAD."""

_ITERATIONS = 30  # of k-means
_WINDOW = 0.6  # side of a window over that of the photograph
_STEPS = 3  # windows per axis
_FLOOR = 1e-3  # share of the largest variance that is added to all: noise is not blown up


def make_vocabulary(
    keypoints: Sequence[NDArray[np.float32]],
    descriptors: Sequence[Floats],
    provenance: Mapping[str, str],
    seed: int = 0,
) -> Vocabulary:
    """Learn projection, words and whitening.

    An image of a robot is a part of a scene, and there are few photographs: each also counts as
    nine overlapping windows, which differ in the keypoints that lie in them.

    Parameters
    ----------
    keypoints
        Per photograph ``(N, 2)`` px.
    descriptors
        Per photograph ``(N, D)``, of unit length.
    provenance
        Is kept with the vocabulary.
    seed
        Of k-means.

    Raises
    ------
    D2RosError
        If there are too few photographs or faiss is missing.
    """
    with optional_import("a vocabulary takes faiss; pip install faiss-cpu"):
        import faiss

    everything = np.concatenate([np.asarray(rows, np.float32) for rows in descriptors])
    axes = min(LOCAL, everything.shape[1])
    # Not centred: scalar products, by which descriptors are matched, are kept best so.
    _, vectors = np.linalg.eigh(everything.T.astype(np.float64) @ everything)
    projection = np.ascontiguousarray(vectors[:, ::-1][:, :axes], np.float32)
    local = [unit(np.asarray(rows, np.float32) @ projection) for rows in descriptors]
    kmeans = faiss.Kmeans(axes, WORDS, niter=_ITERATIONS, seed=seed)
    kmeans.train(np.concatenate(local))
    words = np.asarray(kmeans.centroids, np.float32)
    samples = np.stack(
        [
            aggregate(rows[inside], words)
            for places, rows in zip(keypoints, local, strict=True)
            for inside in _windows(places)
        ]
    )
    if len(samples) <= SIZE:
        raise D2RosError(
            f"{len(keypoints)} photographs give {len(samples)} windows; give enough for {SIZE + 1}"
        )
    mean = samples.mean(0)
    _, spread, across = np.linalg.svd(samples - mean, full_matrices=False)
    variance = spread[:SIZE] ** 2 / len(samples)
    scale = 1 / np.sqrt(variance + _FLOOR * variance[0])
    # The length of the result is normalised: this keeps the numbers within float16.
    whitening = across[:SIZE].T * (scale / scale.max())
    return Vocabulary(projection, words, mean, whitening.astype(np.float32), dict(provenance))


def _windows(keypoints: NDArray[np.float32]) -> list[NDArray[np.bool_]]:
    """Which keypoints lie in the photograph, and in each window of it."""
    low, size = keypoints.min(0), np.ptp(keypoints, axis=0)
    starts = np.linspace(0, 1 - _WINDOW, _STEPS)
    inside: list[NDArray[np.bool_]] = [np.ones(len(keypoints), bool)]
    for across in starts:
        for down in starts:
            corner = low + size * (across, down)
            inside.append(
                ((keypoints >= corner) & (keypoints <= corner + _WINDOW * size)).all(axis=1)
            )
    return inside
