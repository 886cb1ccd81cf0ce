"""The whole data path: one image in, its features, matches and refined tracks out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.features.batch import BatchResult, features_of
from d2_ros.features.extractor import Extractor
from d2_ros.features.images import network_size
from d2_ros.output import feature_rows, match_rows, track_rows
from d2_ros.records import FrameResult
from d2_ros.refinement.placement import Placed, edges_of, nothing_placed, place
from d2_ros.refinement.window import moved, window_problem
from d2_ros.timing import Stopwatch
from d2_ros.tracks.association import associate
from d2_ros.tracks.following import FEWEST, Bridge, bridge_from, carry, follow
from d2_ros.tracks.keyframe import Keyframe
from d2_ros.tracks.policy import is_keyframe, is_lost, may_follow
from d2_ros.tracks.seen import Seen
from d2_ros.tracks.view import View, view_of
from d2_ros.tracks.window import Window
from d2_ros.workers import IN_TURN, Workers

TrackRows = tuple[int, NDArray[np.void]]
"""A keyframe's stamp and the rows of its ``tracks`` message."""


@dataclass(frozen=True)
class Looking:
    """What the network has been asked to look at: a view, when, and what will be seen in it.

    `bridge` leads from there to the present where no tracks do.
    """

    view: View
    frame: int
    seen: Future[Seen]
    bridge: Bridge | None


@dataclass(frozen=True)
class Solving:
    """A window that a solver has been given."""

    window: tuple[Keyframe, ...]
    pixels: Future[NDArray[np.float64]]


