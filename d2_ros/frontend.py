"""The whole data path: one image in, its features, matches and refined tracks out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.features.batch import BatchResult, features_of
from d2_ros.features.extractor import Extractor, Features
from d2_ros.features.images import network_size
from d2_ros.matching.agreement import cut_narrow
from d2_ros.matching.alignment import predicted_sigma
from d2_ros.matching.early import LazyPyramid, early_pyramid
from d2_ros.matching.neighbours import Matches, match
from d2_ros.matching.patches import cut
from d2_ros.matching.pyramid import build_pyramid, grey
from d2_ros.matching.verification import ROUNDS, Verdict, verify
from d2_ros.output import feature_rows, match_rows, track_rows
from d2_ros.records import FrameResult
from d2_ros.refinement.doubt import with_doubt
from d2_ros.refinement.frame import refined_keyframe
from d2_ros.refinement.window import refine_window
from d2_ros.timing import Stopwatch
from d2_ros.tracks.following import FEWEST_FOLLOWED, Last, Scene, Seen, follow
from d2_ros.tracks.graph import no_edges
from d2_ros.tracks.guided import find_lost
from d2_ros.tracks.links import (
    claim_tracks,
    inlier_pairs,
    link_tracks,
    rows_to_keep,
    without_outliers,
)
from d2_ros.tracks.measurement import Measured, measure_links, measure_remaining
from d2_ros.tracks.window import Keyframe, is_keyframe

_FINAL_ROUNDS = 500  # once places are exact, few rounds find what motion there is to find
_NONE: NDArray[np.int64] = np.empty(0, np.int64)


@dataclass(frozen=True)
class Placed:
    """A frame whose keypoints have been measured, refined and verified.

    Attributes
    ----------
    frame, scores
        What is published of it.
    matches, inlier
        Its links with the window's keyframes, and which of them geometry confirms.
    whole, tracked, measured
        The frame with all its rows, the links of one track each among these, and what has been
        measured of them (None without refinement): a keyframe's edges are made of that.
    followed
        Whether the network has not seen it.
    """

    frame: Keyframe
    scores: NDArray[np.float32]
    matches: Matches
    inlier: NDArray[np.bool_]
    whole: Keyframe
    tracked: Matches
    measured: Measured | None
    followed: bool


def may_follow(config: Config) -> bool:
    """Whether frames may do without the network.

    Not where something is wanted that only the network gives: descriptors, also those by which
    the two cameras of a stereo pair are matched, or early maps.
    """
    return (
        config.features.extract == "keyframes"
        and config.refinement.enabled
        and config.output.descriptors == "none"
        and not config.input.stereo
        and config.alignment.mode != "features"
    )


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
        self._last: Last | None = None
        self._extracted = 0  # stamp of the last frame that the network has seen, ns
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
        self._last = None

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
            ``(H, W)`` grey or ``(H, W, 3)`` BGR, uint8 or uint16.
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
        _check(image, stamp, camera, self._window)
        self.extractor.config, watch = self.config, self.stopwatch()
        plane = grey(image)
        pyramid = build_pyramid(plane, self.config.alignment.levels, self.device)
        scene = Scene(stamp, camera, pyramid, self._early(image), plane)
        watch.end_section("pyramid")
        placed = self._follow(scene, watch)
        if placed is None:
            features = features_of(self.extractor, image, batched, watch)
            placed = self._place(self._associate(features, scene, watch), watch)
            self._extracted = stamp
        return self._commit(placed, scene, watch)

    def _follow(self, scene: Scene, watch: Stopwatch) -> Placed | None:
        """Find the last frame's tracks in this one without the network.

        None where the network has to look: it is asked to in every frame, the last time is long
        ago, too many tracks were lost at once (blur, a jump, another light), or the frame is to
        be a keyframe.
        """
        config, last = self.config, self._last
        if last is None or not may_follow(config) or last.scene.size != scene.size:
            return None
        if scene.stamp - self._extracted > config.window.max_interval * 1e9:
            return None
        seen = follow(last, scene, self._window)
        watch.end_section("following")
        if seen is None:
            return None
        placed = self._place(seen, watch)
        frame = placed.frame
        if len(frame.tracks) < FEWEST_FOLLOWED * len(last.frame.tracks) or is_keyframe(
            self._window, scene.stamp, frame.pixels, frame.tracks, scene.camera, config.window
        ):
            return None
        return placed

    def _associate(self, features: Features, scene: Scene, watch: Stopwatch) -> Seen:
        """Match a frame's features with the window, and look for the tracks that are missing."""
        config, window = self.config, self._window
        matches = match(features.descriptors, [keyframe.descriptors for keyframe in window])
        watch.end_section("matching")
        detected = features.keypoints.astype(np.float64)
        limit = config.matching.max_detected_error
        inlier = self._verify(matches, detected, scene.camera, limit, ROUNDS).inlier
        watch.end_section("verification")
        tracks = claim_tracks(matches, inlier, window, len(detected))
        pairs = inlier_pairs(matches, inlier, len(window))
        if config.refinement.enabled:  # without it nothing would measure the predicted places
            recent = np.concatenate([_NONE, *self._observed, *(k.tracks for k in window[-1:])])
            features, tracks = find_lost(features, tracks, window, pairs, recent, scene.size)
        links = link_tracks(matches, tracks, features.descriptors, window)
        watch.end_section("graph")
        frame = _unrefined(features, tracks, scene)
        return Seen(frame, features.scores, links, pairs, len(detected), followed=False)

    def _place(self, seen: Seen, watch: Stopwatch) -> Placed:
        """Measure, refine and verify what was seen in a frame."""
        config, frame, links = self.config, seen.frame, seen.links
        tracked, measured = links.matches.select(links.tracked), None
        if config.refinement.enabled:
            measured = measure_links(
                tracked, frame, self._window, seen.pairs, config.alignment, seen.followed
            )
            watch.end_section("alignment")
            frame = replace(frame, affine=measured.affine)
            owner = tracked.index[measured.link]
            frame = refined_keyframe(frame, owner, measured.edges, config.refinement)
            links = links.select(links.measured(frame.tracks))
            watch.end_section("refinement")
        verdict = self._verify(
            links.matches, frame.pixels, frame.camera, config.matching.max_error, _FINAL_ROUNDS
        )
        inlier = verdict.inlier
        frame = without_outliers(with_doubt(frame, links, verdict), links, inlier)
        rows = rows_to_keep(frame.tracks, seen.detections, config.features.max_keypoints)
        links, inlier = links.restrict(rows, frame.tracks, inlier)
        watch.end_section("verification")
        return Placed(
            frame.select(rows), seen.scores[rows], links.matches, inlier, frame, tracked, measured,
            seen.followed,
        )  # fmt: skip

    def _commit(self, placed: Placed, scene: Scene, watch: Stopwatch) -> FrameResult:
        """Take a frame into the state, as a keyframe if it is to be one, and say what it shows."""
        config, window, frame = self.config, self._window, placed.frame
        refined = np.any(frame.pixels != frame.detected, axis=1)
        solved, shown = None, window
        if not placed.followed and is_keyframe(
            window, scene.stamp, frame.pixels, frame.tracks, scene.camera, config.window
        ):
            frame = self._start_tracks(frame)
            if placed.measured is not None:
                edges = measure_remaining(
                    placed.tracked, placed.whole, window, placed.measured, config.alignment
                ).edges
                frame = replace(frame, edges=edges.select(np.isin(edges.track, frame.tracks)))
            window = [*window, frame][-config.window.size :]
            if config.refinement.enabled:
                window = refine_window(window, config.refinement)
            self._window = window
            frame, solved = window[-1], track_rows(window)
            moved = {keyframe.stamp: keyframe for keyframe in window}
            shown = [moved.get(keyframe.stamp, keyframe) for keyframe in shown]
        tracked = np.flatnonzero(frame.tracks > 0)
        self._last = Last(frame.select(tracked), scene) if may_follow(config) else None
        self._observed.append(frame.tracks[tracked])
        self._count(self._observed[-1])
        lengths = np.array([self._lengths.get(track, 0) for track in frame.tracks.tolist()])
        watch.end_section("optimisation")
        descriptors = frame.descriptors[:0] if placed.followed else frame.descriptors
        return FrameResult(
            stamp=scene.stamp,
            is_keyframe=solved is not None,
            features=feature_rows(frame, placed.scores, lengths, refined),
            matches=match_rows(frame, placed.matches, placed.inlier, shown),
            tracks=solved,
            descriptors=descriptors.float().cpu().numpy(),
            timings_ms=watch.sections_ms,
            followed=placed.followed,
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


def _unrefined(features: Features, tracks: NDArray[np.int64], scene: Scene) -> Keyframe:
    detected = features.keypoints.astype(np.float64)
    return Keyframe(
        stamp=scene.stamp,
        camera=scene.camera,
        pyramid=scene.pyramid,
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
        early=scene.early,
    )
