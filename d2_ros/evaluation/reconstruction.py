"""Points and cameras that COLMAP makes of a sequence's tracks or matches, method by method.

Every method's keypoints and matches go through the same steps: a database, COLMAP's triangulation
at the true poses, its bundle adjustment. Before the adjustment the error is one of the keypoints
alone, since the poses are the true ones; after it the cameras tell how far they have been drawn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from evo.core.geometry import GeometryException, umeyama_alignment
from numpy.typing import NDArray

from d2_ros.camera import HeldCamera
from d2_ros.errors import D2RosError
from d2_ros.evaluation.peers import Klt, Observed, Sparse, gray8, mutual_nearest, root_sift
from d2_ros.evaluation.tables import Column
from d2_ros.evaluation.tracking import Figures, is_static_camera
from d2_ros.export.colmap import adjust, triangulate, write_database
from d2_ros.export.view_graph import Pairs, ViewGraph, latest, match_pairs, track_pairs, view_graph
from d2_ros.matching.verification import verify
from d2_ros.processor import Processor
from d2_ros.published import PublishedFrame
from d2_ros.sources.base import Frame
from d2_ros.tracks.keyframe import Keyframe

METHODS = ("d2", "d2_matches", "d2_detected", "d2_matches_detected", "sift", "klt")

KLT_SPACING = 10.0
"""Least distance of KLT's points when they are found, px."""

COLUMNS: tuple[Column, ...] = (
    ("points", "points", "{:.0f}"),
    ("observations", "observations", "{:.0f}"),
    ("mean_track_length", "mean length", "{:.2f}"),
    ("reprojection_error_px", "error at true poses, px", "{:.3f}"),
    ("points_below_1px", "points below 1 px", "{:.1%}"),
    ("adjusted_observations", "observations left", "{:.0f}"),
    ("adjusted_reprojection_error_px", "adjusted, px", "{:.3f}"),
    ("camera_error_mm", "camera error, mm", "{:.2f}"),
)


class Windowed(Processor, Protocol):
    """What is needed of :class:`d2_ros.frontend.FrontEnd`."""

    @property
    def window(self) -> tuple[Keyframe, ...]:
        """The keyframes, oldest first."""
        ...


@dataclass
class Recording:
    """What every method has seen.

    Attributes
    ----------
    frames
        As published.
    tracks
        Rows of every ``tracks`` message.
    sift
        ``(N, 2)`` keypoints of every frame, px.
    sift_pairs
        Verified matches of every frame with the keyframes that the front-end matched it with.
    klt
        What was tracked in every frame.
    """

    frames: list[PublishedFrame] = field(default_factory=list)
    tracks: list[NDArray[np.void]] = field(default_factory=list)
    sift: list[NDArray[np.float64]] = field(default_factory=list)
    sift_pairs: dict[tuple[int, int], NDArray[np.uint32]] = field(default_factory=dict)
    klt: list[Observed] = field(default_factory=list)


def record(frames: Iterable[Frame], frontend: Windowed) -> Recording:
    """Let every method see all frames, with as many keypoints as the front-end has in each.

    Parameters
    ----------
    frames
        In time order.
    frontend
        Fresh.
    """
    config = frontend.config
    matching, most = config.matching, config.features.max_keypoints
    seen, window, klt = Recording(), HeldCamera(), Klt(most, KLT_SPACING)
    keyframes: dict[int, tuple[int, Sparse]] = {}  # stamp -> number and SIFT of the window's
    for number, frame in enumerate(frames):
        height, width = frame.image.shape[:2]
        camera, change = window.update(frame.camera, (width, height))
        if change:
            frontend.reset()
            klt = Klt(most, KLT_SPACING)

        def verified(
            first: NDArray[np.float64], second: NDArray[np.float64], camera: Any = camera
        ) -> NDArray[np.bool_]:
            return verify(second, first, camera, camera, matching.max_error, matching.seed).inlier

        stamps = [keyframe.stamp for keyframe in frontend.window]
        keyframes = {stamp: keyframes[stamp] for stamp in stamps}
        result = frontend.process(frame.image, frame.stamp, camera)
        image, count = gray8(frame.image), len(result.features)
        ours = root_sift(image, count)
        for other, theirs in keyframes.values():
            near, far = mutual_nearest(theirs, ours)
            kept = verified(theirs.pixels[near], ours.pixels[far])
            rows = np.column_stack([near, far])[kept]
            seen.sift_pairs[other, number] = rows.astype(np.uint32)
        if result.is_keyframe:
            keyframes[frame.stamp] = number, ours
        seen.frames.append(
            PublishedFrame(frame.stamp, camera, (width, height), result.features, result.matches)
        )
        if result.tracks is not None:
            seen.tracks.append(result.tracks)
        seen.sift.append(ours.pixels)
        klt.points = count
        seen.klt.append(klt.track(image, verified))
    return seen


