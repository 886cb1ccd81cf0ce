"""The keyframes of a run: each looked up among the places, and kept with them."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.config import Config
from d2_ros.features.extractor import Extractor
from d2_ros.places.memory import PlaceMemory
from d2_ros.places.place import place_of_result
from d2_ros.places.recognition import Recognition
from d2_ros.places.revisit import Revisit, by_early_maps
from d2_ros.places.vlad import Vocabulary
from d2_ros.records import FrameResult


class Keeper:
    """Takes keyframes as the front-end makes them.

    Parameters
    ----------
    memory
        Where they are kept, and what is known of earlier runs.
    vocabulary
        The memory's.
    config
        Uses ``matching`` and ``alignment``.
    keeps
        Whether keyframes are kept, or only looked up.
    """

    def __init__(
        self, memory: PlaceMemory, vocabulary: Vocabulary, config: Config, keeps: bool = True
    ) -> None:
        self.memory = memory
        self.vocabulary = vocabulary
        self.session = 1 + max((place.session for place in memory.places), default=-1)
        self._recognition = Recognition(memory, config)
        self._config = config
        self._keeps = keeps

    def take(
        self, result: FrameResult, image: NDArray[Any], camera: Camera | None
    ) -> Revisit | None:
        """Take a keyframe's result; the place that it shows, if it is known and has not been told.

        Parameters
        ----------
        result
            Of a frame that the network has seen.
        image
            ``(H, W)`` or ``(H, W, 3)`` BGR, uint8 or uint16.
        """
        place = place_of_result(result, image, camera, self.vocabulary, self.session)
        found = self._recognition.look(place)
        if found is not None and not found.same_light and self._config.alignment.mode != "gray":
            found = by_early_maps(found, self._config, self._extractor)
        if self._keeps:
            self.memory.add(place)
        return found

    @cached_property
    def _extractor(self) -> Extractor:
        """A network of its own, loaded when light first differs: that of the frames is at work."""
        own = replace(self._config, device="cpu", runtime="torch", precision="fp32")
        return Extractor(own)

    def begin_run(self) -> None:
        """Count what follows as another run: time has jumped back."""
        self.session += 1
