"""The whole data path: one image in, its features, matches and refined tracks out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.features.extractor import Extractor, Features
from d2_ros.matching.alignment import Alignment, Warps, align, predicted_sigma
from d2_ros.matching.motion import predict
from d2_ros.matching.neighbours import Matches, match
from d2_ros.matching.patches import Pyramid, build_pyramid, grey
from d2_ros.matching.verification import verify
from d2_ros.output import feature_rows, match_rows, track_rows
from d2_ros.records import FrameResult
from d2_ros.refinement.frame import refine_frame
from d2_ros.refinement.window import refine_window
from d2_ros.timing import Stopwatch
from d2_ros.tracks.graph import Edges, assign_tracks, join, no_edges
from d2_ros.tracks.guided import Pairs, find_lost
from d2_ros.tracks.window import Keyframe, is_keyframe


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
        self._window: list[Keyframe] = []
        self._lengths: dict[int, int] = {}  # frames in which each live track was observed
        self._next_track = 1

    def reset(self) -> None:
        """Forget the window; track ids go on, for none is ever used twice."""
        self._window = []
        self._lengths = {}

    @torch.inference_mode()
    def process(self, image: NDArray[Any], stamp: int, camera: Camera | None = None) -> FrameResult:
        """Process one frame.

        Parameters
        ----------
        image
            ``(H, W)`` grey or ``(H, W, 3)`` BGR, uint8 or uint16.
        stamp
            Integer nanoseconds, later than that of the last keyframe.
        camera
            Calibration of this image size, or None.

        Raises
        ------
        D2RosError
            For an image or calibration that cannot be used; the window is unharmed.
        """
        _check(image, stamp, camera, self._window)
        config, window, watch = self.config, self._window, Stopwatch()
        self.extractor.config = config
        features = self.extractor.extract([image])[0]
        pyramid = build_pyramid(grey(image), config.alignment.levels, self.device)
        watch.lap("network")

        matches = match(features.descriptors, [keyframe.descriptors for keyframe in window])
        watch.lap("matching")
        inlier = self._verify(features, matches, camera)
        watch.lap("verification")
        tracks = _tracks_of(matches, inlier, window, len(features.keypoints))
        pairs = _pairs(matches, inlier, len(window))
        size = (image.shape[1], image.shape[0])
        features, tracks, row_of = find_lost(
            features, tracks, window, pairs, config.features.max_keypoints, size
        )
        matches, inlier = _renumber(matches, inlier, row_of)
        pairs = _pairs(matches, inlier, len(window))
        watch.lap("graph")

        owner, edges = self._measure(features, tracks, pairs, pyramid, stamp)
        watch.lap("alignment")
        frame = self._refine(features, tracks, owner, edges, camera, pyramid, stamp)
        refined = frame.tracks > 0
        watch.lap("refinement")

        solved, shown = None, window
        if is_keyframe(window, stamp, frame.pixels, frame.tracks, camera, config.window):
            frame = self._start_tracks(frame)
            window = [*window, frame][-config.window.size :]
            if config.refinement.enabled:
                window = _solve(window, config)
            self._window = window
            frame, solved = window[-1], track_rows(window)
            moved = {keyframe.stamp: keyframe for keyframe in window}
            shown = [moved.get(keyframe.stamp, keyframe) for keyframe in shown]
        self._count(frame.tracks)
        lengths = np.array([self._lengths.get(track, 0) for track in frame.tracks.tolist()])
        watch.lap("optimisation")
        return FrameResult(
            stamp=stamp,
            is_keyframe=solved is not None,
            features=feature_rows(frame, features.scores, lengths, refined),
            matches=match_rows(frame, matches, inlier, shown),
            tracks=solved,
            descriptors=features.descriptors.float().cpu().numpy(),
            timings_ms=watch.laps_ms,
        )

    def _verify(
        self, features: Features, matches: Matches, camera: Camera | None
    ) -> NDArray[np.bool_]:
        inlier = np.zeros(len(matches), bool)
        settings = self.config.matching
        for number, keyframe in enumerate(self._window):
            rows = np.flatnonzero(matches.keyframe == number)
            inlier[rows] = verify(
                features.keypoints[matches.index[rows]].astype(np.float64),
                keyframe.pixels[matches.keyframe_index[rows]],
                camera,
                keyframe.camera,
                settings.max_epipolar_error,
                settings.seed,
            )
        return inlier

    def _measure(
        self,
        features: Features,
        tracks: NDArray[np.int64],
        pairs: Sequence[Pairs],
        pyramid: Pyramid,
        stamp: int,
    ) -> tuple[NDArray[np.int64], Edges]:
        """Align every tracked keypoint with all its keyframes; owner row and edge of each."""
        detected = features.keypoints.astype(np.float64)
        owners, keyframes, centres, starts, guesses = [], [], [], [], []
        for number, (keyframe, pair) in enumerate(zip(self._window, pairs, strict=True)):
            rows = keyframe.rows_of(tracks)
            owner = np.flatnonzero(rows >= 0)
            centre = keyframe.pixels[rows[owner]]
            guess = predict(centre, keyframe.pixels[pair[1]], detected[pair[0]])
            if guess is None:
                guess = Warps(detected[owner], np.tile(np.eye(2), (len(owner), 1, 1)))
            owners.append(owner)
            keyframes.append(np.full(len(owner), number))
            centres.append(centre)
            starts.append(Warps(detected[owner], guess.affine))
            guesses.append(guess)
        owner = np.concatenate([np.empty(0, np.int64), *owners])
        if len(owner) == 0 or not self.config.refinement.enabled:
            return np.empty(0, np.int64), no_edges()
        centre, keyframe_of = np.concatenate(centres), np.concatenate(keyframes)
        measured = align(
            [keyframe.pyramid for keyframe in self._window],
            pyramid,
            keyframe_of,
            centre,
            [_stack(starts), _stack(guesses)],
            self.config.alignment,
        )
        stamps = np.array([keyframe.stamp for keyframe in self._window])[keyframe_of]
        edges = _edges(tracks[owner], stamps, stamp, centre, measured)
        return owner[measured.accepted], edges.select(measured.accepted)

    def _refine(
        self,
        features: Features,
        tracks: NDArray[np.int64],
        owner: NDArray[np.int64],
        edges: Edges,
        camera: Camera | None,
        pyramid: Pyramid,
        stamp: int,
    ) -> Keyframe:
        """The frame with its keypoints moved to where the window says that they lie."""
        detected = features.keypoints.astype(np.float64)
        refined = refine_frame(
            owner, edges.pixels, edges.covariance, len(detected), self.config.refinement
        )
        agreed = np.isfinite(refined.pixels[:, 0])
        if self.config.refinement.enabled:
            tracks = np.where(agreed, tracks, 0)
        return Keyframe(
            stamp=stamp,
            camera=camera,
            pyramid=pyramid,
            detected=detected,
            pixels=np.where(agreed[:, None], refined.pixels, detected),
            covariance=np.where(
                agreed[:, None, None], refined.covariance, features.covariances
            ),
            descriptors=features.descriptors,
            channels=features.channels,
            tracks=tracks,
            edges=edges,
        )

    def _start_tracks(self, frame: Keyframe) -> Keyframe:
        """Open a track at every keypoint that has none and can be aligned at all."""
        settings = self.config.alignment
        sigma = predicted_sigma(frame.pyramid, frame.pixels, settings.patch_radius)
        fresh = np.flatnonzero((frame.tracks == 0) & (sigma <= settings.max_sigma))
        tracks = frame.tracks.copy()
        tracks[fresh] = self._next_track + np.arange(len(fresh))
        self._next_track += len(fresh)
        return replace(frame, tracks=tracks)

    def _count(self, tracks: NDArray[np.int64]) -> None:
        for track in tracks[tracks > 0].tolist():
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


def _tracks_of(
    matches: Matches, inlier: NDArray[np.bool_], window: Sequence[Keyframe], count: int
) -> NDArray[np.int64]:
    track = np.zeros(len(matches), np.int64)
    for number, keyframe in enumerate(window):
        rows = matches.keyframe == number
        track[rows] = keyframe.tracks[matches.keyframe_index[rows]]
    return assign_tracks(
        matches.index[inlier],
        track[inlier],
        matches.similarity[inlier].astype(np.float64),
        count,
    )


def _pairs(matches: Matches, inlier: NDArray[np.bool_], keyframes: int) -> list[Pairs]:
    picked = [inlier & (matches.keyframe == number) for number in range(keyframes)]
    return [(matches.index[rows], matches.keyframe_index[rows]) for rows in picked]


def _renumber(
    matches: Matches, inlier: NDArray[np.bool_], row_of: NDArray[np.int64]
) -> tuple[Matches, NDArray[np.bool_]]:
    rows = row_of[matches.index]
    kept = rows >= 0
    renumbered = Matches(
        rows[kept],
        matches.keyframe[kept],
        matches.keyframe_index[kept],
        matches.similarity[kept],
    )
    return renumbered, inlier[kept]


def _stack(parts: Sequence[Warps]) -> Warps:
    return Warps(
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.affine for part in parts]),
    )


def _edges(
    tracks: NDArray[np.int64],
    stamps: NDArray[np.int64],
    stamp: int,
    centres: NDArray[np.float64],
    measured: Alignment,
) -> Edges:
    return Edges(
        track=tracks,
        stamp_from=stamps,
        stamp_to=np.full(len(tracks), stamp, np.int64),
        centre=centres,
        pixels=measured.warps.pixels,
        affine=measured.warps.affine,
        covariance=measured.covariance,
    )


def _solve(window: Sequence[Keyframe], config: Config) -> list[Keyframe]:
    """The window with all observations of its tracks refined together."""
    stamps = np.array([keyframe.stamp for keyframe in window])
    base = np.cumsum([0, *(len(keyframe.tracks) for keyframe in window)])
    tracks = np.concatenate([keyframe.tracks for keyframe in window])
    # The oldest observation of every track is its root (the first of np.unique's).
    held = np.zeros(len(tracks), bool)
    held[np.unique(tracks, return_index=True)[1]] = True
    edges = join([keyframe.edges for keyframe in window])
    edges = edges.select(np.isin(edges.stamp_from, stamps))
    first = _nodes(window, stamps, base, edges.stamp_from, edges.track)
    second = _nodes(window, stamps, base, edges.stamp_to, edges.track)
    pixels = refine_window(
        np.concatenate([keyframe.pixels for keyframe in window]),
        held,
        first,
        second,
        edges,
        config.refinement,
    )
    return [
        replace(keyframe, pixels=part)
        for keyframe, part in zip(window, np.split(pixels, base[1:-1]), strict=True)
    ]


def _nodes(
    window: Sequence[Keyframe],
    stamps: NDArray[np.int64],
    base: NDArray[np.int64],
    edge_stamps: NDArray[np.int64],
    edge_tracks: NDArray[np.int64],
) -> NDArray[np.int64]:
    nodes = np.empty(len(edge_stamps), np.int64)
    for number, keyframe in enumerate(window):
        rows = edge_stamps == stamps[number]
        nodes[rows] = base[number] + keyframe.rows_of(edge_tracks[rows])
    return nodes
