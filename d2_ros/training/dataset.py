"""Pairs as torch takes them. What draw number n shows depends on the seed and n alone, so a
resumed run, another number of workers or of processes sees the very same data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from d2_ros.errors import D2RosError
from d2_ros.training.pairs import Pair, PairSource, crop_pair

_ATTEMPTS = 20  # pairs tried where one has no correspondence


class Batch(NamedTuple):
    """Some pairs of windows.

    Attributes
    ----------
    images
        ``(2 B, S, S, 3)`` uint8 BGR; pair k is images 2 k and 2 k + 1.
    pixels
        For each pair ``(2, N, 2)`` float32 (u, v) of its N points in either image, px.
    """

    images: Tensor
    pixels: list[Tensor]


class Draws(Dataset[Pair]):
    """An endless row of pairs of windows: number n is ``draws[n]``.

    Parameters
    ----------
    sources
        All pairs of all sources are shown once, in random order, before any comes again.
    seed
        Of order, crops and changes.
    size
        Side of the windows, px.
    points
        Most correspondences of a pair; None takes all.
    different
        Of so many pairs of windows each is drawn once, in random order, before any comes again;
        0 never draws the same windows twice.
    """

    def __init__(
        self,
        sources: Sequence[PairSource],
        seed: int,
        size: int,
        points: int | None = None,
        different: int = 0,
    ) -> None:
        self._sources, self._different = sources, different
        self._ends = np.cumsum([len(source) for source in sources])
        self._seed, self._size, self._points = seed, size, points

    def __getitem__(self, draw: int) -> Pair:
        """Return pair number `draw`, cropped, with at most ``points`` correspondences.

        Raises
        ------
        D2RosError
            If that pair and the ones after it turn out to have no correspondence.
        """
        if self._different:
            epoch, place = divmod(draw, self._different)
            draw = int(_order(self._seed, epoch, self._different)[place])
        rng = np.random.default_rng([self._seed, draw])
        for attempt in range(_ATTEMPTS):
            pair = self._whole(draw + attempt, rng)
            if len(pair.pixels):
                break
        else:
            raise D2RosError(
                f"{_ATTEMPTS} pairs in a row have no correspondence; raise data.min_overlap"
            )
        pair = crop_pair(pair, self._size, rng)
        keep = rng.permutation(len(pair.pixels))[: self._points]
        return Pair(pair.first, pair.second, pair.pixels[keep], pair.pixels_second[keep])

    def _whole(self, number: int, rng: np.random.Generator) -> Pair:
        """Pair `number`, not cropped."""
        count = int(self._ends[-1])
        epoch, place = divmod(number, count)
        index = int(_order(self._seed, epoch, count)[place])
        owner = int(np.searchsorted(self._ends, index, side="right"))
        within = index - int(self._ends[owner]) + len(self._sources[owner])
        return self._sources[owner].draw(within, rng)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch, count]).permutation(count)


def collate(pairs: Sequence[Pair]) -> Batch:
    """Stack the windows; the numbers of correspondences may differ."""
    images = np.stack([image for pair in pairs for image in (pair.first, pair.second)])
    places = [np.stack([pair.pixels, pair.pixels_second]).astype(np.float32) for pair in pairs]
    return Batch(torch.from_numpy(images), [torch.from_numpy(place) for place in places])


def batches(
    draws: Draws, steps: range, batch: int, rank: int, world: int, workers: int
) -> Iterator[Batch]:
    """Yield this process's share of the pairs of every step.

    Parameters
    ----------
    draws
        The pairs.
    steps
        Steps to yield: step t consists of draws ``t * batch`` to ``(t + 1) * batch``.
    batch
        Pairs per step, all processes together.
    rank, world
        Number of this process and of all.
    workers
        Processes that prepare them; 0 does it here.
    """
    shares = [range(step * batch + rank, (step + 1) * batch, world) for step in steps]
    yield from DataLoader(
        draws,
        batch_sampler=shares,  # type: ignore[arg-type]  # any sequence of index lists will do
        num_workers=workers,
        collate_fn=collate,
    )
