"""The mapper: features of every frame and tracks of the keyframes in, trajectory and map out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from d2_ros.camera import Camera
from d2_ros.imu import ImuCalibration
from d2_ros.mapper.adjustment import Map, adjust
from d2_ros.mapper.config import MapperConfig
from d2_ros.mapper.geometry import refine_pose, residuals, search_pose
from d2_ros.mapper.inertial import Imu
from d2_ros.mapper.landmarks import Landmarks
from d2_ros.mapper.loops import Loops
from d2_ros.mapper.observations import Right, View, view_of, views_of
from d2_ros.mapper.start import stereo_start, two_view_start
from d2_ros.mapper.trajectory import Trajectory
from d2_ros.mapper.window import Keyframe, Window

_RECENT = 100
"""Frames whose observations are remembered until a map begins."""

_ALIGNED = 50
"""Keyframes by which metres are found where there is an IMU."""

_TIMES = 1000
"""Times that are remembered of frames and of keyframes."""

_LEAST_SHARE = 0.3
"""Of the known landmarks in a frame, the share that must be where they are expected."""


@dataclass
class Counts:
    """What has happened, for diagnostics and summaries.

    Attributes
    ----------
    frames, keyframes
        That came.
    lost
        Frames without a place when they came, since a map had begun.
    segments
        Maps begun, the first one included.
    restarts
        Maps forgotten since time jumped back or somebody asked for it.
    out_of_order
        Messages not later than the one before.
    frame_ms, keyframe_ms
        What the last ones took, CPU time of the one thread.
    """

    frames: int = 0
    keyframes: int = 0
    lost: int = 0
    segments: int = 0
    restarts: int = 0
    out_of_order: int = 0
    frame_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMES))
    keyframe_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMES))

    def medians(self) -> dict[str, float]:
        """Milliseconds of CPU time that a frame and a keyframe take, in the middle."""
        times = {"frame": self.frame_ms, "keyframe": self.keyframe_ms}
        return {name: float(np.median(taken)) for name, taken in times.items() if taken}


class Mapper:
    """A map from the rows of a camera's topics: up to scale; of a stereo pair or an IMU in metres.

    It begins with two keyframes, or one of a pair (:mod:`d2_ros.mapper.start`), places every frame
    by the landmarks that it sees, and smooths the window with each keyframe. Where too few
    landmarks are seen where they are expected the frame is lost; if the tracks of the following
    keyframes allow it, a new segment begins where the last motion would have led to, with the last
    speed as its scale.

    Attributes
    ----------
    counts
        What has happened.
    state
        ``starting``, ``tracking`` or ``lost``.
    trajectory, landmarks
        The map. The world is the first keyframe.
    loops
        What loops say against it.
    """

    def __init__(
        self, config: MapperConfig | None = None, imu: ImuCalibration | None = None
    ) -> None:
        self.config = config or MapperConfig()
        self._imu = None if imu is None else Imu(imu)
        self.counts = Counts()
        self._begin()

    def _begin(self) -> None:
        self.state, self._focal = "starting", 1.0
        self.trajectory = Trajectory(self.config.keep_frames)
        self.landmarks = Landmarks(self.config.keep_landmarks)
        self._rig = np.eye(4)[None]
        self._rights: dict[int, Right] = {}
        self._window = Window(self.config, self._rig)
        self._before: list[Window] = []
        self._rows: dict[int, NDArray[np.uint32]] = {}
        self.loops = Loops(self.config)
        if self._imu is not None:
            self._imu.reset()
        self._pending: list[View] = []
        self._recent: deque[View] = deque(maxlen=_RECENT)
        self._last: dict[str, int] = {}

    @property
    def metric(self) -> bool:
        """Whether the map is in metres."""
        return self._imu.aligned if self._imu else len(self._rig) > 1

    @property
    def T_map_odom(self) -> NDArray[np.float64]:
        """``(4, 4)``, by the newest keyframe; the identity without loops."""
        if not self.loops.graph.loops:
            return np.eye(4)
        newest = max(self.trajectory.keyframes)
        return self.loops.graph.correction.rigid(newest, self.trajectory.keyframes[newest])

    def add_imu(self, stamp: int, values: Sequence[float] | NDArray[np.float64]) -> None:
        """Take a sample of the IMU, before the frames that are later.

        Parameters
        ----------
        stamp
            Integer nanoseconds.
        values
            Angular velocity x, y, z (rad/s) and specific force x, y, z (m/s^2).
        """
        if self._imu is not None:
            self._imu.add(stamp, values)

    def reset(self) -> None:
        """Forget the map."""
        self._begin()
        self.counts.restarts += 1

    def adjusted(self) -> Map:
        """Return the map with the keyframes of a segment smoothed all together; this one stays.

        Keyframes whose observations are not kept (``keep_keyframes``), and earlier segments where
        an IMU has given each its own metres, are where they were.
        """
        if not self.config.keep_keyframes:
            return self.loops.correct(Map(self.trajectory, self.landmarks), self.metric)
        trajectory, landmarks = self.trajectory.copy(), replace(self.landmarks)
        for window in (*self._before, self._window):
            views = [*window.left, *(keyframe.view for keyframe in window.keyframes)]
            known = [view for view in views if view.stamp in trajectory.keyframes]
            kept = [Keyframe(view, trajectory.keyframes[view.stamp]) for view in known]
            whole = len(window.left) < self.config.keep_keyframes
            held = 1 if whole else self.config.window - self.config.free
            if len(kept) <= held:
                continue
            poses = adjust(kept, self.config, self._rig, self._imu, self._focal, landmarks, held)
            for view, pose in zip(known, poses, strict=True):
                trajectory.add_keyframe(view.stamp, pose)
        return self.loops.correct(Map(trajectory, landmarks), self.metric)

    def add_loops(self, stamp: int, rows: NDArray[np.void], camera: Camera) -> bool:
        """Take a place that is known again; return whether the map has been put right.

        Odometry, and all that this class knows but :attr:`loops`, stays as it is.

        Parameters
        ----------
        stamp
            Of the keyframe that knows it; its ``features`` and ``tracks`` have come before.
        rows
            ``(N,)`` of ``records.LOOPS``.
        camera
            Its calibration.
        """
        keyframes, landmarks = self.trajectory.keyframes, self.landmarks
        return self.loops.take(stamp, rows, camera, keyframes, landmarks, self.metric)

    def add_features(
        self, stamp: int, rows: NDArray[np.void], camera: Camera, right: Right | None = None
    ) -> NDArray[np.float64] | None:
        """Place a frame.

        Parameters
        ----------
        stamp
            Integer nanoseconds. One that is far back (``clock_jump``) drops the map; another one
            that is not later than the last frame is passed over.
        rows
            ``(N,)`` of ``records.FEATURES``.
        camera
            Its calibration.
        right
            What the right camera of a stereo pair sees of these features.

        Returns
        -------
        ``(4, 4)`` T_world_camera; None while it is not known, with an IMU while metres are not.
        """
        began = time.thread_time()
        if not self._in_time("features", stamp):
            return None
        self.counts.frames += 1
        if right is not None:
            self._rig = np.stack([np.eye(4), right.T_left_right])
            right = right.relative_to(rows)
            self._rights[stamp] = right
            while len(self._rights) > _TIMES:
                del self._rights[next(iter(self._rights))]
        if self.config.loops:
            self._rows[stamp] = rows["track_id"]
            while len(self._rows) > _RECENT:
                del self._rows[next(iter(self._rows))]
        view = view_of(stamp, rows, camera, self.config.sigma_floor, right)
        self._recent.append(view)
        pose = self.trajectory.pose(stamp)  # its `tracks` may have come before
        if pose is None:
            pose = self._place(view, camera.focal)
        if len(self._window):
            self.state = "lost" if pose is None else "tracking"
            self.counts.lost += pose is None
        self.counts.frame_ms.append((time.thread_time() - began) * 1e3)
        return pose if self._imu is None or self.metric else None

    def add_tracks(self, stamp: int, rows: NDArray[np.void], camera: Camera) -> bool:
        """Take over the keyframe window as it has been solved; return whether the map has changed.

        Parameters
        ----------
        stamp
            Of the message; as for :meth:`add_features`.
        rows
            ``(N,)`` of ``records.TRACKS``: new keyframes, and those whose observations they
            supersede.
        camera
            Their calibration.
        """
        began = time.thread_time()
        if not self._in_time("tracks", stamp):
            return False
        self._focal = camera.focal
        views = views_of(rows, camera, self.config.sigma_floor, self._rights)
        newest = max([k.view.stamp for k in self._window.keyframes], default=-1)
        newest = max([newest, *(view.stamp for view in self._pending)])
        self._window.take_over(views)
        told = {view.stamp: view for view in views}
        self._pending = [told.get(view.stamp, view) for view in self._pending]
        changed = False
        for view in views:
            if view.stamp > newest:
                self.counts.keyframes += 1
                if view.stamp in self._rows:
                    self.loops.seen.add(view.stamp, self._rows[view.stamp])
                changed |= self._enter(view, camera.focal)
        if changed:
            self._smooth(camera.focal)
            if self._imu is not None and not self._imu.aligned:
                self._align(self._imu, camera.focal)
        self.counts.keyframe_ms.append((time.thread_time() - began) * 1e3)
        return changed

    def _in_time(self, topic: str, stamp: int) -> bool:
        """Whether a message is later than the one before; forget the map where time has jumped."""
        last = self._last.get(topic)
        if last is not None and stamp <= last:
            if stamp > last - self.config.clock_jump * 1e9:
                self.counts.out_of_order += 1
                return False
            self.reset()
        self._last[topic] = stamp
        return True

    def _enter(self, view: View, focal: float) -> bool:
        """Let a keyframe into the window; return whether it has a place there."""
        pose = self._place(view, focal)
        if pose is not None:
            self._pending.clear()
            self._insert(view, pose)
            return True
        self._pending = [*self._pending, view][-self.config.window :]
        if len(self._rig) > 1:
            return self._start_stereo(view, focal)
        return any(self._start(first, view, focal) for first in self._pending[:-1])

    def _insert(self, view: View, pose: NDArray[np.float64]) -> None:
        self._window.insert(view, pose)
        self.trajectory.add_keyframe(view.stamp, pose)

    def _smooth(self, focal: float) -> None:
        self._window.smooth(focal, self.landmarks)
        for keyframe in self._window.keyframes:
            self.trajectory.add_keyframe(keyframe.view.stamp, keyframe.pose)

    def _align(self, imu: Imu, focal: float) -> None:
        """Turn the segment to gravity (y is down) and to metres, as soon as the motion tells."""
        known = self.trajectory.keyframes
        stamps = sorted(stamp for stamp in known if stamp >= self._segment)
        last = stamps[-_ALIGNED:]
        found = imu.align(last, np.stack([known[stamp] for stamp in last]), len(self._rig) > 1)
        if found is None:
            return
        scale, down = found
        self.loops.forget()
        turn = Rotation.align_vectors([[0.0, 1.0, 0.0]], [down])[0].as_matrix()
        origin = known[stamps[0]][:3, 3].copy()
        self.trajectory.transform(self._segment, origin, scale, turn)
        self.landmarks.transform(origin, scale, turn)
        for keyframe in self._window.keyframes:
            keyframe.pose = self.trajectory.keyframes[keyframe.view.stamp]
        self._smooth(focal)

    def _place(self, view: View, focal: float) -> NDArray[np.float64] | None:
        """Place a view by the landmarks, from where the last motion leads to or from anywhere."""
        here, there = self.landmarks.find(view.ids)
        if len(here) < self.config.min_points:
            return None
        points, seen = self.landmarks.places[there], view.select(here)
        mounts, left = self._rig[seen.eyes], seen.eyes == 0
        limit = self.config.max_error / focal
        enough = max(self.config.min_points, _LEAST_SHARE * len(points))
        for guess in (self.trajectory.predict(view.stamp, self.config.coast), None):
            start = search_pose(points[left], seen.rays[left], limit) if guess is None else guess
            if start is None:
                continue
            pose = refine_pose(start, points, seen.rays, seen.roots, mounts)
            right = residuals(pose @ mounts, points, seen.rays, seen.roots).distances < limit
            if np.count_nonzero(right) >= enough:
                self.trajectory.add(view.stamp, pose, self._window.nearest(view.stamp))
                return pose
        return None

    def _start(self, first: View, second: View, focal: float) -> bool:
        """Begin a segment with two keyframes that wait, if their tracks allow it."""
        relative = two_view_start(first, second, self.config, focal)
        if relative is None:
            return False
        coast = self.config.coast
        origin = self.trajectory.predict(first.stamp, coast)
        relative[:3, 3] *= self.trajectory.speed() * (second.stamp - first.stamp) * 1e-9 or 1.0
        waiting = [view for view in self._pending if first.stamp < view.stamp < second.stamp]
        self._begin_segment(first, origin)
        self._insert(second, self._window.keyframes[0].pose @ relative)
        self._smooth(focal)
        for view in waiting:
            pose = self._place(view, focal)
            if pose is not None:
                self._insert(view, pose)
        self._catch_up(first.stamp, focal)
        return True

    def _start_stereo(self, view: View, focal: float) -> bool:
        """Begin a segment with one keyframe of a pair, if enough is seen by both."""
        if not stereo_start(view, self._rig, self.config, focal):
            return False
        self._begin_segment(view, self.trajectory.predict(view.stamp, self.config.coast))
        self._catch_up(view.stamp, focal)
        return True

    def _begin_segment(self, first: View, origin: NDArray[np.float64] | None) -> None:
        if self._imu is None and len(self._window):
            self._before.append(self._window)
        while sum(len(w.left) + len(w) for w in self._before) > self.config.keep_keyframes:
            del self._before[0]
        self._pending, self._window = [], Window(self.config, self._rig, self._imu)
        self._segment = first.stamp
        if self.config.loops:
            self.loops.begin_segment(first.stamp, self.landmarks)
        if self._imu is not None:
            self._imu.reset()
        self.landmarks = Landmarks(self.config.keep_landmarks)
        self._insert(first, np.eye(4) if origin is None else origin)
        self.counts.segments += 1
        self.state = "tracking"

    def _catch_up(self, begin: int, focal: float) -> None:
        """Place the frames since `begin` that had no map to be placed by."""
        self._smooth(focal)
        for view in self._recent:
            if view.stamp > begin and self.trajectory.pose(view.stamp) is None:
                self._place(view, focal)
