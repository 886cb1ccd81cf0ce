"""The keyframes that are smoothed together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2_ros.mapper.config import MapperConfig
from d2_ros.mapper.geometry import Points, depth_errors, refine_points, triangulate
from d2_ros.mapper.inertial import Imu, ImuMotion
from d2_ros.mapper.landmarks import Landmarks
from d2_ros.mapper.observations import Table, View, table_of
from d2_ros.mapper.smoothing import OUTLIER, Anchor, smooth

_SCALE = 0.1
"""How loosely the longest baseline holds the scale, as a share of it. It is held for certain by the
keyframes that do not move, but there may be one alone, or all of them in one place."""


@dataclass
class Keyframe:
    """What a keyframe sees, and its ``T_world_camera``."""

    view: View
    pose: NDArray[np.float64]


class Window:
    """The newest keyframes of a segment, in time order.

    The newest of them are free. The others, one at least, hold place, orientation and scale.

    Parameters
    ----------
    config
        Sizes and thresholds.
    rig
        ``(1 or 2, 4, 4)`` T_body_camera; the body is the first camera.
    imu
        Beside the camera. Once it is aligned it holds scale and gravity, and all move but one.

    Attributes
    ----------
    keyframes
        In time order.
    left
        What those have seen that have left it.
    """

    def __init__(
        self, config: MapperConfig, rig: NDArray[np.float64], imu: Imu | None = None
    ) -> None:
        self._config, self._rig, self._imu = config, rig, imu
        self.keyframes: list[Keyframe] = []
        self.left: deque[View] = deque(maxlen=config.keep_keyframes)

    def __len__(self) -> int:
        """Return the number of keyframes."""
        return len(self.keyframes)

    def insert(self, view: View, pose: NDArray[np.float64]) -> None:
        """Add a keyframe; the oldest leaves a window that is full."""
        everything = sorted([*self.keyframes, Keyframe(view, pose)], key=lambda k: k.view.stamp)
        self.keyframes = everything[-self._config.window :]
        self.left.extend(keyframe.view for keyframe in everything[: -self._config.window])

    def nearest(self, stamp: int) -> int:
        """Stamp of the keyframe that is nearest in time."""
        return min((k.view.stamp for k in self.keyframes), key=lambda t: abs(t - stamp))

    def take_over(self, views: Iterable[View]) -> None:
        """Replace the observations of the keyframes that are known."""
        known = {keyframe.view.stamp: keyframe for keyframe in self.keyframes}
        for view in views:
            if view.stamp in known:
                known[view.stamp].view = view

    def smooth(self, focal: float, landmarks: Landmarks) -> None:
        """Move the keyframes, and give all tracks of two or more of them their place anew.

        Parameters
        ----------
        focal
            px, of what the thresholds say in pixels.
        landmarks
            Get the new places.
        """
        limit = self._config.max_error / focal
        poses = np.stack([keyframe.pose for keyframe in self.keyframes])
        # Tracks that no free keyframe sees move none, and have had their place before.
        since = min(self._held, len(self.keyframes) - 1)
        table = table_of([keyframe.view for keyframe in self.keyframes], since)
        if not len(table.ids):
            return
        points = triangulate(table, table.cameras(poses, self._rig))
        weights = np.where(points.distances < limit, points.weights, 0.0)
        chosen = _strongest(table, weights, self._config.max_landmarks)
        poses = self._moved(table, poses, weights, chosen)
        points = refine_points(points.places, table, table.cameras(poses, self._rig))
        for keyframe, pose in zip(self.keyframes, poses, strict=True):
            keyframe.pose = pose
        self._keep(table, points, limit, landmarks)

    @property
    def _held(self) -> int:
        """How many of the oldest keyframes do not move."""
        if self._imu is not None and self._imu.aligned:
            return 1
        return max(len(self.keyframes) - self._config.free, 1)

    def _moved(
        self,
        table: Table,
        poses: NDArray[np.float64],
        weights: NDArray[np.float64],
        chosen: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        imu = self._imu
        if imu is None or not imu.aligned:
            return smooth(table, poses, weights, chosen, self._rig, self._anchors(poses))
        motion = ImuMotion(imu, [keyframe.view.stamp for keyframe in self.keyframes])
        bodies, rig = poses @ imu.calibration.T_cam_imu, imu.T_imu_cam @ self._rig
        return smooth(table, bodies, weights, chosen, rig, [Anchor(0)], motion) @ imu.T_imu_cam

    def _anchors(self, poses: NDArray[np.float64]) -> list[Anchor]:
        held = self._held
        ways = np.linalg.norm(poses[:, :3, 3] - poses[0, :3, 3], axis=1)
        far = int(np.argmax(ways))
        free = far >= held and len(self._rig) == 1
        scale = [Anchor(far, turn=1.0, shift=_SCALE * ways[far])] if free else []
        return [*map(Anchor, range(held)), *scale]

    def _keep(self, table: Table, points: Points, limit: float, landmarks: Landmarks) -> None:
        """Hand over the places that are certain enough to place frames by."""
        right = table.sums((points.distances < limit).astype(np.float64))
        centre = self.keyframes[-1].pose[:3, 3]
        unsure = depth_errors(points.places, points.covariances, centre)
        good = (right >= 2) & (2 * right > table.counts) & (unsure < self._config.max_depth_error)
        landmarks.update(table.ids[good], points.places[good], points.covariances[good], table.ids)


def _strongest(table: Table, weights: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Tracks that tell most, by their covariances, at most `count`; each rightly seen twice."""
    told = table.sums(weights * table.roots[:, 0, 0] * table.roots[:, 1, 1])
    told[table.sums((weights > OUTLIER).astype(np.float64)) < 2] = 0.0
    order = np.argsort(-told, kind="stable")[:count]
    return order[told[order] > 0]
