"""The rows of the output topics, as NumPy structured types (no ROS needed).

The front-end fills these arrays, the node sends their bytes and the offline replay writes
the same bytes to a bag, so the layout of every topic is stated here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError

FEATURES = np.dtype(
    [
        ("x", "<f4"), ("y", "<f4"), ("z", "<f4"),
        ("u", "<f4"), ("v", "<f4"),
        ("u_detected", "<f4"), ("v_detected", "<f4"),
        ("sigma_uu", "<f4"), ("sigma_uv", "<f4"), ("sigma_vv", "<f4"),
        ("score", "<f4"),
        ("track_id", "<u4"), ("track_length", "<u4"),
        ("refined", "u1"),
    ]
)  # fmt: skip
"""One keypoint of a frame: bearing, refined and detected pixel, covariance (px^2), track."""

MATCHES = np.dtype(
    [
        ("index", "<u4"),
        ("keyframe_sec", "<i4"), ("keyframe_nanosec", "<u4"), ("keyframe_index", "<u4"),
        ("u", "<f4"), ("v", "<f4"), ("keyframe_u", "<f4"), ("keyframe_v", "<f4"),
        ("similarity", "<f4"),
        ("inlier", "u1"),
    ]
)  # fmt: skip
"""One match of a frame's keypoint with a keypoint of a window keyframe."""

TRACKS = np.dtype(
    [
        ("track_id", "<u4"),
        ("sec", "<i4"), ("nanosec", "<u4"), ("index", "<u4"),
        ("x", "<f4"), ("y", "<f4"), ("z", "<f4"),
        ("u", "<f4"), ("v", "<f4"),
        ("sigma_uu", "<f4"), ("sigma_uv", "<f4"), ("sigma_vv", "<f4"),
    ]
)  # fmt: skip
"""One observation of a track in a window keyframe, after the window solution."""

STEREO = np.dtype(
    [
        ("index", "<u4"),
        ("u", "<f4"), ("v", "<f4"),
        ("sigma_uu", "<f4"), ("sigma_uv", "<f4"), ("sigma_vv", "<f4"),
        ("x", "<f4"), ("y", "<f4"), ("z", "<f4"),
    ]
)  # fmt: skip
"""One feature of the left camera, by its row, as the right one sees it: pixel, covariance relative
to the left place (px^2), bearing."""

LOOPS = np.dtype(
    [
        ("keyframe_sec", "<i4"), ("keyframe_nanosec", "<u4"), ("session", "<u4"),
        ("index", "<u4"), ("keyframe_index", "<u4"),
        ("u", "<f4"), ("v", "<f4"), ("keyframe_u", "<f4"), ("keyframe_v", "<f4"),
        ("sigma_uu", "<f4"), ("sigma_uv", "<f4"), ("sigma_vv", "<f4"),
        ("similarity", "<f4"),
    ]
)  # fmt: skip
"""One match of a keyframe with one of long ago: that one's stamp and how many runs ago it was (0:
this run), the rows of both in their ``features``, their places, the covariance of the first
relative to the second (px^2), cosine."""

LANDMARKS = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z", "xx", "xy", "xz", "yy", "yz", "zz")]
    + [("track_id", "<u4")]
)
"""A landmark of the mapper: place, covariance (upper triangle by rows) and track."""

DESCRIPTOR_SCALE = 255.0
"""UINT8 descriptors of 512 values are ``round(255 * value)``; none is above 1: nothing is cut.

SIFT's usual factor of 512 would cut a quarter of these sparse descriptors (the similarity of
two would be wrong by up to 0.12); this one keeps it to 0.005, rms 0.001.
"""

SIGNED_ZERO, SIGNED_SCALE = 128.0, 127.0
"""UINT8 descriptors of fewer values, which a projection made and can be negative, are
``round(128 + 127 * value)``."""

PLAIN_DESCRIPTOR = 512
"""Values of a descriptor that no projection has shortened."""

POINT_FIELD_TYPES = {"|i1": 1, "|u1": 2, "<i2": 3, "<u2": 4, "<i4": 5, "<u4": 6, "<f4": 7, "<f8": 8}
"""NumPy type -> ``datatype`` of ``sensor_msgs/PointField``."""


def point_fields(rows: np.dtype) -> list[tuple[str, int, int, int]]:
    """Return (name, offset, datatype, count) of every ``sensor_msgs/PointField`` of `rows`."""
    fields = []
    for name in rows.names or ():
        kind, offset = rows.fields[name][:2]  # type: ignore[index]
        fields.append((name, offset, POINT_FIELD_TYPES[kind.base.str], int(np.prod(kind.shape))))
    return fields


