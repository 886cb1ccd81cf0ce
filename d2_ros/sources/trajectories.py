"""Ground truth: text tables, exact time stamps and poses between known ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation, Slerp

from d2_ros.errors import D2RosError

RIGID = 0.01
"""Most by which a matrix of a pose times its transpose may differ from 1: files round."""


def read_table(path: Path, separator: str | None = None) -> list[list[str]]:
    """Read the rows of a text table; None separates at white space.

    ``#`` starts a comment, at the beginning of a line or behind white space: elsewhere it may
    belong to a file's name, whose bytes need not be UTF-8. A byte order mark, as Windows writes
    it, is passed over.

    Raises
    ------
    D2RosError
        If the file cannot be read or has no rows.
    """
    try:
        lines = path.read_text("utf-8-sig", "surrogateescape").splitlines()
    except OSError as error:
        raise D2RosError(f"{path} cannot be read: {error.strerror}") from None
    if any("\0" in line for line in lines):
        raise D2RosError(f"{path} cannot be read: it is no text in UTF-8 or a code page")
    bare = (re.split(r"(?:^|\s)#", line, maxsplit=1)[0] for line in lines)
    rows = [[cell.strip() for cell in line.split(separator)] for line in bare]
    rows = [row for row in rows if any(row)]
    if not rows:
        raise D2RosError(f"{path} is empty; it must have a row for every image or pose")
    return rows


def numbers(path: Path, rows: Sequence[Sequence[str]], columns: int) -> NDArray[np.float64]:
    """Return the first `columns` cells of `rows` as ``(N, columns)`` float64.

    Raises
    ------
    D2RosError
        If a row is too short or holds something else; `path` is named.
    """
    try:
        short = min(len(row) for row in rows)
        if short < columns:
            raise D2RosError(f"{path} has a row of {short} values; it must have {columns}")
        return np.array([row[:columns] for row in rows], np.float64)
    except ValueError as error:
        raise D2RosError(f"{path} is malformed: {error}") from None


def nanoseconds(path: Path, seconds: Iterable[str]) -> NDArray[np.int64]:
    """Return decimal seconds as integer nanoseconds, exactly (float64 loses some 100 ns).

    Raises
    ------
    D2RosError
        If one is not a number; `path` is named.
    """
    try:
        return np.array([round(Decimal(text).scaleb(9)) for text in seconds], np.int64)
    except (ArithmeticError, ValueError):
        raise D2RosError(f"{path} holds a time stamp that is not a number of seconds") from None


def read_trajectory(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read a trajectory in TUM's format: seconds, position and quaternion (x, y, z, w).

    Returns
    -------
    ``(K,)`` integer nanoseconds and ``(K, 4, 4)`` poses, NaN where a row is not finite.

    Raises
    ------
    D2RosError
        If the file cannot be read or is malformed.
    """
    rows = read_table(path)
    values = numbers(path, rows, 8)
    return (
        nanoseconds(path, (row[0] for row in rows)),
        pose_matrices(values[:, 1:4], values[:, 4:8]),
    )


def tum_lines(stamps: NDArray[np.int64], poses: NDArray[np.float64]) -> str:
    """Return a trajectory as TUM's tools read it: ``time x y z qx qy qz qw``, time in seconds."""
    turns = Rotation.from_matrix(poses[:, :3, :3]).as_quat() if len(poses) else np.empty((0, 4))
    lines = ["# timestamp tx ty tz qx qy qz qw"]
    for stamp, where, turn in zip(stamps.tolist(), poses[:, :3, 3], turns, strict=True):
        seconds, rest = divmod(stamp, 1_000_000_000)
        numbers = " ".join(f"{value:.9f}" for value in (*where, *turn))
        lines.append(f"{seconds}.{rest:09d} {numbers}")
    return "\n".join(lines) + "\n"


def pose_matrices(positions: ArrayLike, quaternions: ArrayLike) -> NDArray[np.float64]:
    """Return ``(N, 4, 4)`` poses of ``(N, 3)`` positions and ``(N, 4)`` (x, y, z, w).

    Quaternions are normalised, and q is the rotation that -q is. A row that is not finite is a
    pose that is not known: NaN.

    Raises
    ------
    D2RosError
        If a quaternion is zero.
    """
    where, turn = np.asarray(positions, np.float64), np.asarray(quaternions, np.float64)
    known = np.isfinite(where).all(axis=1) & np.isfinite(turn).all(axis=1)
    poses = np.full((len(where), 4, 4), np.nan)
    poses[known] = np.eye(4)
    poses[known, :3, 3] = where[known]
    largest = np.abs(turn[known]).max(axis=1, keepdims=True)
    turn = turn[known] / np.where(largest > 0, largest, 1)  # else the square of 1e200 is infinite
    try:
        poses[known, :3, :3] = Rotation.from_quat(turn).as_matrix()
    except ValueError as error:
        raise D2RosError(f"ground truth holds an unusable quaternion: {error}") from None
    return poses


def check_rigid(poses: NDArray[np.float64], name: str) -> None:
    """Refuse poses that are no rotation and translation.

    Parameters
    ----------
    poses
        ``(N, 4, 4)``; those that are not finite are unknown and not looked at.
    name
        Of their source.

    Raises
    ------
    D2RosError
        If one is not.
    """
    rotations = poses[np.isfinite(poses).all(axis=(1, 2)), :3, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        off = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    if not (off < RIGID).all() or not (np.linalg.det(rotations) > 0).all():
        raise D2RosError(
            f"{name} has a ground-truth pose that is no rotation and translation; check the "
            "numbers of its file, and those of the camera's place on the body"
        )


def interpolate(
    known: NDArray[np.int64], poses: NDArray[np.float64], stamps: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the poses at other times: positions linearly, rotations along the great arc.

    Next to a pose that is not known nothing is: a tracker that was lost has seen no straight line.

    Parameters
    ----------
    known
        ``(K,)`` integer nanoseconds in any order; of equal ones the first counts.
    poses
        ``(K, 4, 4)`` at `known`; NaN where not known.
    stamps
        ``(N,)`` integer nanoseconds.

    Returns
    -------
    ``(N, 4, 4)`` float64; NaN for stamps before the first or after the last known one, and
    between two of which one is NaN.
    """
    known, first = np.unique(known, return_index=True)
    poses = poses[first]
    sure = np.asarray(np.isfinite(poses).all(axis=(1, 2)))
    result = np.full((len(stamps), 4, 4), np.nan)
    after = np.searchsorted(known, stamps)  # the first known one that is not earlier
    late = np.minimum(after, len(known) - 1)
    exact = (known[late] == stamps) & sure[late]
    inside = exact | ((after > 0) & (after < len(known)) & sure[late] & sure[late - 1])
    known, poses = known[sure], poses[sure]
    if len(known) < 2:
        result[inside] = poses[:1]
        return result
    # Relative to the start: nanoseconds since 1970 do not fit a float64.
    times, wanted = (known - known[0]).astype(float), (stamps[inside] - known[0]).astype(float)
    between = np.tile(np.eye(4), (len(wanted), 1, 1))
    if len(wanted):
        between[:, :3, :3] = Slerp(times, Rotation.from_matrix(poses[:, :3, :3]))(
            wanted
        ).as_matrix()
    for axis in range(3):
        between[:, axis, 3] = np.interp(wanted, times, poses[:, axis, 3])
    result[inside] = between
    return result
