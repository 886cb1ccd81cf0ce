"""A keyframe known again (topic ``loops``): where its camera is relative to the one of then."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.mapper.adjustment import Map
from d2_ros.mapper.config import MapperConfig
from d2_ros.mapper.geometry import inverse, pose_covariance, refine_pose, residuals, search_pose
from d2_ros.mapper.landmarks import Landmarks
from d2_ros.mapper.observations import roots_of
from d2_ros.mapper.pose_graph import Correction, Loop, PoseGraph

_MOST_KEYFRAMES = 10_000
"""Keyframes whose tracks are remembered, the newest; 4 kB each."""

_MOST_TRACKS = 2**21
"""Tracks of which is remembered who saw them last, the newest, about; 8 bytes each."""

_LEAST_SHARE = 0.5
"""Of the rows whose place is known, the share that one pose must explain."""

_LEAST_ANGLE = 1e-4  # rad
_LEAST_SHARE_OF_DEPTH = 1e-4
"""What a loop is certain to at best, whatever its covariance says: rad, and share of the depth."""


class Seen:
    """Tracks of the rows of ``features``, by keyframe, and who saw each track last."""

    def __init__(self) -> None:
        self._ids: dict[int, NDArray[np.uint32]] = {}
        self._lowest = 0
        self._last: NDArray[np.int64] = np.zeros(0, np.int64)  # of track `_lowest` and those after

    def add(self, stamp: int, ids: NDArray[np.uint32]) -> None:
        """Remember the track of every row of a keyframe's ``features``; 0 for none."""
        self._ids[stamp] = ids.copy()
        while len(self._ids) > _MOST_KEYFRAMES:
            del self._ids[next(iter(self._ids))]
        missing = int(ids.max(initial=0)) + 1 - self._lowest - len(self._last)
        if missing > 0:
            self._last = np.append(self._last, np.zeros(max(missing, len(self._last)), np.int64))
        if len(self._last) > 2 * _MOST_TRACKS:
            used = int(ids.max()) + 1 - self._lowest
            self._lowest += max(used - _MOST_TRACKS, 0)
            self._last = self._last[max(used - _MOST_TRACKS, 0) :][:_MOST_TRACKS]
        rows = ids.astype(np.int64) - self._lowest
        self._last[rows[rows >= 0]] = stamp

    def tracks(self, stamp: int, rows: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Tracks of rows; 0 where they are not known."""
        ids = self._ids.get(stamp, np.empty(0, np.uint32))
        inside = rows < len(ids)
        found = np.zeros(len(rows), np.int64)
        found[inside] = ids[rows[inside]]
        return found

    def last(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Stamps of the keyframes that saw tracks last; 0 where none is remembered."""
        rows = ids - self._lowest
        known = (rows >= 0) & (rows < len(self._last))
        stamps = np.zeros(len(ids), np.int64)
        stamps[known] = self._last[rows[known]]
        return stamps


class Loops:
    """What a mapper remembers for loops, and what they have come to.

    Parameters
    ----------
    config
        Uses thresholds and ``keep_landmarks``.

    Attributes
    ----------
    seen
        Tracks of the keyframes' features.
    graph
        The loops that count.
    """

    def __init__(self, config: MapperConfig) -> None:
        self.seen, self.graph = Seen(), PoseGraph()
        self._config = config
        self._earlier = Landmarks(config.keep_landmarks)
        self._begins: list[int] = []

    def begin_segment(self, stamp: int, landmarks: Landmarks) -> None:
        """Keep the landmarks of the segment that ends where another one begins."""
        none: NDArray[np.int64] = np.empty(0, np.int64)
        self._earlier.update(landmarks.ids, landmarks.places, landmarks.covariances, none)
        self._begins.append(stamp)

    def forget(self) -> None:
        """Forget all loops: the map has got another scale."""
        self.graph = PoseGraph()

    def take(
        self,
        stamp: int,
        rows: NDArray[np.void],
        camera: Camera,
        keyframes: Mapping[int, NDArray[np.float64]],
        landmarks: Landmarks,
        metric: bool,
    ) -> bool:
        """Take a message of ``loops``; return whether the map is corrected by it.

        Only what this run has seen counts: of another run's map nothing is known here.

        Parameters
        ----------
        stamp
            Of its header, ns.
        rows
            ``(N,)`` of ``records.LOOPS``.
        camera
            Calibration of now.
        keyframes
            Stamp -> ``(4, 4)`` T_odom_camera.
        landmarks
            Of the segment of now.
        metric
            Whether the map is in metres.
        """
        rows = rows[rows["session"] == 0]
        if not len(rows):
            return False
        then = int(rows["keyframe_sec"][0]) * 1_000_000_000 + int(rows["keyframe_nanosec"][0])
        known = dict(sorted(keyframes.items()))
        loop = None
        if then in known and stamp in known:
            earlier = then < self._begins[-1]
            loop = measure(
                rows,
                (then, stamp),
                (known[then], known[stamp]),
                (
                    self.seen.tracks(then, rows["keyframe_index"]),
                    self.seen.tracks(stamp, rows["index"]),
                ),
                (self._earlier if earlier else landmarks, landmarks),
                camera,
                self._config,
            )
        if loop is None:
            self.graph.refused += 1
            return False
        return self.graph.add(loop, known, set(self._begins[1:]), metric)

    def correct(self, made: Map, metric: bool) -> Map:
        """Return a map of odom put right: a landmark moves with the keyframe that saw it last."""
        if not self.graph.loops:
            return made
        known = dict(sorted(made.trajectory.keyframes.items()))
        correction = self.graph.corrected(known, set(self._begins[1:]), metric)
        return Map(made.trajectory.corrected(correction), self._place(made.landmarks, correction))

    def place(self, landmarks: Landmarks) -> Landmarks:
        """Landmarks of odom in the corrected map."""
        return self._place(landmarks, self.graph.correction) if self.graph.loops else landmarks

    def _place(self, landmarks: Landmarks, correction: Correction) -> Landmarks:
        last = self.seen.last(landmarks.ids)
        turns, _, scales = correction.at(last)
        places = correction.points(last, landmarks.places)
        covariances = turns @ landmarks.covariances @ turns.swapaxes(1, 2)
        covariances *= (scales**2)[:, None, None]
        return Landmarks(landmarks.most, landmarks.ids, places, covariances)


def measure(
    rows: NDArray[np.void],
    stamps: tuple[int, int],
    poses: tuple[NDArray[np.float64], NDArray[np.float64]],
    tracks: tuple[NDArray[np.int64], NDArray[np.int64]],
    landmarks: tuple[Landmarks, Landmarks],
    camera: Camera,
    config: MapperConfig,
) -> Loop | None:
    """Place the camera of now by the landmarks of then.

    Parameters
    ----------
    rows
        ``(N,)`` of ``records.LOOPS``.
    stamps
        Of the keyframes then and now, ns, as in all pairs that follow.
    poses
        ``(4, 4)`` T_odom_camera.
    tracks
        ``(N,)`` of each row; 0 for none.
    landmarks
        Places in odom.
    camera
        Of now.

    Returns
    -------
    None where too few rows have a place then, or no pose explains them; with one camera also
    where too few have one in both maps, which tells the scale.
    """
    places, known = _places(landmarks[0], tracks[0], poses[0])
    pixels = np.column_stack([rows["u"], rows["v"]]).astype(np.float64)
    spread = np.column_stack([rows[name] for name in ("sigma_uu", "sigma_uv", "sigma_vv")])
    spread = spread.astype(np.float64) + np.array([1.0, 0.0, 1.0]) * config.sigma_floor**2
    rays = camera.bearings(pixels)[:, :2]
    known &= np.isfinite(np.concatenate([rays, spread], axis=1)).all(axis=1)
    roots = np.zeros((len(rows), 2, 2))
    roots[known], sensible = roots_of(rays[known], pixels[known], spread[known], camera)
    known[np.flatnonzero(known)[~sensible]] = False
    chosen = np.flatnonzero(known)
    limit = config.max_error / camera.focal
    if len(chosen) < config.min_points:
        return None
    pose = search_pose(places[chosen], rays[chosen], limit)
    if pose is None:
        return None
    mounts = np.broadcast_to(np.eye(4), (len(chosen), 4, 4))
    pose = refine_pose(pose, places[chosen], rays[chosen], roots[chosen], mounts)
    right = residuals(pose @ mounts, places[chosen], rays[chosen], roots[chosen]).distances < limit
    chosen = chosen[right]
    if len(chosen) < max(config.min_points, _LEAST_SHARE * len(right)):
        return None
    depths = ((places[chosen] - pose[:3, 3]) @ pose[:3, :3])[:, 2]
    here, also = _places(landmarks[1], tracks[1][chosen], poses[1])
    also &= here[:, 2] > 0
    ratios = np.log(depths[also] / here[also, 2]) if also.any() else np.empty(0)
    if len(ratios) < config.min_points:
        return None
    scale = float(np.exp(np.median(ratios)))
    scatter = 1.4826 * np.median(np.abs(ratios - np.median(ratios))) / np.sqrt(len(ratios))
    covariance = pose_covariance(pose, places[chosen], rays[chosen], roots[chosen])
    least = np.repeat([_LEAST_ANGLE, _LEAST_SHARE_OF_DEPTH * float(np.median(depths))], 3)
    sigmas = np.append(np.hypot(np.sqrt(np.diag(covariance)), least), max(scatter, 1e-4))
    return Loop(*stamps, pose, scale, sigmas)


def _places(
    landmarks: Landmarks, tracks: NDArray[np.int64], pose: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Places of tracks in the frame of a camera, and which are known."""
    rows, there = landmarks.find(tracks)
    places, known = np.zeros((len(tracks), 3)), np.zeros(len(tracks), bool)
    to_camera = inverse(pose)
    places[rows] = landmarks.places[there] @ to_camera[:3, :3].T + to_camera[:3, 3]
    known[rows] = tracks[rows] > 0
    return places, known
