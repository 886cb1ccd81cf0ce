"""A bounded memory of places, searched exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError, optional_import
from d2_ros.places.place import Place

CAPACITY = 10_000
"""Places that are kept, unless told otherwise."""

_ROUNDING = 1e-6  # of a similarity, which is summed in one order or another


class PlaceMemory:
    """Places in the order in which they were added, and the search among them.

    Where there is no room for another one, that place is forgotten which another one resembles
    most; of the two the older.

    Parameters
    ----------
    places
        To begin with.
    capacity
        Places that are kept at most.

    Raises
    ------
    D2RosError
        If faiss is missing, or the places are more than the capacity.
    """

    def __init__(self, places: Sequence[Place] = (), capacity: int = CAPACITY) -> None:
        if capacity < 1 or len(places) > capacity:
            raise D2RosError(
                f"a memory of {len(places)} places cannot have a capacity of {capacity}; raise it"
            )
        self.capacity = capacity
        self._faiss = _faiss()
        self._places = list(places)
        self._index: Any = None
        self._closest: NDArray[np.float32] | None = None  # known once something must be forgotten
        if places:
            self._insert(np.stack([place.vlad for place in places]))

    def __len__(self) -> int:
        return len(self._places)

    @property
    def places(self) -> tuple[Place, ...]:
        """All places, oldest first."""
        return tuple(self._places)

    def __getitem__(self, number: int) -> Place:
        return self._places[number]

    def add(self, place: Place) -> Place | None:
        """Keep a place; return the one that is forgotten for it, if any is."""
        if self._closest is not None:
            similarity = self._similarities(place.vlad)
            self._closest = np.append(np.maximum(self._closest, similarity), similarity.max())
        self._insert(place.vlad[None])
        self._places.append(place)
        if len(self) <= self.capacity:
            return None
        if len(self) == 2:
            return self._forget(0)
        if self._closest is None:
            _, similarities = self._search(self._vlads(), 2)
            # Of two that are alike bit by bit either may come first; the other one is the nearest.
            self._closest = similarities[:, 1]
        alike = self._closest >= self._closest.max() - _ROUNDING
        return self._forget(int(np.argmax(alike)))  # the first one

    def nearest(
        self, vlad: NDArray[np.float32], count: int, excluded: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """Numbers of the places that resemble most, most alike first.

        Parameters
        ----------
        vlad
            ``(K,)`` of unit length.
        count
            How many, at most.
        excluded
            ``(len,)`` bool: places that do not count.
        """
        if not len(self):
            return np.empty(0, np.int64)
        params = None
        if excluded is not None:
            allowed = np.packbits(~excluded, bitorder="little")
            selector = self._faiss.IDSelectorBitmap(allowed)
            params = self._faiss.SearchParameters(sel=selector)
        numbers, _ = self._search(vlad[None], min(count, len(self)), params)
        return np.asarray(numbers[0][numbers[0] >= 0], np.int64)

    def _insert(self, vlads: NDArray[np.float32]) -> None:
        if self._index is None:
            self._index = self._faiss.IndexFlatIP(vlads.shape[1])
        self._index.add(np.ascontiguousarray(vlads, np.float32))

    def _forget(self, number: int) -> Place:
        self._index.remove_ids(np.array([number], np.int64))
        if self._closest is not None:
            # Those whose nearest this may have been must look anew.
            gone = self._places[number].vlad
            self._closest = np.delete(self._closest, number)
            touched = np.flatnonzero(self._similarities(gone) >= self._closest - _ROUNDING)
            if len(touched):
                vlads = np.stack([self._vlads_at(row, number) for row in touched])
                _, similarities = self._search(vlads, min(2, len(self) - 1))
                self._closest[touched] = similarities[:, -1]
        return self._places.pop(number)

    def _vlads_at(self, row: int, gone: int) -> NDArray[np.float32]:
        """The VLAD of a row of the index, from whose places `gone` has not been taken yet."""
        return self._places[row + (row >= gone)].vlad

    def _vlads(self) -> NDArray[np.float32]:
        return np.stack([place.vlad for place in self._places])

    def _similarities(self, vlad: NDArray[np.float32]) -> NDArray[np.float32]:
        stored = self._faiss.rev_swig_ptr(self._index.get_xb(), self._index.ntotal * len(vlad))
        return np.asarray(stored.reshape(-1, len(vlad)) @ vlad)

    def _search(
        self, vlads: NDArray[np.float32], count: int, params: Any = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        queries = np.ascontiguousarray(vlads, np.float32)
        similarities, numbers = self._index.search(queries, count, params=params)
        return numbers, similarities


def _faiss() -> Any:
    with optional_import("places are searched by faiss; pip install faiss-cpu, or d2_ros[places]"):
        import faiss
    return faiss
