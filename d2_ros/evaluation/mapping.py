"""One mapper, fed by the front-end and by its peers with rows of the same format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from d2_ros.camera import Camera, HeldCamera
from d2_ros.config import Config, MatchingConfig
from d2_ros.errors import D2RosError
from d2_ros.evaluation.peers import (
    Chain,
    Klt,
    Observed,
    Sparse,
    flow,
    gray8,
    mutual_nearest,
    root_sift,
)
from d2_ros.evaluation.sequences import KLT_POINTS
from d2_ros.evaluation.trajectories import Path3D, judge
from d2_ros.mapper.config import KEEP_ALL, MapperConfig
from d2_ros.mapper.mapper import Mapper
from d2_ros.mapper.observations import Right
from d2_ros.matching.verification import verify
from d2_ros.places.keeper import Keeper
from d2_ros.places.loops import loop_rows
from d2_ros.processor import Processor
from d2_ros.records import FEATURES, STEREO, TRACKS, FrameResult, columns, split_stamp
from d2_ros.sources.base import Frame

METHODS = {
    "d2": "refined, each observation with its published covariance",
    "d2_equal": "refined, all covariances equal",
    "d2_detected": "as detected, all covariances equal",
    "klt": "corners and Lucas-Kanade, all covariances equal",
    "sift": "RootSIFT from frame to frame, all covariances equal",
}
"""Of a stereo pair the right places are: those of ``stereo``; the right detections next to these;
Lucas-Kanade from left to right; RootSIFT matched from left to right."""

ERRORS = ("absolute_error_m", "relative_error_m", "relative_error_deg")

LOOPS_METHOD = "d2_loops"
"""As ``d2``, put right by the places that are known again."""


Figures = dict[str, float | int | str]


@dataclass
class Mapped:
    """What the mappers have made of a sequence.

    Attributes
    ----------
    figures
        Per method.
    paths
        Method -> ``(N, 3)`` places after alignment, and ``truth``.
    """

    figures: dict[str, Figures] = field(default_factory=dict)
    paths: dict[str, NDArray[np.float64]] = field(default_factory=dict)


class Pair(Protocol):
    """The right camera of a stereo pair, as :class:`d2_ros.commands.replay_right.RightCamera`."""

    T_left_right: NDArray[np.float64] | None
    seen: FrameResult | None

    def find(self, left: Frame, result: FrameResult) -> tuple[Frame, NDArray[np.void]] | None:
        """Its frame of the left one's time, and the rows of ``stereo``."""
        ...


def run_mappers(
    frames: Iterable[Frame],
    frontend: Processor,
    config: MapperConfig,
    pair: Pair | None = None,
    keeper: Keeper | None = None,
) -> tuple[dict[str, Mapper], list[int]]:
    """Run the front-end and its peers over every frame, and a mapper behind each.

    The peers' keyframes are the front-end's. An equal covariance is 1 px: the mapper looks at what
    covariances say of one another only. With a `keeper` of places there is one more method,
    :data:`LOOPS_METHOD`.

    Returns
    -------
    Mappers by method, and the stamps of the frames, ns.

    Raises
    ------
    D2RosError
        For a frame that cannot be used or has no calibration.
    """
    kept = replace(config, keep_keyframes=KEEP_ALL)
    mappers = {name: Mapper(kept) for name in METHODS}
    if keeper is not None:
        mappers[LOOPS_METHOD] = Mapper(replace(kept, loops=True))
    chain, follower, detected = Chain(), Klt(*KLT_POINTS["klt"]), Detected()
    window, stamps = HeldCamera(), []
    for frame in frames:
        height, width = frame.image.shape[:2]
        camera, change = window.update(frame.camera, (width, height))
        if camera is None:
            raise D2RosError(f"the frame at {frame.stamp} ns has no calibration; a mapper needs it")
        if change:
            raise D2RosError(f"at {frame.stamp} ns {change}; judge a part of one camera")
        image = gray8(frame.image)
        verified = partial(_verified, camera=camera, config=frontend.config.matching)
        result = frontend.process(frame.image, frame.stamp, camera)
        sparse = root_sift(image, frontend.config.features.max_keypoints)
        tracks = result.tracks
        klt, chained = follower.track(image, verified), chain.track(sparse, verified)
        told = {
            "d2": (result.features, tracks),
            "d2_equal": (equal(result.features), None if tracks is None else equal(tracks)),
            "d2_detected": detected.of(result, camera),
            "klt": observed_rows(klt, result, camera),
            "sift": observed_rows(chained, result, camera),
        }
        if keeper is not None:
            told[LOOPS_METHOD] = told["d2"]
        rights: dict[str, Right] = {}
        if pair is not None and (found := pair.find(replace(frame, camera=camera), result)):
            rights = _rights(pair, found, image, sparse, klt, camera, frontend.config)
            if keeper is not None:
                rights[LOOPS_METHOD] = rights["d2"]
        for name, (features, tracks) in told.items():
            mappers[name].add_features(frame.stamp, features, camera, rights.get(name))
            if tracks is not None:
                mappers[name].add_tracks(frame.stamp, tracks, camera)
        if keeper is not None and result.is_keyframe:
            known = keeper.take(result, frame.image, camera)
            if known is not None:
                mappers[LOOPS_METHOD].add_loops(frame.stamp, loop_rows(known), camera)
        stamps.append(frame.stamp)
    return mappers, stamps


