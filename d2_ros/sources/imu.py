"""Samples of an IMU: a bag's topic, or EuRoC's ``imu0/data.csv``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError
from d2_ros.sources.messages import stamp_of
from d2_ros.sources.trajectories import numbers, read_table

IMU = "sensor_msgs/msg/Imu"


def read_imu(path: Path, topic: str | None = None) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read all samples of an IMU.

    Parameters
    ----------
    path
        A bag; or a table of EuRoC's columns (ns, angular velocity x, y, z, specific force x, y, z),
        or a folder that holds it: ``.../mav0``, ``.../imu0``.
    topic
        Of a bag; None if it has one of sensor_msgs/Imu only.

    Returns
    -------
    ``(N,)`` integer nanoseconds, ascending, and ``(N, 6)``: rad/s, then m/s^2.

    Raises
    ------
    D2RosError
        If there are none, or they cannot be read.
    """
    tables = [path, path / "data.csv", path / "imu0" / "data.csv", path / "mav0/imu0/data.csv"]
    table = next((file for file in tables if file.suffix == ".csv" and file.is_file()), None)
    if table is None:
        stamps, values = _of_bag(path, topic)
    else:
        rows = read_table(table, ",")
        values = numbers(table, [row[1:] for row in rows], 6)
        try:
            stamps = np.array([int(row[0]) for row in rows], np.int64)
        except (ValueError, OverflowError) as error:
            raise D2RosError(f"{table} has a time stamp that is no integer: {error}") from None
    sound = np.isfinite(values).all(axis=1)
    stamps, values = stamps[sound], values[sound]
    if len(stamps) < 2:
        raise D2RosError(f"{path} has {len(stamps)} samples of an IMU; it must have two or more")
    order = np.argsort(stamps, kind="stable")
    return stamps[order], values[order]


def _of_bag(path: Path, topic: str | None) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    from d2_ros.sources.bagfiles import Bag  # rosbags takes a while to load
    from d2_ros.sources.opening import find_bag

    files = find_bag(path) if path.exists() else []
    if not files:
        raise D2RosError(f"{path} is neither a bag nor a table of EuRoC's imu0; give one of these")
    bag = Bag(files)
    found = sorted(name for name, (kind, count) in bag.topics.items() if kind == IMU and count)
    if topic is None and len(found) == 1:
        topic = found[0]
    if topic not in found:
        held = ", ".join(found) or "none"
        problem = f"no {topic}" if topic else f"{len(found)} topics of sensor_msgs/Imu"
        raise D2RosError(f"bag {path} has {problem}; choose with --imu-topic: {held}")
    messages = [message for _, message in bag.messages([topic])]
    stamps = np.array([stamp_of(message) for message in messages], np.int64)
    return stamps, np.array([sample_of(message) for message in messages]).reshape(-1, 6)


def sample_of(message: Any) -> tuple[float, ...]:
    """Return angular velocity and specific force, x, y, z each, of a ``sensor_msgs/Imu``."""
    parts = message.angular_velocity, message.linear_acceleration
    return tuple(getattr(part, axis) for part in parts for axis in "xyz")
