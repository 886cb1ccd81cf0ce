"""One short vector per image: VLAD of its descriptors.

Jegou et al., "Aggregating local descriptors into a compact image representation" (CVPR 2010);
intra-normalised, Arandjelovic and Zisserman, "All about VLAD" (CVPR 2013); whitened by PCA, Jegou
and Chum, "Negative evidences and co-occurrences in image retrieval" (ECCV 2012).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError

SHIPPED = Path(__file__).parent / "data" / "vocabulary.safetensors"
"""The vocabulary of D2-Net's descriptors that comes with the package."""

_KIND = "d2_ros vocabulary"
_TENSORS = ("projection", "words", "mean", "whitening")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Vocabulary:
    """What descriptors are aggregated with.

    Attributes
    ----------
    projection
        ``(D, d)`` float32: descriptors to the d axes in which they differ most.
    words
        ``(W, d)`` float32 centres of the clusters of projected descriptors.
    mean
        ``(W d,)`` float32: mean of the aggregates, before whitening.
    whitening
        ``(W d, K)`` float32.
    provenance
        What it was made of, and how.
    """

    projection: Floats
    words: Floats
    mean: Floats
    whitening: Floats
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        words, local = self.words.shape
        if (
            self.projection.shape[1:] != (local,)
            or self.mean.shape != (words * local,)
            or self.whitening.shape[:1] != (words * local,)
        ):
            raise ValueError("the arrays of a Vocabulary do not fit each other")

    @cached_property
    def identity(self) -> str:
        """Sixteen hexadecimal digits that tell it from any other."""
        digest = hashlib.sha256()
        for name in _TENSORS:
            digest.update(np.ascontiguousarray(getattr(self, name), np.float16).tobytes())
        return digest.hexdigest()[:16]

    def project(self, descriptors: Floats) -> Floats:
        """``(N, D)`` descriptors -> ``(N, d)``, of unit length."""
        return unit(np.asarray(descriptors, np.float32) @ self.projection)

    def describe(self, local: Floats) -> Floats:
        """Whitened VLAD ``(K,)`` float32 of ``(N, d)`` projected descriptors, of unit length."""
        return unit((aggregate(local, self.words) - self.mean) @ self.whitening)


def aggregate(local: Floats, words: Floats) -> Floats:
    """VLAD before whitening.

    The residuals of all descriptors from their nearest word are summed per word, every word's sum
    is scaled to unit length (so that a repeated structure does not drown the others), and the
    whole as well.

    Parameters
    ----------
    local
        ``(N, d)`` float32.
    words
        ``(W, d)`` float32.

    Returns
    -------
    ``(W d,)`` float32.
    """
    sums = np.zeros_like(words)
    if len(local):
        nearest = np.argmax(local @ words.T - (words**2).sum(1) / 2, axis=1)
        np.add.at(sums, nearest, local - words[nearest])
    return unit(unit(sums).ravel())


def unit(vectors: NDArray[np.floating[Any]]) -> Floats:
    """Scale to unit length along the last axis; zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)


@lru_cache(maxsize=4)
def load_vocabulary(path: Path = SHIPPED) -> Vocabulary:
    """Read a vocabulary.

    Raises
    ------
    D2RosError
        If `path` is no file of :func:`save_vocabulary`.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            about: Mapping[str, str] = json.loads((file.metadata() or {}).get(_KIND, ""))
            tensors: Any = {name: file.get_tensor(name) for name in _TENSORS}
        arrays = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
        return Vocabulary(**arrays, provenance=about)
    except (SafetensorError, OSError, ValueError, IndexError) as error:
        raise D2RosError(
            f"{path} is no vocabulary of places ({error}); make one with d2-ros places vocabulary"
        ) from None


def vocabulary_bytes(vocabulary: Vocabulary) -> bytes:
    """What :func:`load_vocabulary` reads: a safetensors file of float16."""
    from safetensors.numpy import save

    tensors = {
        name: np.ascontiguousarray(getattr(vocabulary, name), np.float16) for name in _TENSORS
    }
    return save(tensors, {_KIND: json.dumps(dict(vocabulary.provenance), sort_keys=True)})
