"""Warps of patches, and what measuring them gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Warps:
    """Where template patches lie in a frame.

    Attributes
    ----------
    pixels
        ``(M, 2)`` float64, px: where the template's centre lies.
    affine
        ``(M, 2, 2)`` float64: template offsets -> frame offsets.
    """

    pixels: NDArray[np.float64]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.pixels.shape != (len(self.affine), 2) or self.affine.shape[1:] != (2, 2):
            raise ValueError("pixels must be (M, 2) and affine (M, 2, 2)")

    def select(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Warps:
        """The warps of `rows`."""
        return Warps(self.pixels[rows], self.affine[rows])


@dataclass(frozen=True)
class Alignment:
    """Measured transforms of M matches.

    Attributes
    ----------
    warps
        The transforms.
    covariance
        ``(M, 2, 2)`` float64, px^2 of the frame: of ``warps.pixels`` relative to the template.
    correlation
        ``(M,)`` zero-normalised cross-correlation of the aligned patches, -1 to 1.
    valid
        ``(M,)`` bool: the patch lies in the image and kept its shape.
    """

    warps: Warps
    covariance: NDArray[np.float64]
    correlation: NDArray[np.float64]
    valid: NDArray[np.bool_]

    def select(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Alignment:
        """The alignments of `rows`."""
        return Alignment(
            self.warps.select(rows),
            self.covariance[rows],
            self.correlation[rows],
            self.valid[rows],
        )


def join_alignments(parts: Sequence[Alignment]) -> Alignment:
    """All alignments of `parts`, in order."""
    return Alignment(
        Warps(
            np.concatenate([part.warps.pixels for part in parts]),
            np.concatenate([part.warps.affine for part in parts]),
        ),
        np.concatenate([part.covariance for part in parts]),
        np.concatenate([part.correlation for part in parts]),
        np.concatenate([part.valid for part in parts]),
    )


def replaced(found: Alignment, rows: NDArray[np.int64], other: Alignment) -> Alignment:
    """`found` with the alignments `rows` taken from `other`."""
    order = np.arange(len(found.correlation))
    order[rows] = len(order) + np.arange(len(rows))
    return join_alignments([found, other]).select(order)
