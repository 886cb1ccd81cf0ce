"""What a bag of ``d2-ros replay``, or of the node, says of every frame."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.published import PublishedFrame
from d2_ros.records import FEATURES, MATCHES, TRACKS, unpack

_ODOMETRY = "nav_msgs/msg/Odometry"
_PLACE = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
_CLOUD, _CAMERA_INFO = "sensor_msgs/msg/PointCloud2", "sensor_msgs/msg/CameraInfo"


@dataclass(frozen=True)
class Outputs:
    """One camera's topics, read back.

    Attributes
    ----------
    frames
        In the order of recording.
    tracks
        ``(stamp of the keyframe, rows of records.TRACKS)`` of every ``tracks`` message.
    """

    frames: tuple[PublishedFrame, ...]
    tracks: tuple[tuple[int, NDArray[np.void]], ...]


def read_outputs(path: Path) -> Outputs:
    """Read the outputs of the one camera that a bag has.

    Parameters
    ----------
    path
        A rosbag2 folder or file that holds ``.../features`` and, beside it, ``matches`` and
        ``tracks``, and a ``camera_info``.

    Raises
    ------
    D2RosError
        If the bag cannot be read, or has no such topics, or those of several cameras.
    """
    from d2_ros.sources.bagfiles import Bag  # rosbags takes a while to load
    from d2_ros.sources.messages import stamp_of
    from d2_ros.sources.opening import find_bag

    if not path.exists():
        raise D2RosError(f"{path} does not exist; give the bag that d2-ros replay has written")
    if not (files := find_bag(path)):
        raise D2RosError(f"{path} is no bag; give a .mcap file or a rosbag2 folder")
    bag = Bag(files)
    prefix, info_topic = _topics(path, bag.topics)
    layouts = {"features": FEATURES, "matches": MATCHES, "tracks": TRACKS}
    told: dict[str, dict[int, NDArray[np.void]]] = {name: {} for name in layouts}
    tracks: list[tuple[int, NDArray[np.void]]] = []
    infos: dict[int, Any] = {}
    for topic, message in bag.messages([info_topic, *(prefix + name for name in layouts)]):
        stamp = stamp_of(message)
        if topic == info_topic:
            infos[stamp] = message
            continue
        name = topic.removeprefix(prefix)
        rows = rows_of(message, layouts[name], topic)
        if name == "tracks":
            tracks.append((stamp, rows))
        elif stamp in told[name]:
            raise D2RosError(
                f"bag {path} has two messages of {topic} for {stamp} ns: the recording starts "
                "over; replay one run of it, with --start and --frames"
            )
        else:
            told[name][stamp] = rows
    none = np.empty(0, MATCHES)
    frames = []
    if not infos:
        raise D2RosError(f"bag {path} has no message on {info_topic}; replay the recording")
    stamps = sorted(infos)
    for stamp, features in told["features"].items():
        # As in the node, the newest calibration counts; one that comes later is better than none.
        newest = stamps[max(bisect_right(stamps, stamp) - 1, 0)]
        camera, size = _camera(infos[newest], info_topic)
        frames.append(
            PublishedFrame(stamp, camera, size, features, told["matches"].get(stamp, none))
        )
    if not frames:
        raise D2RosError(f"bag {path} has no message on {prefix}features; replay the recording")
    return Outputs(tuple(frames), tuple(tracks))


@dataclass(frozen=True)
class MapOutputs:
    """What a mapper has published in a bag.

    Attributes
    ----------
    odometry
        Topic -> stamps ``(N,)``, integer nanoseconds, and poses ``(N, 4, 4)``.
    landmarks
        ``(stamp, (N, 3) points)`` of every message.
    """

    odometry: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]
    landmarks: tuple[tuple[int, NDArray[np.float64]], ...]


def read_map(path: Path) -> MapOutputs:
    """Read all ``nav_msgs/Odometry``, and clouds on topics named ``landmarks``, of a bag.

    Raises
    ------
    D2RosError
        If the bag cannot be read, or a cloud has no x, y and z.
    """
    from d2_ros.sources.bagfiles import Bag
    from d2_ros.sources.messages import stamp_of
    from d2_ros.sources.opening import find_bag
    from d2_ros.sources.trajectories import pose_matrices

    bag = Bag(find_bag(path))
    paths = [topic for topic, (kind, _) in bag.topics.items() if kind == _ODOMETRY]
    clouds = [
        topic
        for topic, (kind, _) in bag.topics.items()
        if kind == _CLOUD and topic.endswith("/landmarks")
    ]
    told: dict[str, list[Any]] = {topic: [] for topic in paths}
    landmarks = []
    for topic, message in bag.messages([*paths, *clouds]):
        if topic in told:
            told[topic].append(message)
        else:
            rows = rows_of(message, _PLACE, topic)
            points = np.column_stack([rows[axis] for axis in "xyz"])
            landmarks.append((stamp_of(message), points))
    odometry = {}
    for topic, messages in told.items():
        poses = [message.pose.pose for message in messages]
        where = [[getattr(pose.position, axis) for axis in "xyz"] for pose in poses]
        turn = [[getattr(pose.orientation, axis) for axis in "xyzw"] for pose in poses]
        stamps = np.array([stamp_of(message) for message in messages], np.int64)
        odometry[topic] = stamps, pose_matrices(where, turn)
    return MapOutputs(odometry, tuple(landmarks))


def rows_of(message: Any, layout: np.dtype, topic: str) -> NDArray[np.void]:
    """Decode a PointCloud2, by its own fields, into rows of `layout`.

    Raises
    ------
    D2RosError
        As of :func:`d2_ros.records.unpack`; `topic` is named.
    """
    fields = [(item.name, item.offset, item.datatype, item.count) for item in message.fields]
    try:
        return unpack(fields, message.point_step, message.data, layout, message.is_bigendian)
    except D2RosError as error:
        raise D2RosError(f"{topic}: {error}") from None


def _topics(path: Path, topics: dict[str, tuple[str, int]]) -> tuple[str, str]:
    """Common beginning of the outputs' topics, and the topic of the calibration."""
    found = sorted(
        name.removesuffix("features")
        for name, (kind, count) in topics.items()
        if kind == _CLOUD and name.endswith("/features") and count
    )
    if len(found) != 1:
        held = ", ".join(sorted(topics)) or "none"
        problem = f"the outputs of {len(found)} cameras" if found else "no features"
        raise D2RosError(
            f"bag {path} has {problem}; give what d2-ros replay has written of one camera "
            f"(topics: {held})"
        )
    camera = found[0].rstrip("/").rpartition("/")[2]
    infos = sorted(name for name, (kind, _) in topics.items() if kind == _CAMERA_INFO)
    own = [name for name in infos if f"/{camera}/" in name] or infos
    if len(own) != 1:
        raise D2RosError(
            f"bag {path} has {len(own)} topics of camera_info for camera {camera}; record the one "
            "beside its images"
        )
    return found[0], own[0]


def _camera(info: Any, topic: str) -> tuple[Camera | None, tuple[int, int]]:
    """Calibration and image size of a camera_info."""
    from d2_ros.sources.bags import camera_of

    camera = camera_of(info, 0, 0)
    size = (info.width, info.height) if camera is None else (camera.width, camera.height)
    if not all(size):
        raise D2RosError(f"{topic} says no image size; replay the recording")
    return camera, (int(size[0]), int(size[1]))