def graphs(seen: Recording) -> dict[str, ViewGraph]:
    """View graph of every one of :data:`METHODS`."""
    observed = latest(seen.frames, seen.tracks)
    tracks = track_pairs([one.tracks for one in observed])
    matches = match_pairs(seen.frames)
    refined, detected = [one.pixels for one in observed], [one.detected for one in observed]
    content: dict[str, tuple[list[NDArray[np.float64]], Pairs]] = {
        "d2": (refined, tracks),
        "d2_matches": (refined, matches),
        "d2_detected": (detected, tracks),
        "d2_matches_detected": (detected, matches),
        "sift": (seen.sift, seen.sift_pairs),
        "klt": ([one.pixels for one in seen.klt], track_pairs([one.ids for one in seen.klt])),
    }
    return {name: view_graph(seen.frames, *content[name]) for name in METHODS}


@dataclass(frozen=True)
class Reconstructed:
    """What COLMAP has made of one method's matches.

    Attributes
    ----------
    figures
        Named as in :data:`COLUMNS`.
    errors
        ``(P,)`` mean reprojection error of each point at the true poses, px.
    """

    figures: Figures
    errors: NDArray[np.float64]


def reconstruct(graph: ViewGraph, T_world_camera: NDArray[np.float64]) -> Reconstructed:
    """Triangulate at the true poses, adjust, and hold the cameras against the true ones.

    Parameters
    ----------
    graph
        Of one method.
    T_world_camera
        ``(V, 4, 4)`` true poses of its views, NaN where unknown.

    Raises
    ------
    D2RosError
        If fewer than two views have a calibration and a pose.
    """
    with tempfile.TemporaryDirectory(prefix="d2_ros_") as name:
        folder = Path(name)
        database = folder / "database.db"
        images = write_database(database, graph)
        model = triangulate(graph, database, images, T_world_camera, folder)
    errors = np.array([point.error for point in model.points3D.values()])
    figures: Figures = {"points": len(errors), "observations": model.compute_num_observations()}
    if not len(errors):
        return Reconstructed(figures, errors)
    figures["mean_track_length"] = model.compute_mean_track_length()
    figures["reprojection_error_px"] = model.compute_mean_reprojection_error()
    figures["points_below_1px"] = float(np.mean(errors < 1))
    adjust(model)
    if not model.num_points3D():
        return Reconstructed(figures, errors)
    figures["adjusted_observations"] = model.compute_num_observations()
    figures["adjusted_reprojection_error_px"] = model.compute_mean_reprojection_error()
    views = {image: number for number, image in images.items()}
    posed = [(views[key], image) for key, image in model.images.items() if image.has_pose]
    places = np.array([image.projection_center() for _, image in posed])
    error = camera_error(places, T_world_camera[[number for number, _ in posed], :3, 3])
    if error is not None:
        figures["camera_error_mm"] = 1e3 * error
    return Reconstructed(figures, errors)


def camera_error(places: NDArray[np.float64], true: NDArray[np.float64]) -> float | None:
    """Distance of cameras from their true places, rms, after alignment with scale (Umeyama 1991).

    Parameters
    ----------
    places, true
        ``(V, 3)``, m.

    Returns
    -------
    m; None where no alignment is determined: too few places, or all on a line.
    """
    try:
        turn, shift, scale = umeyama_alignment(places.T, true.T, with_scale=True)
    except GeometryException:
        return None
    off = scale * places @ turn.T + shift - true
    return float(np.sqrt(np.mean(np.sum(off**2, axis=1))))


def true_poses(poses: NDArray[np.float64] | None, name: str) -> NDArray[np.float64]:
    """Poses that points can be triangulated at.

    Raises
    ------
    D2RosError
        If there are none, or the camera stands still.
    """
    if poses is None:
        raise D2RosError(f"{name} has no ground-truth poses, which evaluate reconstruction needs")
    if is_static_camera(poses):
        raise D2RosError(f"the camera of {name} stands still: nothing can be triangulated")
    return poses
