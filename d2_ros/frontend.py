"""The whole data path: one image in, its features, matches and refined tracks out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.extraction import Asked, Extraction
from d2_ros.features.batch import BatchResult
from d2_ros.features.extractor import Extractor
from d2_ros.features.images import network_size
from d2_ros.output import feature_rows, match_rows, track_rows
from d2_ros.records import FrameResult
from d2_ros.refinement.placement import Placed, edges_of, nothing_placed, place
from d2_ros.refinement.window import moved, window_problem
from d2_ros.timing import Stopwatch
from d2_ros.tracks.following import FEWEST, follow
from d2_ros.tracks.graph import Edges
from d2_ros.tracks.keyframe import Keyframe
from d2_ros.tracks.policy import is_keyframe, may_follow, settled
from d2_ros.tracks.seen import Seen
from d2_ros.tracks.view import View, view_of
from d2_ros.tracks.window import Window
from d2_ros.workers import IN_TURN, Workers

TrackRows = tuple[int, NDArray[np.void]]
"""A keyframe's stamp and the rows of its ``tracks`` message."""


@dataclass(frozen=True)
class Connecting:
    """A keyframe whose edges are being measured."""

    stamp: int
    edges: Future[Edges]


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
        self._extraction = Extraction(workers)
        self._connecting: Connecting | None = None
        self._solving: Solving | None = None
        self._untold: int | None = None  # keyframe whose tracks have not been published

    @property
    def window(self) -> tuple[Keyframe, ...]:
        """The keyframes, oldest first, as the last window solution has left them."""
        return self._window.keyframes

    @property
    def settled(self) -> Config:
        """The parameters as they are meant here: live or in a replay, on this device."""
        return settled(self.config, self._workers.beside, self.device.type)

    def use(self, extractor: Extractor) -> None:
        """Go on with another network, on another device perhaps, and with an empty window."""
        self.extractor, self.device = extractor, extractor.device
        self.reset()

    def reset(self) -> None:
        """Forget the window; track ids go on, for none is ever used twice."""
        self._window.reset()
        self._extraction.reset()
        self._connecting = self._solving = self._untold = None

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
        view = view_of(image, stamp, camera, self.extractor, self.config)
        watch.end_section("pyramid")
        solved = self._solution()
        followed = self._follow(view, watch)
        answer = self._extraction.answer(view, followed, self.settled, watch)
        placed = self._place(answer or followed, watch)
        if answer is None:
            asked = Asked(image, view, placed, batched)
            placed = (
                self._extraction.look(asked, self._window, self.extractor, self.settled, watch)
                or placed
            )
        return self._commit(placed or nothing_placed(view), solved, watch)

    def _follow(self, view: View, watch: Stopwatch) -> Seen | None:
        """The last frame's tracks in this one, without the network; None where that cannot be."""
        last = self._window.last
        if last is None or not may_follow(self.settled):
            return None
        seen = follow(last, view, self.window)
        watch.end_section("following")
        return seen

    def _place(self, seen: Seen | None, watch: Stopwatch) -> Placed | None:
        """Place what was followed or carried to a view; None where too little of it is there."""
        if seen is None:
            return None
        placed = place(seen, self.window, self.config, watch)
        return None if seen.followed and len(placed.obs) < FEWEST else placed

    def _commit(self, placed: Placed, solved: TrackRows | None, watch: Stopwatch) -> FrameResult:
        """Remember a frame, as a keyframe if it is to be one, and say what it shows."""
        config, view, obs = self.config, placed.seen.view, placed.obs
        followed, shown = placed.seen.followed, self.window
        refined = np.any(obs.pixels != obs.detected, axis=1)
        entered = not followed and is_keyframe(self.window, view, obs, config.window)
        if entered:
            solved = solved or self._standing()
            self._connect(placed)
            self._window.enter(view, obs, config.alignment, config.window.size)
            self._untold = view.stamp
            self._connected()
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

    def _connect(self, placed: Placed) -> None:
        """Have the edges of a frame measured that is to be a keyframe."""
        window, config = self.window, self.config

        @torch.inference_mode()
        def edges() -> Edges:
            return edges_of(placed, window, config)

        self._connecting = Connecting(placed.seen.view.stamp, self._workers.network.submit(edges))

    def _connected(self) -> None:
        """Give the newest keyframe its edges, if they have been measured, and solve the window."""
        connecting = self._connecting
        if connecting is not None and connecting.edges.done():
            self._connecting = None
            self._window.connect(connecting.stamp, connecting.edges.result())
            self._solve()

    def _solve(self) -> None:
        """Give the window to the solver, unless that is still at an earlier one."""
        config = self.config.refinement
        if self._solving is None and self._connecting is None and config.enabled:
            pixels = self._workers.solver.submit(window_problem(self.window), config)
            self._solving = Solving(self.window, pixels)

    def _solution(self) -> TrackRows | None:
        """Put the window where a solution has moved it; what is to be told of the last keyframe."""
        self._connected()
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