class FrontEnd:
    """D2-Net features, tracked over a window of keyframes and refined.

    Parameters
    ----------
    config
        All parameters; may be replaced between frames (``frontend.config = ...``).
    extractor
        Shared network; built from `config` if not given.
    workers
        Who runs the network and solves windows; by default each frame waits for both.

    Raises
    ------
    D2RosError
        If the weights or the device cannot be used.
    """

    def __init__(
        self, config: Config, extractor: Extractor | None = None, workers: Workers = IN_TURN
    ) -> None:
        self.config = config
        self.extractor = extractor or Extractor(config)
        self.device = self.extractor.device
        self.stopwatch: Callable[[], Stopwatch] = Stopwatch
        self._workers = workers
        self._window = Window()
        self._frame = 0
        self._extracted = 0  # stamp of the last view that the network has seen, ns
        self._looking: Looking | None = None
        self._too_late = False  # what the network said last was of no use any more
        self._solving: Solving | None = None
        self._untold: int | None = None  # keyframe whose tracks have not been published

    @property
    def window(self) -> tuple[Keyframe, ...]:
        """The keyframes, oldest first, as the last window solution has left them."""
        return self._window.keyframes

    def use(self, extractor: Extractor) -> None:
        """Go on with another network, on another device perhaps, and with an empty window."""
        self.extractor, self.device = extractor, extractor.device
        self.reset()

    def reset(self) -> None:
        """Forget the window; track ids go on, for none is ever used twice."""
        self._window.reset()
        self._looking = self._solving = self._untold = None

    @torch.inference_mode()
    def process(
        self,
        image: NDArray[Any],
        stamp: int,
        camera: Camera | None = None,
        batched: BatchResult | None = None,
    ) -> FrameResult:
        """Process one frame.

        Parameters
        ----------
        image
            ``(H, W)`` gray or ``(H, W, 3)`` BGR, uint8 or uint16.
        stamp
            Integer nanoseconds, later than that of the last keyframe.
        camera
            Calibration of this image size, or None.
        batched
            What the network has said of `image` in a batch, or None.

        Raises
        ------
        D2RosError
            For an image or calibration that cannot be used; the window is unharmed.
        """
        network_size(image, self.config.features.max_edge)
        _check(image, stamp, camera, self.window)
        self.extractor.config, watch = self.config, self.stopwatch()
        self._frame += 1
        view = view_of(image, stamp, camera, self.extractor, self.config)
        watch.end_section("pyramid")
        solved = self._solution()
        followed = self._follow(view, watch)
        seen = self._see(image, view, followed, batched, watch)
        placed = nothing_placed(view) if followed is None else followed
        if seen is not None:
            placed = place(seen, self.window, self._in_time(self.config), watch)
        return self._commit(placed, solved, watch)

    def _in_time(self, config: Config) -> Config:
        """How to place what was seen, where frames go on beside the network.

        Early maps are the network's as well, a second or two for the images of a window.
        """
        alignment = config.alignment
        if self._workers.beside and may_follow(config) and alignment.mode == "auto":
            return replace(config, alignment=replace(alignment, mode="gray"))
        return config

    def _follow(self, view: View, watch: Stopwatch) -> Placed | None:
        """The last frame's tracks in this one, without the network; None where that cannot be."""
        last = self._window.last
        if last is None or not may_follow(self.config):
            return None
        seen = follow(last, view, self.window)
        watch.end_section("following")
        placed = None if seen is None else place(seen, self.window, self.config, watch)
        return None if placed is None or len(placed.obs) < FEWEST else placed

    def _see(
        self,
        image: NDArray[Any],
        view: View,
        followed: Placed | None,
        batched: BatchResult | None,
        watch: Stopwatch,
    ) -> Seen | None:
        """What the network has to say, now or of an earlier view; None where it says nothing yet.

        A frame waits for it where every frame is for the network to see, and where nothing could be
        followed since an answer came too late to be of use.
        """
        looking = self._looking
        if followed is not None:
            self._too_late = False
        elif looking is not None:
            looking = self._bridged(looking, view)
        if looking is None and (followed is None or self._should_look(view, followed)):
            bridge = bridge_from(view) if followed is None and may_follow(self.config) else None
            looking = Looking(view, self._frame, self._look(image, view, batched, watch), bridge)
        self._looking = looking
        if looking is None or not (self._ready(looking) or (followed is None and self._too_late)):
            return None
        self._looking, self._extracted = None, looking.view.stamp
        seen = looking.seen.result()
        if looking.view is view:
            return seen
        carried = carry(seen, view, None if followed is None else followed.obs, looking.bridge)
        self._too_late = carried is None
        return carried

    def _bridged(self, looking: Looking, view: View) -> Looking | None:
        """What the network looks at, as long as something leads from there to this view."""
        if looking.bridge is not None and looking.view.size == view.size:
            bridge = looking.bridge.onto(view)
            if len(bridge.now) >= FEWEST:
                return replace(looking, bridge=bridge)
            self._too_late = True
        looking.seen.cancel()
        return None

    def _should_look(self, view: View, followed: Placed) -> bool:
        """Whether a frame that was followed is to be seen by the network as well."""
        last, config = self._window.last, self.config.window
        waited = (view.stamp - self._extracted) * 1e-9
        return (
            waited > config.max_interval
            or (last is not None and is_lost(last.obs, followed.obs))
            or is_keyframe(self.window, view, followed.obs, config)
        )

    def _look(
        self, image: NDArray[Any], view: View, batched: BatchResult | None, watch: Stopwatch
    ) -> Future[Seen]:
        """Have the network look at a view, and what it finds matched with the window as it is.

        No keyframe enters the window until the answer is there.
        """
        extractor, config = self.extractor, self.config
        window, recent = self.window, self._window.recent
        if self._workers.beside:  # the caller may write the next frame into its array
            image, watch = image.copy(), Stopwatch()

        @torch.inference_mode()
        def seen() -> Seen:
            features = features_of(extractor, image, batched, watch)
            return associate(features, view, window, recent, config, watch)

        return self._workers.network.submit(seen)

    def _ready(self, looking: Looking) -> bool:
        """Whether the network's answer is there, and due; or to be waited for in any case."""
        if not may_follow(self.config):
            return True
        due = self._frame - looking.frame >= self.config.features.delay
        return due and looking.seen.done()

    def _commit(self, placed: Placed, solved: TrackRows | None, watch: Stopwatch) -> FrameResult:
        """Remember a frame, as a keyframe if it is to be one, and say what it shows."""
        config, view, obs = self.config, placed.seen.view, placed.obs
        followed, shown = placed.seen.followed, self.window
        refined = np.any(obs.pixels != obs.detected, axis=1)
        entered = not followed and is_keyframe(self.window, view, obs, config.window)
        if entered:
            solved = solved or self._standing()
            edges = edges_of(placed, self.window, config)
            self._window.enter(view, obs, edges, config.alignment, config.window.size)
            self._untold = view.stamp
            self._solve()
            solved = solved or self._solution()
            obs = self.window[-1].obs
            now = {keyframe.stamp: keyframe for keyframe in self.window}
            shown = tuple(now.get(keyframe.stamp, keyframe) for keyframe in shown)
        lengths = self._window.observe(view, obs)
        watch.end_section("optimisation")
        descriptors = obs.descriptors[:0] if followed else obs.descriptors
        stamp, tracks = solved or (None, None)
        return FrameResult(
            stamp=view.stamp,
            is_keyframe=entered,
            features=feature_rows(view, obs, lengths, refined),
            matches=match_rows(obs, placed.matches, placed.inlier, shown),
            tracks=tracks,
            descriptors=descriptors.float().cpu().numpy(),
            timings_ms=watch.sections_ms,
            followed=followed,
            tracks_stamp=stamp,
        )

    def _solve(self) -> None:
        """Give the window to the solver, unless that is still at an earlier one."""
        config = self.config.refinement
        if self._solving is None and config.enabled:
            pixels = self._workers.solver.submit(window_problem(self.window), config)
            self._solving = Solving(self.window, pixels)

    def _solution(self) -> TrackRows | None:
        """Put the window where a solution has moved it; what is to be told of the last keyframe."""
        solving = self._solving
        if solving is not None:
            if not solving.pixels.done():
                return None
            self._solving = None
            if solving.pixels.exception() is None:  # else the solver has said so
                self._window.move(moved(self.window, solving.window, solving.pixels.result()))
            if solving.window[-1].stamp != self.window[-1].stamp:
                self._solve()
                return None
        return self._standing()

    def _standing(self) -> TrackRows | None:
        """The window of the last keyframe as it stands, unless that has been told."""
        stamp, self._untold = self._untold, None
        return None if stamp is None else (stamp, track_rows(self.window))


def _check(
    image: NDArray[Any], stamp: int, camera: Camera | None, window: Sequence[Keyframe]
) -> None:
    if camera is not None and (camera.height, camera.width) != image.shape[:2]:
        raise D2RosError(
            f"calibration is for {camera.width}x{camera.height} but the image is "
            f"{image.shape[1]}x{image.shape[0]}; publish the camera_info of this resolution"
        )
    if window and stamp <= window[-1].stamp:
        raise D2RosError(
            f"frame stamp {stamp} is not later than the last keyframe's {window[-1].stamp}; "
            "skip it, or reset after a jump back in time"
        )
