"""Tracks as VINS-Fusion and VINS-Mono take them: the ``feature_tracks`` topic (no ROS needed).

The layouts are those that the estimators' own parsers read (``feature_callback`` of VINS-Fusion's
rosNodeTest.cpp and of VINS-Mono's estimator_node.cpp).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera

CHANNELS = {
    "fusion": ("id", "camera", "u", "v", "velocity_x", "velocity_y", "gx", "gy", "gz"),
    "mono": ("id", "u", "v", "velocity_x", "velocity_y"),
}
"""Names of the channels by ``output.vins_format``. The estimators go by place, not by name; the
last three of VINS-Fusion hold ground truth, which is zero here. VINS-Mono's id is
``id * cameras + camera``, which is the id itself where there is one camera, number 0."""

MAX_POINTS = 300
"""Features per message; the estimators' cost grows with them and their accuracy hardly does."""

ID_LIMIT = 1 << 24
"""Ids stay below this: they travel as float32, which holds whole numbers exactly only so far."""

GRID = 8
"""Cells along the long edge of the image over which the points are spread."""

_ROW = np.dtype(
    [
        ("track", "i8"), ("id", "i8"), ("run", "i8"),
        ("bearing", "f8", (2, 2)), ("velocity", "f8", (2, 2)), ("pixel", "f8", (2, 2)),
    ]
)  # fmt: skip
"""One feature of the last message: its track, its id here (0: none yet), the number of messages in
a row that it has been in; bearing, velocity and pixel in the left and in the right camera, NaN
where the right one does not see it."""


@dataclass(frozen=True)
class VinsPoints:
    """One message.

    Attributes
    ----------
    points
        ``(N, 3)`` float32 bearings in the optical frame of the camera that the point is of,
        undistorted, z exactly 1; those of the left camera first.
    channels
        ``(C, N)`` float32, one row per name.
    names
        The channels' names, a value of :data:`CHANNELS`.
    """

    points: NDArray[np.float32]
    channels: NDArray[np.float32]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.channels.shape != (len(self.names), len(self.points)):
            raise ValueError("every channel must hold one value per point")
        if not (self.points[:, 2:] == 1).all():
            raise ValueError("points must be bearings with z = 1")


