"""Places known again: candidates, verified, and what is told of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d2_ros.config import Config
from d2_ros.places.memory import PlaceMemory
from d2_ros.places.place import Place
from d2_ros.places.revisit import Revisit, revisit


@dataclass(frozen=True)
class RecognitionSettings:
    """When a place counts as known.

    Attributes
    ----------
    candidates
        Places that are looked at closely, most alike first.
    min_inliers
        Verified matches that it takes.
    exclusion_s
        Keyframes of the same run that are younger than this are no revisit, seconds.
    neighbour_s
        Keyframes of one run that are no further apart than this are neighbours, seconds.
    """

    candidates: int = 5
    min_inliers: int = 30
    exclusion_s: float = 10.0
    neighbour_s: float = 5.0


def look_up(
    place: Place, memory: PlaceMemory, config: Config, settings: RecognitionSettings
) -> list[Revisit]:
    """Places of the memory that geometry says are this one, most inliers first.

    Only candidates that look alike are compared, and no keyframe of the same session that is
    younger than the exclusion time.
    """
    recent = np.array([is_near(place, other, settings.exclusion_s) for other in memory.places])
    numbers = memory.nearest(place.vlad, settings.candidates, recent)
    found = [revisit(place, memory[number], config) for number in numbers.tolist()]
    known = [item for item in found if item is not None]
    return sorted(known, key=lambda item: -item.inliers)


def is_near(place: Place, other: Place, seconds: float) -> bool:
    """Whether two keyframes are of one session and no further apart than some seconds."""
    return place.session == other.session and abs(place.stamp - other.stamp) <= seconds * 1e9


class Recognition:
    """Recognition on the keyframes of a run, one after the other.

    A place is told once two keyframes running know the same neighbourhood: what only looks alike,
    such as the next office, seldom does so twice. And it is told once: not again while the run
    stays in both neighbourhoods.
    """

    def __init__(
        self, memory: PlaceMemory, config: Config, settings: RecognitionSettings | None = None
    ) -> None:
        self.memory, self.config = memory, config
        self.settings = settings or RecognitionSettings()
        self._last: Revisit | None = None
        self._told: list[Revisit] = []

    def look(self, place: Place) -> Revisit | None:
        """The place that is known again and has not been told yet, or None."""
        found = look_up(place, self.memory, self.config, self.settings)
        best = found[0] if found and found[0].inliers >= self.settings.min_inliers else None
        before, self._last = self._last, best
        if best is None or before is None or not self._same(best, before):
            return None
        if any(self._same(best, told) for told in self._told):
            return None
        self._told.append(best)
        return best

    def _same(self, one: Revisit, other: Revisit) -> bool:
        """Whether two revisits are of neighbours, now and then."""
        seconds = self.settings.neighbour_s
        return is_near(one.place, other.place, seconds) and is_near(one.known, other.known, seconds)
