"""A sequence through the front-end and its peers, frame by frame."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera, HeldCamera
from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.evaluation.accuracy import accuracy_figures, track_errors
from d2_ros.evaluation.geometry import relative
from d2_ros.evaluation.pairs import (
    MIN_BASELINE,
    PairResult,
    judge_pair,
    pair_figures,
    reference_pose_figures,
)
from d2_ros.evaluation.peers import (
    Chain,
    Klt,
    Observed,
    Points,
    Sparse,
    gray8,
    join,
    mutual_nearest,
)
from d2_ros.evaluation.stages import PEERS, STAGES, stage_points
from d2_ros.evaluation.static_camera import CommonMotion, figures_without_motion, static_camera_chi2
from d2_ros.evaluation.tracking import (
    Figures,
    is_static_camera,
    static_camera_figures,
    survival_figures,
    track_figures,
)
from d2_ros.matching.verification import verify
from d2_ros.processor import Processor
from d2_ros.records import FrameResult, columns
from d2_ros.sources.base import Frame, Source

KLT_POINTS = {"klt": (1000, 10.0), "klt150": (150, 30.0)}
"""Points and their spacing (px); the second is VINS-Fusion's setting."""

REFERENCE = "klt"
"""The method whose poses the others' are compared with: it shares no keypoint with any of them."""

METHODS = (*STAGES, *PEERS, *KLT_POINTS)

_CHI2 = {"50": 1.3863, "95": 5.9915}  # quantiles of chi-squared with two degrees of freedom


@dataclass(frozen=True)
class Seen:
    """One frame and what every method saw in it."""

    number: int
    camera: Camera | None
    shape: tuple[int, ...]
    result: FrameResult
    sparse: Mapping[str, Sparse]
    flow: Mapping[str, Observed]


@dataclass
class SequenceResult:
    """What a run leaves.

    Attributes
    ----------
    pairs
        Per method, the results of the pairs of frames, in time order.
    tracks
        Per method, what was tracked in every frame.
    published
        ``(stamp, features)`` of every frame.
    size
        (width, height) of the images, px.
    motion
        What the whole image moves by, if the camera is_static_camera.
    """

    pairs: dict[str, list[PairResult]] = field(default_factory=lambda: defaultdict(list))
    tracks: dict[str, list[Observed]] = field(default_factory=lambda: defaultdict(list))
    published: list[tuple[int, NDArray[np.void]]] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    motion: CommonMotion | None = None


def run_sequence(
    frames: Iterable[Frame],
    poses: NDArray[np.float64] | None,
    frontend: Processor,
    gap: int,
    every: int,
) -> SequenceResult:
    """Run the front-end and the peers over every frame, and judge pairs of frames.

    Parameters
    ----------
    frames
        In time order.
    poses
        ``(N, 4, 4)`` T_world_camera of the frames, NaN where unknown; None without.
    frontend
        Fresh.
    gap
        Frames from the first to the second of a pair.
    every
        Frames from one pair to the next.

    Raises
    ------
    D2RosError
        For a frame that cannot be used, and for one of another size.
    """
    outcome = SequenceResult(motion=CommonMotion() if is_static_camera(poses) else None)
    chains = {name: Chain() for name in PEERS}
    flows = {name: Klt(*settings) for name, settings in KLT_POINTS.items()}
    recent: deque[Seen] = deque(maxlen=gap + 1)
    window = HeldCamera()  # the rule of the node and of the replay
    size: tuple[int, int] | None = None
    for number, frame in enumerate(frames):
        height, width = frame.image.shape[:2]
        if size is not None and size != (width, height):
            raise D2RosError(
                f"the image at {frame.stamp} ns is {width}x{height}, those before it are "
                f"{size[0]}x{size[1]}; judge a part of one size, with --start and --frames"
            )
        size = width, height
        camera, change = window.update(frame.camera, size)
        if change:
            frontend.reset()
        frame = replace(frame, camera=camera)
        seen = _see(number, frame, frontend, chains, flows, outcome)
        recent.append(seen)
        first = recent[0]
        if seen.number - first.number == gap and first.number % every == 0:
            _judge(outcome, first, seen, poses, frontend.config)
    return outcome


