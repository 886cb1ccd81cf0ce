"""The whole data path: one image in, its features, matches and refined tracks out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from d2_ros.matching.early import LazyPyramid, early_pyramid
from d2_ros.matching.pyramid import build_pyramid, to_gray
from d2_ros.output import feature_rows, match_rows, track_rows
from d2_ros.records import FrameResult
from d2_ros.refinement.placement import Placed, edges_of, place
from d2_ros.refinement.window import refine_window
from d2_ros.timing import Stopwatch
from d2_ros.tracks.association import associate
from d2_ros.tracks.following import follow
from d2_ros.tracks.keyframe import Keyframe
from d2_ros.tracks.policy import is_keyframe, is_lost, may_follow
from d2_ros.tracks.view import View
from d2_ros.tracks.window import Window


class FrontEnd:
    """D2-Net features, tracked over a window of keyframes and refined.

    Parameters
    ----------
    config
        All parameters; may be replaced between frames (``frontend.config = ...``).
    extractor
        Shared network; built from `config` if not given.

    Raises
    ------
    D2RosError
        If the weights or the device cannot be used.
    """

    def __init__(self, config: Config, extractor: Extractor | None = None) -> None:
        self.config = config
        self.extractor = extractor or Extractor(config)
        self.device = self.extractor.device
        self.stopwatch: Callable[[], Stopwatch] = Stopwatch
        self._window = Window()
        self._extracted = 0  # stamp of the last frame that the network has seen, ns

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
        view = self._view(image, stamp, camera)
        watch.end_section("pyramid")
        placed = self._followed(view, watch)
        if placed is None:
            features = features_of(self.extractor, image, batched, watch)
            recent = self._window.recent
            seen = associate(features, view, self.window, recent, self.config, watch)
            placed = place(seen, self.window, self.config, watch)
            self._extracted = stamp
        return self._commit(placed, watch)

    def _view(self, image: NDArray[Any], stamp: int, camera: Camera | None) -> View:
        plane = to_gray(image)
        pyramid = build_pyramid(plane, self.config.alignment.levels, self.device)
        return View(stamp, camera, pyramid, self._early(image), plane)

    def _followed(self, view: View, watch: Stopwatch) -> Placed | None:
        """The last frame's tracks in this one; None where the network has to look.

        It has to if it is asked to in every frame or has not for long, if too many tracks were
        lost at once, and if the frame is to be a keyframe.
        """
        config, last = self.config, self._window.last
        if last is None or not may_follow(config):
            return None
        if view.stamp - self._extracted > config.window.max_interval * 1e9:
            return None
        seen = follow(last, view, self.window)
        watch.end_section("following")
        if seen is None:
            return None
        placed = place(seen, self.window, config, watch)
        if is_lost(last.obs, placed.obs):
            return None
        if is_keyframe(self.window, view, placed.obs, config.window):
            return None
        return placed

    def _commit(self, placed: Placed, watch: Stopwatch) -> FrameResult:
        """Remember a frame, as a keyframe if it is to be one, and say what it shows."""
        config, view, obs, followed = (
            self.config, placed.seen.view, placed.obs, placed.seen.followed
        )  # fmt: skip
        refined = np.any(obs.pixels != obs.detected, axis=1)
        solved, shown = None, self.window
        if not followed and is_keyframe(self.window, view, obs, config.window):
            edges = edges_of(placed, self.window, config)
            self._window.enter(view, obs, edges, config.alignment, config.window.size)
            if config.refinement.enabled:
                self._window.move(refine_window(self.window, config.refinement))
            obs, solved = self.window[-1].obs, track_rows(self.window)
            moved = {keyframe.stamp: keyframe for keyframe in self.window}
            shown = tuple(moved.get(keyframe.stamp, keyframe) for keyframe in shown)
        lengths = self._window.observe(view, obs)
        watch.end_section("optimisation")
        descriptors = obs.descriptors[:0] if followed else obs.descriptors
        return FrameResult(
            stamp=view.stamp,
            is_keyframe=solved is not None,
            features=feature_rows(view, obs, lengths, refined),
            matches=match_rows(obs, placed.matches, placed.inlier, shown),
            tracks=solved,
            descriptors=descriptors.float().cpu().numpy(),
            timings_ms=watch.sections_ms,
            followed=followed,
        )

    def _early(self, image: NDArray[Any]) -> LazyPyramid | None:
        """The early maps of a frame, to be computed if they are needed."""
        extractor, settings = self.extractor, self.config.alignment
        if settings.mode == "gray":
            return None
        if not extractor.has_early_maps:
            if settings.mode == "features":
                raise D2RosError(
                    f"weights {self.config.weights} have no early maps to align; "
                    "set alignment.mode to gray or auto"
                )
            return None
        kept = image.copy()  # the caller may write the next frame into its array
        return LazyPyramid(lambda: early_pyramid(extractor.early(kept), settings.levels))


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
