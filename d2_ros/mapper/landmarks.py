"""The landmarks of a map, by track."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class Landmarks:
    """Places of tracks, ordered by id.

    Attributes
    ----------
    most
        How many are kept; tracks with the smallest ids are the oldest and go first.
    ids
        ``(T,)`` int64.
    places, covariances
        ``(T, 3)`` and ``(T, 3, 3)``, world frame.
    """

    most: int
    ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    places: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 3)))
    covariances: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 3, 3)))

    def __len__(self) -> int:
        """Return their number."""
        return len(self.ids)

    def update(
        self,
        ids: NDArray[np.int64],
        places: NDArray[np.float64],
        covariances: NDArray[np.float64],
        judged: NDArray[np.int64],
    ) -> None:
        """Take over the places of `ids`; those of `judged` that are not among them are dropped."""
        old = ~np.isin(self.ids, judged)
        everything = np.concatenate([self.ids[old], ids])
        order = np.argsort(everything, kind="stable")[-self.most :]
        self.ids = everything[order]
        self.places = np.concatenate([self.places[old], places])[order]
        self.covariances = np.concatenate([self.covariances[old], covariances])[order]

    def transform(
        self, origin: NDArray[np.float64], scale: float, turn: NDArray[np.float64]
    ) -> None:
        """Turn and stretch them about a place."""
        self.places = origin + scale * (self.places - origin) @ turn.T
        self.covariances = scale**2 * turn @ self.covariances @ turn.T

    def find(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of `ids` that are known, and the landmarks' own rows."""
        there = np.searchsorted(self.ids, ids)
        known = there < len(self.ids)
        known[known] = self.ids[there[known]] == ids[known]
        return np.flatnonzero(known), there[known]