def unpack(
    fields: Iterable[tuple[str, int, int, int]],
    step: int,
    data: Any,
    layout: np.dtype,
    bigendian: bool = False,
) -> NDArray[np.void]:
    """Return the rows of a ``sensor_msgs/PointCloud2`` that should be of `layout`.

    Parameters
    ----------
    fields
        (name, offset, datatype, count) of its fields, in any order; those that `layout` does not
        name are left out.
    step, data
        Its ``point_step`` and bytes.
    layout
        One of this module's.
    bigendian
        The bytes are so; this package sends little-endian ones.

    Raises
    ------
    D2RosError
        If a field is missing or of another type, or the data are no whole number of rows.
    """
    given = {name: (offset, kind, count) for name, offset, kind, count in fields}
    names, offsets = layout.names or (), []
    for name, _, kind, count in point_fields(layout):
        offset, *found = given.get(name, (0, 0, 0))
        size = layout[name].itemsize
        if found != [kind, count] or not 0 <= offset <= step - size:
            raise D2RosError(
                f"a cloud of rows has the fields {', '.join(given) or 'none'}, but not {name} as "
                "docs/topics.md describes it; give a topic of d2_frontend of this version"
            )
        offsets.append(offset)
    if len(data) % step:
        raise D2RosError(f"a cloud of {len(data)} bytes is no whole number of rows of {step}")
    kinds = [layout[name].newbyteorder(">" if bigendian else "<") for name in names]
    wide: Any = {"names": names, "formats": kinds, "offsets": offsets, "itemsize": step}
    rows: NDArray[np.void] = np.frombuffer(data, np.dtype(wide))
    packed = np.empty(len(rows), layout)
    for name in names:
        packed[name] = rows[name]
    return packed


def pack_descriptors(descriptors: NDArray[np.float32], kind: str) -> NDArray[np.void]:
    """Return the rows of the ``descriptors`` topic.

    Parameters
    ----------
    descriptors
        ``(N, K)`` float32, L2-normalised; not negative where K is :data:`PLAIN_DESCRIPTOR`.
    kind
        ``uint8`` (quantised with :data:`DESCRIPTOR_SCALE`, or :data:`SIGNED_SCALE` where K is
        another) or ``float32`` (as they are).

    Returns
    -------
    ``(N,)`` with the one field ``descriptor`` of K values.
    """
    size = descriptors.shape[1]
    if kind == "uint8" and size == PLAIN_DESCRIPTOR:
        descriptors = np.rint(descriptors * DESCRIPTOR_SCALE)
    elif kind == "uint8":
        descriptors = np.rint(SIGNED_ZERO + SIGNED_SCALE * descriptors)
    layout = np.dtype([("descriptor", {"uint8": "u1", "float32": "<f4"}[kind], (size,))])
    return np.ascontiguousarray(descriptors, layout["descriptor"].base).view(layout)[:, 0]


def split_stamp(stamp: int) -> tuple[int, int]:
    """Integer nanoseconds -> (sec, nanosec) of ``builtin_interfaces/Time``."""
    return divmod(int(stamp), 1_000_000_000)


def columns(rows: NDArray[np.void], *names: str) -> NDArray[np.float64]:
    """Fields of rows side by side, ``(N, K)`` float64."""
    return np.column_stack([rows[name] for name in names]).astype(np.float64)


def landmark_rows(
    ids: NDArray[np.int64], places: NDArray[np.float64], covariances: NDArray[np.float64]
) -> NDArray[np.void]:
    """Return rows of landmarks: ``x y z``, covariance ``xx xy xz yy yz zz``, ``track_id``."""
    rows = np.zeros(len(ids), LANDMARKS)
    rows["x"], rows["y"], rows["z"] = places.T
    for i in range(3):
        for j in range(i, 3):
            rows["xyz"[i] + "xyz"[j]] = covariances[:, i, j]
    rows["track_id"] = ids
    return rows


@dataclass(frozen=True)
class FrameResult:
    """What the front-end says of one frame.

    Attributes
    ----------
    stamp
        The image's own stamp, integer nanoseconds.
    is_keyframe
        Whether the frame entered the keyframe window.
    features
        ``(N,)`` of :data:`FEATURES`.
    matches
        ``(M,)`` of :data:`MATCHES`.
    tracks
        ``(T,)`` of :data:`TRACKS` where a keyframe's window has been solved, None else.
    descriptors
        ``(N, K)`` float32, L2-normalised, rows as in ``features``, K 512 or that of the weights'
        projection; none on a followed frame.
    timings_ms
        Milliseconds spent per stage.
    followed
        Whether the tracks were followed and the network has not seen the frame.
    tracks_stamp
        The keyframe that `tracks` belong to; None: this frame.
    """

    stamp: int
    is_keyframe: bool
    features: NDArray[np.void]
    matches: NDArray[np.void]
    tracks: NDArray[np.void] | None
    descriptors: NDArray[np.float32]
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    followed: bool = False
    tracks_stamp: int | None = None

    def __post_init__(self) -> None:
        if self.features.dtype != FEATURES or self.matches.dtype != MATCHES:
            raise ValueError("features and matches must have the dtypes of d2_ros.records")
        if self.tracks is not None and self.tracks.dtype != TRACKS:
            raise ValueError("tracks must have the dtype records.TRACKS")
        if len(self.descriptors) != (0 if self.followed else len(self.features)):
            raise ValueError("descriptors and features must have the same number of rows")
