"""The way of the camera: frames that hang on keyframes, and what a map gives away."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from d2_ros.mapper.geometry import inverse, moved
from d2_ros.mapper.pose_graph import Correction

_SAME = np.eye(4)


@dataclass
class Trajectory:
    """Poses of frames, each relative to a keyframe, with which it moves.

    Attributes
    ----------
    most
        How many frames are kept; the oldest are forgotten.
    keyframes
        Stamp (ns) -> T_world_camera of the keyframes, in time order.
    """

    most: int
    keyframes: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    _frames: dict[int, tuple[int, NDArray[np.float64]]] = field(default_factory=dict)
    _stamps: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of frames with a pose."""
        return len(self._frames)

    def copy(self) -> Trajectory:
        """Return one that can be moved by itself."""
        return Trajectory(self.most, dict(self.keyframes), dict(self._frames), list(self._stamps))

    def add(self, stamp: int, pose: NDArray[np.float64], reference: int) -> None:
        """Add a frame, or place it anew; `reference` is the stamp of its keyframe."""
        self._put(stamp, reference, inverse(self.keyframes[reference]) @ pose)

    def add_keyframe(self, stamp: int, pose: NDArray[np.float64]) -> None:
        """Add or move a keyframe."""
        self.keyframes[stamp] = pose.copy()  # of a whole window's poses it is but one
        self._put(stamp, stamp, _SAME)

    def transform(
        self, since: int, origin: NDArray[np.float64], scale: float, turn: NDArray[np.float64]
    ) -> None:
        """Turn and stretch what hangs on the keyframes from `since` on, about a place."""
        for stamp, pose in self.keyframes.items():
            if stamp >= since:
                new = np.eye(4)
                new[:3, :3] = turn @ pose[:3, :3]
                new[:3, 3] = origin + scale * turn @ (pose[:3, 3] - origin)
                self.keyframes[stamp] = new
        for stamp, (reference, relative) in self._frames.items():
            if reference >= since:
                stretched = relative.copy()
                stretched[:3, 3] *= scale
                self._frames[stamp] = reference, stretched

    def corrected(self, correction: Correction) -> Trajectory:
        """Return one whose keyframes loops have put right, and the frames with them."""
        stamps = np.array(list(self.keyframes), np.int64)
        poses = correction.poses(stamps, np.stack(list(self.keyframes.values())))
        scales = dict(zip(stamps.tolist(), correction.at(stamps)[2].tolist(), strict=True))
        result = self.copy()
        result.keyframes = dict(zip(stamps.tolist(), poses, strict=True))
        for stamp, (reference, relative) in self._frames.items():
            stretched = relative.copy()
            stretched[:3, 3] *= scales[reference]
            result._frames[stamp] = reference, stretched
        return result

    def _put(self, stamp: int, reference: int, relative: NDArray[np.float64]) -> None:
        if stamp not in self._frames:
            insort(self._stamps, stamp)
        self._frames[stamp] = reference, relative
        if len(self._stamps) > 1.1 * self.most:  # now and then: it costs a look at all
            self._forget()

    def _forget(self) -> None:
        """Drop the oldest frames, and keyframes on which none hangs any more."""
        for stamp in self._stamps[: -self.most]:
            del self._frames[stamp]
        self._stamps = self._stamps[-self.most :]
        used = {reference for reference, _ in self._frames.values()}
        self.keyframes = {s: pose for s, pose in self.keyframes.items() if s in used}

    def pose(self, stamp: int) -> NDArray[np.float64] | None:
        """``T_world_camera`` of a frame; None where it is not known."""
        return self._at(stamp) if stamp in self._frames else None

    def _at(self, stamp: int) -> NDArray[np.float64]:
        reference, relative = self._frames[stamp]
        return np.asarray(self.keyframes[reference] @ relative)

    def predict(self, stamp: int, coast: float) -> NDArray[np.float64] | None:
        """Where the last two frames before `stamp` lead to, for `coast` seconds at most.

        Returns
        -------
        ``(4, 4)`` T_world_camera, the known one where there is one; None without any frame.
        """
        known = self.pose(stamp)
        if known is not None:
            return known
        end = bisect_left(self._stamps, stamp)
        before = self._stamps[max(end - 2, 0) : end]
        if len(before) < 2:
            return self._at(before[0]) if before else None
        first, second = map(self._at, before)
        ahead = min(stamp - before[1], coast * 1e9) / (before[1] - before[0])
        motion = inverse(first) @ second
        turn = Rotation.from_matrix(motion[:3, :3]).as_rotvec()
        return moved(second, ahead * np.concatenate([turn, motion[:3, 3]]))

    def speed(self) -> float:
        """Units of the map per second between the last two keyframes; 0 without them."""
        stamps = sorted(self.keyframes)[-2:]
        if len(stamps) < 2:
            return 0.0
        way = self.keyframes[stamps[1]][:3, 3] - self.keyframes[stamps[0]][:3, 3]
        return float(np.linalg.norm(way)) / ((stamps[1] - stamps[0]) * 1e-9)

    def poses(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Stamps ``(N,)`` ns, in time order, and ``T_world_camera`` ``(N, 4, 4)``."""
        poses = [self._at(stamp) for stamp in self._stamps]
        return np.array(self._stamps, np.int64), np.array(poses, np.float64).reshape(-1, 4, 4)
