"""Pairs of frames of the synthetic sequence, where every pixel can be located."""

from __future__ import annotations

import numpy as np

from d2_ros.sources.synthetic import Synthetic
from d2_ros.training.pairs import Pair, grid, inside

FARTHEST = 100
"""Frames between the first and the second of a pair at most: bounds the search for pairs."""

_COLUMNS = 16  # of the grid of pixels by which overlap is judged


class Rendered:
    """Overlapping pairs of frames of a synthetic sequence.

    Parameters
    ----------
    sequence
        Where the frames come from.
    frames
        Which of them are paired with each other.
    overlap
        Smallest and largest share of the first frame's pixels that the second sees.
    """

    def __init__(self, sequence: Synthetic, frames: range, overlap: tuple[float, float]) -> None:
        self._sequence = sequence
        self._images = [frame.image.astype(np.uint8) for frame in sequence]
        self.pairs = [
            (i, j)
            for i in frames
            for j in range(i + 1, min(i + 1 + FARTHEST, frames.stop))
            if overlap[0] <= self._share(i, j) <= overlap[1]
        ]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    def draw(self, index: int, rng: np.random.Generator) -> Pair:
        """Return pair `index`, with a random grid of correspondences."""
        i, j = self.pairs[index]
        options = self._sequence.options
        pixels = grid(options.width, options.height, rng)
        there, visible = self._sequence.locate(i, pixels, j)
        visible &= inside(there, options.width, options.height)
        return Pair(self._images[i], self._images[j], pixels[visible], there[visible])

    def _share(self, i: int, j: int) -> float:
        options = self._sequence.options
        step = options.width / _COLUMNS
        u, v = np.meshgrid(np.arange(0, options.width, step), np.arange(0, options.height, step))
        coarse = np.stack([u, v], -1).reshape(-1, 2)
        return float(self._sequence.locate(i, coarse, j)[1].mean())