def _rights(
    pair: Pair,
    found: tuple[Frame, NDArray[np.void]],
    image: NDArray[np.uint8],
    sparse: Sparse,
    klt: Observed,
    camera: Camera,
    config: Config,
) -> dict[str, Right]:
    """What the right camera sees of every method's features."""
    frame, rows = found
    other, T_left_right, result = frame.camera, pair.T_left_right, pair.seen
    assert other is not None
    assert T_left_right is not None
    assert result is not None
    second = gray8(frame.image)
    verified = partial(_verified, camera=camera, config=config.matching, other=other)
    detections = columns(result.features, "u_detected", "v_detected")
    nearest = cKDTree(detections).query(columns(rows, "u", "v"))[1] if len(rows) else []
    there, ok = flow(image, second, klt.pixels) if len(klt.ids) else (klt.pixels, klt.ids > 0)
    followed = np.flatnonzero(ok)
    followed = followed[verified(klt.pixels[followed], there[followed])]
    right = root_sift(second, config.features.max_keypoints)
    a, b = mutual_nearest(sparse, right)
    kept = verified(sparse.pixels[a], right.pixels[b])
    told = {
        "d2": rows,
        "d2_equal": equal(rows, 0.0),
        "d2_detected": moved(equal(rows, 0.0), detections[nearest], other),
        "klt": _stereo_rows(followed, there[followed], other),
        "sift": _stereo_rows(a[kept], right.pixels[b[kept]], other),
    }
    return {name: Right(content, other, T_left_right) for name, content in told.items()}


def _stereo_rows(
    index: NDArray[np.int64], pixels: NDArray[np.float64], camera: Camera
) -> NDArray[np.void]:
    rows = moved(np.zeros(len(index), STEREO), pixels, camera)
    rows["index"] = index
    return rows


def _verified(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    camera: Camera,
    config: MatchingConfig,
    other: Camera | None = None,
) -> NDArray[np.bool_]:
    """Which matches of a peer one motion explains, as for the front-end's own."""
    return verify(second, first, other or camera, camera, config.max_error, config.seed).inlier


def judge_mappers(mappers: dict[str, Mapper], truth: Path3D) -> Mapped:
    """Judge the trajectories, live and smoothed as a whole; a method without one has no errors."""
    found = Mapped()
    for name, mapper in mappers.items():
        counts = mapper.counts
        figures: Figures = {
            "frames_placed": len(mapper.trajectory), "frames": counts.frames,
            "keyframes": counts.keyframes, "lost": counts.lost, "segments": counts.segments,
            **{f"{part}.p50_ms": value for part, value in counts.medians().items()},
            "loops": len(mapper.loops.graph.loops), "loops_refused": mapper.loops.graph.refused,
        }  # fmt: skip
        if len(mapper.trajectory) >= 3:
            live = judge(Path3D(*mapper.trajectory.poses()), truth, mapper.metric)
            adjusted = mapper.adjusted().trajectory
            judged = judge(Path3D(*adjusted.poses()), truth, mapper.metric)
            figures |= judged.figures
            figures |= {
                f"live.{name}": live.figures[name] for name in ERRORS if name in live.figures
            }
            found.paths = {"truth": judged.true, **found.paths, name: judged.estimated}
        found.figures[name] = figures
    return found


def equal(rows: NDArray[np.void], sigma: float = 1.0) -> NDArray[np.void]:
    """Return the rows with round covariances; 0 px for ``stereo``, relative to the left ones."""
    result = rows.copy()
    result["sigma_uu"] = result["sigma_vv"] = sigma**2
    result["sigma_uv"] = 0.0
    return result


class Detected:
    """Features and tracks put back to where the network has detected them."""

    def __init__(self) -> None:
        self._pixels: dict[int, NDArray[np.float64]] = {}

    def of(
        self, result: FrameResult, camera: Camera
    ) -> tuple[NDArray[np.void], NDArray[np.void] | None]:
        """Return the rows of both topics, with equal covariances."""
        pixels = columns(result.features, "u_detected", "v_detected")
        self._pixels[result.stamp] = pixels
        features = moved(equal(result.features), pixels, camera)
        if result.tracks is None:
            return features, None
        tracks = result.tracks
        stamps = tracks["sec"].astype(np.int64) * 1_000_000_000 + tracks["nanosec"]
        places = np.empty((len(tracks), 2))
        for stamp in np.unique(stamps).tolist():
            places[stamps == stamp] = self._pixels[stamp][tracks["index"][stamps == stamp]]
        oldest = int(stamps.min(initial=result.stamp))
        self._pixels = {stamp: seen for stamp, seen in self._pixels.items() if stamp >= oldest}
        return features, moved(equal(tracks), places, camera)


def moved(rows: NDArray[np.void], pixels: NDArray[np.float64], camera: Camera) -> NDArray[np.void]:
    """Put rows elsewhere, ``(N, 2)`` px; they are changed."""
    rows["u"], rows["v"] = pixels.T
    rows["x"], rows["y"], rows["z"] = camera.bearings(pixels).T
    return rows


def observed_rows(
    seen: Observed, result: FrameResult, camera: Camera
) -> tuple[NDArray[np.void], NDArray[np.void] | None]:
    """What a peer sees, as rows of both topics; it is a keyframe where the front-end's frame is."""
    features = moved(equal(np.zeros(len(seen.ids), FEATURES)), seen.pixels, camera)
    features["track_id"] = seen.ids
    if not result.is_keyframe:
        return features, None
    tracks = moved(equal(np.zeros(len(seen.ids), TRACKS)), seen.pixels, camera)
    tracks["track_id"], tracks["index"] = seen.ids, np.arange(len(seen.ids))
    tracks["sec"], tracks["nanosec"] = split_stamp(result.stamp)
    return features, tracks