def _see(
    number: int,
    frame: Frame,
    frontend: Processor,
    chains: Mapping[str, Chain],
    flows: Mapping[str, Klt],
    outcome: SequenceResult,
) -> Seen:
    """Let every method look at a frame."""
    config, camera, image = frontend.config, frame.camera, gray8(frame.image)
    matching = config.matching

    def verified(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.bool_]:
        return verify(second, first, camera, camera, matching.max_error, matching.seed).inlier

    result = frontend.process(frame.image, frame.stamp, camera)
    ids = result.features["track_id"].astype(np.int64)
    sparse = {name: see(image, config.features.max_keypoints) for name, see in PEERS.items()}
    flow = {name: tracker.track(image, verified) for name, tracker in flows.items()}
    detected = columns(result.features, "u_detected", "v_detected")
    tracks = {
        "d2": Observed(ids, columns(result.features, "u", "v")),
        "d2_detected": Observed(ids, detected),
        "d2_published": Observed(ids, detected),
        **{name: chain.track(sparse[name], verified) for name, chain in chains.items()},
        **flow,
    }
    for name, observed in tracks.items():
        outcome.tracks[name].append(observed)
    if outcome.motion is not None:
        outcome.motion.add(image)
    outcome.published.append((frame.stamp, result.features))
    outcome.size = (image.shape[1], image.shape[0])
    return Seen(number, camera, frame.image.shape, result, sparse, flow)


def _judge(
    outcome: SequenceResult,
    first: Seen,
    second: Seen,
    poses: NDArray[np.float64] | None,
    config: Config,
) -> None:
    """Judge all methods on a pair, unless its motion is unknown or too small."""
    if poses is None or first.camera is None or second.camera is None:
        return
    motion = relative(poses[first.number], poses[second.number])
    if not np.linalg.norm(motion[:3, 3]) >= MIN_BASELINE:  # NaN as well
        return
    cameras = (first.camera, second.camera)
    for name, points in _matches(first, second, config.features.max_edge).items():
        outcome.pairs[name].append(judge_pair(points, cameras, motion, config.matching))


def _matches(first: Seen, second: Seen, max_edge: int) -> dict[str, Points]:
    """Matches of two frames by every method, before verification."""
    shapes = (first.shape, second.shape)
    stamp = first.result.stamp
    found = stage_points(first.result.features, second.result, stamp, shapes, max_edge)
    for name in PEERS:
        ours, theirs = first.sparse[name], second.sparse[name]
        near, far = mutual_nearest(ours, theirs)
        found[name] = ours.pixels[near], theirs.pixels[far]
    for name in KLT_POINTS:
        before, after = first.flow[name], second.flow[name]
        near, far = join(before.ids, after.ids)
        found[name] = before.pixels[near], after.pixels[far]
    return found


def sequence_figures(
    outcome: SequenceResult,
    source: Source,
    poses: NDArray[np.float64] | None,
    start: int = 0,
) -> tuple[dict[str, Figures], Figures]:
    """Sum up a run: figures per method, and those of the sequence as a whole.

    On the synthetic sequence the latter hold the exact position errors and the calibration of
    the covariances.

    Parameters
    ----------
    outcome
        Of the run.
    source
        Where the frames came from, the whole of it.
    poses
        As in the run.
    start
        How many frames of `source` came before the first one.
    """
    from d2_ros.sources.synthetic import Synthetic

    static = is_static_camera(poses)
    figures: dict[str, Figures] = {}
    for name in METHODS:
        tracks = outcome.tracks[name]
        pairs = outcome.pairs[name]
        figures[name] = {**pair_figures(pairs), **track_figures(tracks, outcome.size)}
        if name != REFERENCE:
            figures[name] |= reference_pose_figures(pairs, outcome.pairs[REFERENCE])
        if static:
            figures[name] |= static_camera_figures(tracks)
        if outcome.motion is not None:
            figures[name] |= figures_without_motion(tracks, outcome.motion.homographies)
        if isinstance(source, Synthetic):
            for stretch, frames in (
                ("blur", source.blur_frames),
                ("exposure", source.exposure_frames),
            ):
                figures[name] |= survival_figures(tracks, frames, source, stretch, start)
    whole: Figures = {"frames": len(outcome.published)}
    if isinstance(source, Synthetic):
        errors = track_errors(outcome.published, source)
        whole |= accuracy_figures(errors)
        whole |= _calibration(errors.chi2)
        whole |= _later_errors(errors.error, errors.age)
    elif static:
        whole |= _calibration(static_camera_chi2(outcome.published))
        if outcome.motion is not None:
            chi2 = static_camera_chi2(outcome.published, outcome.motion.homographies)
            still = _calibration(chi2)
            whole |= {f"{key}_common_motion_removed": share for key, share in still.items()}
    return figures, whole


def _calibration(chi2: NDArray[np.float64]) -> Figures:
    """Share of squared normalised errors inside the ellipses that should hold 50 % and 95 %."""
    known = chi2[np.isfinite(chi2)]
    if not len(known):
        return {}
    return {
        f"share_inside_{percent}pct_ellipse": float(np.mean(known < limit))
        for percent, limit in _CHI2.items()
    }


def _later_errors(error: NDArray[np.float64], age: NDArray[np.int64]) -> dict[str, Any]:
    """Median error of observations that are at least the fourth of their track."""
    late = error[age >= 3]
    return {"median_error_from_4th_px": float(np.median(late))} if len(late) else {}
