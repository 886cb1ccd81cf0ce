"""The network's part of the front-end: what it is asked, and when its answers arrive."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray

from d2_ros.config import Config
from d2_ros.features.batch import BatchResult, features_of
from d2_ros.features.extractor import Extractor
from d2_ros.refinement.placement import Placed, place
from d2_ros.timing import Stopwatch
from d2_ros.tracks.association import associate
from d2_ros.tracks.carrying import (
    Carried,
    Trail,
    arrive,
    carry_along,
    not_yet_carried,
    passed_by,
)
from d2_ros.tracks.policy import is_lost, may_follow, will_be_keyframe
from d2_ros.tracks.seen import Seen
from d2_ros.tracks.view import View
from d2_ros.tracks.window import Window
from d2_ros.workers import Workers


@dataclass(frozen=True)
class Asked:
    """A frame that the network may be asked to look at.

    Attributes
    ----------
    image, view
        ``(H, W)`` or ``(H, W, 3)``, and what was made of it.
    followed
        What was followed there, if anything.
    batched
        What the network has said of it already, in a batch with other cameras' images.
    """

    image: NDArray[Any]
    view: View
    followed: Placed | None
    batched: BatchResult | None


@dataclass(frozen=True)
class Answer:
    """What the network's thread says of a view: what it saw, and where that has gone since."""

    placed: Placed
    carried: Carried


@dataclass(frozen=True)
class Looking:
    """A view that the network has been asked to look at, when, and what has gone by since."""

    view: View
    frame: int
    answer: Future[Answer]
    trail: Trail


class Extraction:
    """Asks the network for views, one at a time, and carries its answers to the present.

    Parameters
    ----------
    workers
        Who runs the network: each frame in turn, or a thread beside the frames.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._frame = 0
        self._extracted = 0  # stamp of the last view that the network has seen, ns
        self._took = 0  # from there to the view at which its answer arrived, ns
        self._looking: Looking | None = None
        self._too_late = False  # what the network said last was of no use any more

    def reset(self) -> None:
        """Forget what the network is looking at."""
        self._looking = None

    def answer(
        self, view: View, followed: Seen | None, config: Config, watch: Stopwatch
    ) -> Seen | None:
        """What the network has said of an earlier view, in this one; None if that is nothing."""
        self._frame += 1
        looking = self._looking
        if looking is None:
            return None
        if looking.view.size != view.size:
            looking.answer.cancel()
            self._looking = None
            return None
        if not self._is_due(looking, config):
            return None
        self._looking, self._extracted = None, looking.view.stamp
        self._took = view.stamp - looking.view.stamp
        answer = looking.answer.result()
        seen = answer.placed.seen
        carried = carry_along(seen, answer.carried, looking.trail)
        seen_here = arrive(seen, carried, view, None if followed is None else followed.obs)
        self._too_late = seen_here is None
        watch.end_section("following")
        return seen_here

    def look(
        self, asked: Asked, window: Window, extractor: Extractor, config: Config, watch: Stopwatch
    ) -> Placed | None:
        """Have the network see a frame where that is due, and what it sees placed.

        None where nothing is due, or where it takes a while.

        A frame waits for it where every frame is for the network to see, and where nothing is
        followed and the last answer came too late to be of use: every second one is of use then,
        and the one after it may be in time, for the camera may have slowed down. No keyframe enters
        the window until the answer is there.
        """
        view, followed = asked.view, asked.followed
        self._too_late &= followed is None
        if self._looking is not None:
            self._looking.trail.add(passed_by(view, followed.obs if followed else None))
            return None
        if followed is not None and not self._should_look(view, followed, window, config):
            return None
        image, settings = asked.image, self._in_time(config)
        keyframes, recent, trail = window.keyframes, window.recent, Trail()
        if self._workers.beside:  # the caller may write the next frame into its array
            image, watch = image.copy(), Stopwatch()

        @torch.inference_mode()
        def answer() -> Answer:
            features = features_of(extractor, image, asked.batched, watch)
            seen = associate(features, view, keyframes, recent, settings, watch)
            placed = place(seen, keyframes, settings, watch)
            return Answer(placed, carry_along(placed.seen, not_yet_carried(placed.seen), trail))

        looking = Looking(view, self._frame, self._workers.network.submit(answer), trail)
        if self._is_due(looking, config) or self._too_late:
            self._extracted, self._took, self._too_late = view.stamp, 0, False
            return looking.answer.result().placed
        self._looking = looking
        return None

    def _should_look(self, view: View, followed: Placed, window: Window, config: Config) -> bool:
        """Whether a frame that was followed is to be seen by the network as well."""
        last, took = window.last, self._took * 1e-9
        waited = (view.stamp - self._extracted) * 1e-9
        return (
            waited + took > config.window.max_interval
            or (last is not None and is_lost(last.obs, followed.obs))
            or will_be_keyframe(window.keyframes, view, followed.obs, config.window, took)
        )

    def _is_due(self, looking: Looking, config: Config) -> bool:
        """Whether the network's answer is there, and due; or to be waited for in any case."""
        if not may_follow(config):
            return True
        due = self._frame - looking.frame >= config.features.delay
        return due and looking.answer.done()

    def _in_time(self, config: Config) -> Config:
        """How to place what was seen, where frames go on beside the network.

        Early maps are the network's as well, a second or two for the images of a window.
        """
        alignment = config.alignment
        if self._workers.beside and may_follow(config) and alignment.mode == "auto":
            return replace(config, alignment=replace(alignment, mode="gray"))
        return config
