"""The whole data path: one image in, its features, matches and refined tracks out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.features.batch import Share, features_of
from d2_ros.features.extractor import Extractor, Features
from d2_ros.matching.agreement import cut_narrow
from d2_ros.matching.alignment import predicted_sigma
from d2_ros.matching.early import LazyPyramid, early_pyramid
from d2_ros.matching.neighbours import Matches, match
from d2_ros.matching.patches import cut
from d2_ros.matching.pyramid import Pyramid, build_pyramid, grey
from d2_ros.matching.verification import ROUNDS, Verdict, verify
from d2_ros.output import feature_rows, match_rows, track_rows
from d2_ros.records import FrameResult
from d2_ros.refinement.doubt import with_doubt
from d2_ros.refinement.frame import refined_keyframe
from d2_ros.refinement.window import refine_window
from d2_ros.timing import Stopwatch
from d2_ros.tracks.graph import no_edges
from d2_ros.tracks.guided import find_lost
from d2_ros.tracks.links import (
    claim_tracks,
    inlier_pairs,
    link_tracks,
    rows_to_keep,
    without_outliers,
)
from d2_ros.tracks.measurement import measure_links, measure_remaining
from d2_ros.tracks.window import Keyframe, is_keyframe

_FINAL_ROUNDS = 500  # once places are exact, few rounds find what motion there is to find
_NONE: NDArray[np.int64] = np.empty(0, np.int64)


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
        self._window: list[Keyframe] = []
        self._lengths: dict[int, int] = {}  # frames in which each live track was observed
        # Tracks of the last two frames: one too uncertain in a frame may be sure in the next.
        self._observed: deque[NDArray[np.int64]] = deque(maxlen=2)
        self._next_track = 1

    @property
    def window(self) -> tuple[Keyframe, ...]:
        """The keyframes, oldest first, as the last window solution has left them."""
        return tuple(self._window)

    def use(self, extractor: Extractor) -> None:
        """Go on with another network, on another device perhaps, and with an empty window."""
        self.extractor, self.device = extractor, extractor.device
        self.reset()

    def reset(self) -> None:
        """Forget the window; track ids go on, for none is ever used twice."""
        self._window = []
        self._lengths = {}
        self._observed.clear()

    @torch.inference_mode()
    def process(
        self,
        image: NDArray[Any],
        stamp: int,
        camera: Camera | None = None,
        share: Share | None = None,
    ) -> FrameResult:
        """Process one frame.

        Parameters
        ----------
        image
            ``(H, W)`` grey or ``(H, W, 3)`` BGR, uint8 or uint16.
        stamp
            Integer nanoseconds, later than that of the last keyframe.
        camera
            Calibration of this image size, or None.
        share
            What the network has said of `image` in a batch, or None.

        Raises
        ------
        D2RosError
            For an image or calibration that cannot be used; the window is unharmed.
        """
        _check(image, stamp, camera, self._window)
        config, window, watch = self.config, self._window, self.stopwatch()
        self.extractor.config = config
        features = features_of(self.extractor, image, share, watch)
        pyramid = build_pyramid(grey(image), config.alignment.levels, self.device)
        watch.lap("pyramid")

        matches = match(features.descriptors, [keyframe.descriptors for keyframe in window])
        watch.lap("matching")
        detected = features.keypoints.astype(np.float64)
        limit = config.matching.max_detected_error
        inlier = self._verify(matches, detected, camera, limit, ROUNDS).inlier
        watch.lap("verification")
        tracks = claim_tracks(matches, inlier, window, len(detected))
        pairs = inlier_pairs(matches, inlier, len(window))
        if config.refinement.enabled:  # without it nothing would measure the predicted places
            size = (image.shape[1], image.shape[0])
            recent = np.concatenate([_NONE, *self._observed, *(k.tracks for k in window[-1:])])
            features, tracks = find_lost(features, tracks, window, pairs, recent, size)
        links = link_tracks(matches, tracks, features.descriptors, window)
        watch.lap("graph")

        frame = _unrefined(features, tracks, camera, pyramid, stamp)
        frame = replace(frame, early=self._early(image))
        tracked, measured = links.matches.select(links.tracked), None
        if config.refinement.enabled:
            measured = measure_links(tracked, frame, window, pairs, config.alignment)
            watch.lap("alignment")
            frame = replace(frame, affine=measured.affine)
            owner = tracked.index[measured.link]
            frame = refined_keyframe(frame, owner, measured.edges, config.refinement)
            links = links.select(links.measured(frame.tracks))
            watch.lap("refinement")
        verdict = self._verify(
            links.matches, frame.pixels, camera, config.matching.max_error, _FINAL_ROUNDS
        )
        inlier = verdict.inlier
        frame = without_outliers(with_doubt(frame, links, verdict), links, inlier)
        whole = frame
        rows = rows_to_keep(frame.tracks, len(detected), config.features.max_keypoints)
        links, inlier = links.restrict(rows, frame.tracks, inlier)
        frame, scores = frame.select(rows), features.scores[rows]
        watch.lap("verification")

        refined = np.any(frame.pixels != frame.detected, axis=1)
        solved, shown = None, window
        if is_keyframe(window, stamp, frame.pixels, frame.tracks, camera, config.window):
            frame = self._start_tracks(frame)
            if measured is not None:
                edges = measure_remaining(tracked, whole, window, measured, config.alignment).edges
                frame = replace(frame, edges=edges.select(np.isin(edges.track, frame.tracks)))
            window = [*window, frame][-config.window.size :]
            if config.refinement.enabled:
                window = refine_window(window, config.refinement)
            self._window = window
            frame, solved = window[-1], track_rows(window)
            moved = {keyframe.stamp: keyframe for keyframe in window}
            shown = [moved.get(keyframe.stamp, keyframe) for keyframe in shown]
        self._observed.append(frame.tracks[frame.tracks > 0])
        self._count(self._observed[-1])
        lengths = np.array([self._lengths.get(track, 0) for track in frame.tracks.tolist()])
        watch.lap("optimisation")
        return FrameResult(
            stamp=stamp,
            is_keyframe=solved is not None,
            features=feature_rows(frame, scores, lengths, refined),
            matches=match_rows(frame, links.matches, inlier, shown),
            tracks=solved,
            descriptors=frame.descriptors.float().cpu().numpy(),
            timings_ms=watch.laps_ms,
        )

    def _early(self, image: NDArray[Any]) -> LazyPyramid | None:
        """The early maps of a frame, to be computed if they are needed."""
        extractor, settings = self.extractor, self.config.alignment
        if settings.mode == "grey":
            return None
        if not extractor.has_early_maps:
            if settings.mode == "features":
                raise D2RosError(
                    f"weights {self.config.weights} have no early maps to align; "
                    "set alignment.mode to grey or auto"
                )
            return None
        kept = image.copy()  # the caller may write the next frame into its array
        return LazyPyramid(lambda: early_pyramid(extractor.early(kept), settings.levels))

    def _verify(
        self,
        matches: Matches,
        pixels: NDArray[np.float64],
        camera: Camera | None,
        max_error: float,
        rounds: int,
    ) -> Verdict:
        count = len(matches)
        whole = Verdict(np.zeros(count, bool), np.full(count, np.nan), np.zeros((count, 2)))
        parts = [np.flatnonzero(matches.keyframe == number) for number in range(len(self._window))]

        def judge(keyframe: Keyframe, rows: NDArray[np.int64]) -> Verdict:
            return verify(
                pixels[matches.index[rows]],
                keyframe.pixels[matches.keyframe_index[rows]],
                camera,
                keyframe.camera,
                max_error,
                self.config.matching.seed,
                rounds,
            )

        # OpenCV's estimators use one core each and leave Python alone meanwhile.
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            verdicts = pool.map(judge, self._window, parts)
        for rows, verdict in zip(parts, verdicts, strict=True):
            whole.inlier[rows], whole.residual[rows] = verdict.inlier, verdict.residual
            whole.normal[rows] = verdict.normal
        return whole

    def _start_tracks(self, frame: Keyframe) -> Keyframe:
        """Open a track at every keypoint that has none and can be aligned at all."""
        settings = self.config.alignment
        patches = cut(frame.pyramid, frame.pixels, settings.patch_radius)
        textured = predicted_sigma(patches[0]) <= settings.max_sigma
        fresh = np.flatnonzero((frame.tracks == 0) & textured)
        tracks, affine, drift = frame.tracks.copy(), frame.affine.copy(), frame.drift.copy()
        tracks[fresh] = self._next_track + np.arange(len(fresh))
        affine[fresh], drift[fresh] = np.eye(2), 0.0
        self._next_track += len(fresh)
        return replace(
            frame,
            tracks=tracks,
            affine=affine,
            drift=drift,
            anchors=frame.pixels,
            patches=patches,
            narrow=cut_narrow(frame.pyramid, frame.pixels),
        )

    def _count(self, tracks: NDArray[np.int64]) -> None:
        for track in tracks.tolist():
            self._lengths[track] = self._lengths.get(track, 0) + 1
        live = set(np.concatenate([keyframe.tracks for keyframe in self._window]).tolist())
        self._lengths = {t: length for t, length in self._lengths.items() if t in live}


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


def _unrefined(
    features: Features,
    tracks: NDArray[np.int64],
    camera: Camera | None,
    pyramid: Pyramid,
    stamp: int,
) -> Keyframe:
    detected = features.keypoints.astype(np.float64)
    return Keyframe(
        stamp=stamp,
        camera=camera,
        pyramid=pyramid,
        detected=detected,
        pixels=detected,
        covariance=features.covariances.astype(np.float64),
        descriptors=features.descriptors,
        channels=features.channels,
        tracks=tracks,
        edges=no_edges(),
        drift=np.zeros((len(detected), 2, 2)),
        affine=np.tile(np.eye(2), (len(detected), 1, 1)),
        anchors=detected,
    )