class VinsTracks:
    """Chooses the points of each message and keeps their ids and velocities.

    An id stands for a track in messages without a gap: a track that was missing from the last
    message, for whatever reason, comes back under a new id. Ids are counted up; after the last one
    below the limit the count starts over and passes by the ids in use.

    Parameters
    ----------
    layout
        ``fusion`` or ``mono``.
    limit
        Most features per message.
    id_limit
        What is sent as id is from 1 to this, exclusive.
    cameras
        1, or 2 where features may be seen by a right camera too.
    """

    def __init__(
        self, layout: str, limit: int = MAX_POINTS, id_limit: int = ID_LIMIT, cameras: int = 1
    ) -> None:
        self._cameras = cameras if layout == "mono" else 1  # that ids are multiplied by
        if not 2 * limit < id_limit // self._cameras <= ID_LIMIT:
            raise ValueError("two messages must have room below the largest id")
        self._names = CHANNELS[layout]
        self._limit = limit
        self._id_limit = id_limit // self._cameras
        self._next_id = 1
        self._stamp: int | None = None
        self._last: NDArray[np.void] = np.empty(0, _ROW)

    def reset(self) -> None:
        """Begin anew, in time as well: every point gets a new id, none is used twice."""
        self._stamp = None
        self._last = self._last[:0]

    def update(
        self,
        stamp: int,
        features: NDArray[np.void],
        camera: Camera | None,
        right: NDArray[np.void] | None = None,
    ) -> VinsPoints | None:
        """Return the message for one frame.

        Parameters
        ----------
        stamp
            Integer nanoseconds, later than the last one unless there was a reset.
        features
            ``records.FEATURES`` of the frame.
        camera
            The frame's calibration; None means that there is no message, and a gap in all tracks.
        right
            ``records.STEREO`` of the frame, or None where there is no right image.
        """
        if self._stamp is not None and stamp <= self._stamp:
            raise ValueError(f"stamp {stamp} is not later than {self._stamp}")
        if camera is None:
            self._last = self._last[:0]
            return None
        usable = (features["track_id"] > 0) & np.isfinite(features["x"] + features["y"])
        rows = _rows(features, right)[usable]
        features, last = features[usable], self._last
        if self._stamp is not None and len(last):
            _, now, then = np.intersect1d(rows["track"], last["track"], return_indices=True)
            seconds = (stamp - self._stamp) * 1e-9
            rows["id"][now] = last["id"][then]
            rows["run"][now] += last["run"][then]
            moved = (rows["bearing"][now] - last["bearing"][then]) / seconds
            rows["velocity"][now] = np.nan_to_num(moved)  # 0 where the right camera saw it once
        chosen = _spread(features, rows["run"], (camera.width, camera.height), self._limit)
        rows = rows[chosen]
        rows["id"][rows["id"] == 0] = self._fresh_ids(rows["id"])
        self._stamp, self._last = stamp, rows
        return self._message(rows)

    def _fresh_ids(self, ids: NDArray[np.int64]) -> list[int]:
        """Return an id for every 0 in `ids`, none that this or the last message has."""
        taken = {0, *ids.tolist(), *self._last["id"].tolist()}
        fresh: list[int] = []
        while len(fresh) < np.count_nonzero(ids == 0):
            if self._next_id not in taken:
                fresh.append(self._next_id)
            self._next_id = (self._next_id + 1) % self._id_limit
        return fresh

    def _message(self, rows: NDArray[np.void]) -> VinsPoints:
        # Row after row of the left camera, then those that the right one sees as well.
        camera, row = np.nonzero(np.isfinite(rows["bearing"].sum(2)).T)
        bearing, velocity, pixel = (
            rows[name][row, camera] for name in ("bearing", "velocity", "pixel")
        )
        values = {
            "id": rows["id"][row] * self._cameras + (camera if self._cameras > 1 else 0),
            "camera": camera,
            "u": pixel[:, 0],
            "v": pixel[:, 1],
            "velocity_x": velocity[:, 0],
            "velocity_y": velocity[:, 1],
        }
        channels = np.zeros((len(self._names), len(row)), np.float32)
        for number, name in enumerate(self._names):
            channels[number] = values.get(name, 0.0)
        points = np.column_stack([bearing, np.ones(len(row))])
        return VinsPoints(points.astype(np.float32), channels, self._names)


def _rows(features: NDArray[np.void], right: NDArray[np.void] | None) -> NDArray[np.void]:
    rows: NDArray[np.void] = np.zeros(len(features), _ROW)
    rows["track"], rows["run"] = features["track_id"], 1
    for name, (x, y) in (("bearing", "xy"), ("pixel", "uv")):
        rows[name][:, 0] = np.column_stack([features[x], features[y]])
        rows[name][:, 1] = np.nan
        if right is not None:
            rows[name][right["index"], 1] = np.column_stack([right[x], right[y]])
    return rows


def _spread(
    features: NDArray[np.void], run: NDArray[np.int64], size: tuple[int, int], limit: int
) -> NDArray[np.int64]:
    """Return the rows to send: in rounds over a grid, in each cell the longest tracks first.

    `run` counts the messages in a row that a track has been in, which is its length for whoever
    reads the topic; among equals the longer and then the older track wins.
    """
    best = np.lexsort((features["track_id"], -features["track_length"].astype(np.int64), -run))
    edge = max(size) / GRID
    pixels = np.column_stack([features["u"], features["v"]])[best]
    column, row = np.clip(pixels // edge, 0, GRID - 1).astype(np.int64).T
    cell = row * GRID + column
    by_cell = np.argsort(cell, kind="stable")
    starts = np.searchsorted(cell[by_cell], cell[by_cell])
    turn = np.empty(len(cell), np.int64)
    turn[by_cell] = np.arange(len(cell)) - starts
    return best[np.argsort(turn, kind="stable")[:limit]]
