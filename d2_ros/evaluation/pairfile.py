"""Files of image pairs with calibration and relative pose, in SuperGlue's format.

One pair per line: two image names, the quarter turns (counter-clockwise) that put each image
upright, two row-major 3x3 intrinsics and the row-major 4x4 ``T_0to1``; 38 words.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.evaluation.geometry import relative
from d2_ros.evaluation.pairs import MIN_BASELINE
from d2_ros.sources.base import Frame, Source
from d2_ros.sources.images import read_image
from d2_ros.sources.trajectories import numbers, read_table
from d2_ros.sources.truth import known_poses

_WORDS = 2 + 2 + 9 + 9 + 16
_NO_DISTORTION = np.zeros(5)
_ORTHOGONAL = 1e-3  # elements of R R^T - I of a pose that was written with few digits

# Turning an image by 90 degrees turns its camera: new x is y, new y is -x.
_QUARTER = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class ViewPair:
    """One line of the file.

    Attributes
    ----------
    files
        The two images.
    turns
        Quarter turns, counter-clockwise, that put each upright.
    matrices
        Their ``(3, 3)`` intrinsics, px, as the images are stored.
    T_second_first
        ``(4, 4)``.
    """

    files: tuple[Path, Path]
    turns: tuple[int, int]
    matrices: tuple[NDArray[np.float64], NDArray[np.float64]]
    T_second_first: NDArray[np.float64]


@dataclass(frozen=True)
class Views:
    """The two images of a pair, put upright, with the geometry of the upright images."""

    images: tuple[NDArray[Any], NDArray[Any]]
    cameras: tuple[Camera, Camera]
    T_second_first: NDArray[np.float64]


def read_pairs(path: Path, folder: Path) -> list[ViewPair]:
    """Read a file of pairs; image names are relative to `folder`.

    Raises
    ------
    D2RosError
        If it cannot be read or a line is not of the format.
    """
    rows = read_table(path)
    wrong = [row for row in rows if len(row) != _WORDS]
    if wrong:
        raise D2RosError(
            f"{path} has a line of {len(wrong[0])} words; a pair with ground truth has {_WORDS}: "
            "two names, two rotations, K0 (9), K1 (9), T_0to1 (16)"
        )
    values = numbers(path, [row[2:] for row in rows], _WORDS - 2)
    if not np.isfinite(values).all():
        raise D2RosError(f"{path} holds NaN or infinity; leave pairs without ground truth out")
    matrices, poses = values[:, 2:20].reshape(-1, 2, 3, 3), values[:, 20:].reshape(-1, 4, 4)
    turns = poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1)
    right = (np.abs(turns - np.eye(3)) < _ORTHOGONAL).all(axis=(1, 2))
    right &= np.linalg.det(poses[:, :3, :3]) > 0
    right &= (matrices[:, :, 2, 2] != 0).all(axis=1)
    if not right.all():
        row = rows[int(np.argmin(right))]
        raise D2RosError(
            f"{path}, pair {row[0]} {row[1]}: T_0to1 holds no rotation or K is no camera matrix; "
            "the order is K0 (9), K1 (9), T_0to1 (16), row by row"
        )
    matrices /= matrices[:, :, 2:, 2:]  # a camera matrix is one up to a factor, of either sign
    return [
        ViewPair(
            files=(folder / row[0], folder / row[1]),
            turns=(int(value[0]) % 4, int(value[1]) % 4),
            matrices=(matrix[0], matrix[1]),
            T_second_first=pose,
        )
        for row, value, matrix, pose in zip(rows, values, matrices, poses, strict=True)
    ]


def check_images(path: Path, pairs: Sequence[ViewPair]) -> None:
    """Make sure that all images of a file of pairs are there, before work is put into some.

    Raises
    ------
    D2RosError
        If one is missing.
    """
    files = dict.fromkeys(file for pair in pairs for file in pair.files)
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise D2RosError(
            f"{len(missing)} of the {len(files)} images of {path} are missing, the first of them "
            f"{missing[0]}; give their folder with --images"
        )


def load_views(pair: ViewPair) -> Views:
    """Read the images of a pair and put them upright, with their cameras.

    Raises
    ------
    D2RosError
        If an image or its calibration is unusable.
    """
    (first, near, turn), (second, far, turn_second) = (
        _upright(read_image(path), matrix, turns)
        for path, matrix, turns in zip(pair.files, pair.matrices, pair.turns, strict=True)
    )
    return Views(
        images=(first, second),
        cameras=(near, far),
        T_second_first=turn_second @ pair.T_second_first @ turn.T,
    )


def _upright(
    image: NDArray[Any], matrix: NDArray[np.float64], turns: int
) -> tuple[NDArray[Any], Camera, NDArray[np.float64]]:
    """Turn an image and its camera; also the ``(4, 4)`` turn of the camera's frame."""
    pose = np.eye(4)
    for _ in range(turns):
        (fx, _, cx), (_, fy, cy) = matrix[:2]
        matrix = np.array([[fy, 0, cy], [0, fx, image.shape[1] - 1 - cx], [0, 0, 1]])
        image = np.ascontiguousarray(np.rot90(image))
        pose[:3, :3] = _QUARTER @ pose[:3, :3]
    return image, Camera(image.shape[1], image.shape[0], matrix, _NO_DISTORTION), pose


def write_pairs(source: Source, gap: int, every: int, path: Path) -> int:
    """Write the pairs of frames of a sequence, with undistorted images in a folder beside.

    Parameters
    ----------
    source
        With poses and a calibration.
    gap
        Frames from the first to the second of a pair.
    every
        Frames from one pair to the next.
    path
        The file; the images go to a folder of the same name with ``_images``.

    Returns
    -------
    The number of pairs.

    Raises
    ------
    D2RosError
        If the source has no poses or calibration or no pair, or a file cannot be written.
    """
    poses = known_poses(source)
    if poses is None:
        raise D2RosError(f"{source.name} has no ground-truth poses; give a sequence with poses")
    images = path.parent / f"{path.stem}_images"
    recent: deque[Frame] = deque(maxlen=gap + 1)
    lines = []
    for number, frame in enumerate(source):
        recent.append(frame)
        start = number - gap
        if start < 0 or start % every:
            continue
        motion = relative(poses[start], poses[number])
        if np.linalg.norm(motion[:3, 3]) >= MIN_BASELINE:  # False for NaN
            views = [_store(view, images) for view in (recent[0], frame)]
            values = np.concatenate([views[0][1].ravel(), views[1][1].ravel(), motion.ravel()])
            text = " ".join(f"{value:.12g}" for value in values)
            lines.append(f"{views[0][0]} {views[1][0]} 0 0 {text}\n")
    if not lines:
        raise D2RosError(f"{source.name} gives no pair {gap} frames apart that has moved")
    try:
        path.write_text("".join(lines), "utf-8", "surrogateescape")
    except OSError as error:
        raise D2RosError(f"cannot write {path}: {error.strerror}") from None
    return len(lines)


def _store(frame: Frame, folder: Path) -> tuple[str, NDArray[np.float64]]:
    """Write a frame without its distortion; its name relative to the file, and intrinsics."""
    camera = frame.camera
    if camera is None:
        raise D2RosError(f"the frame at {frame.stamp} ns has no calibration; pairs need one")
    matrix = camera.matrix
    image: NDArray[Any] = frame.image
    target = folder / f"{frame.stamp}.png"
    if not target.exists():
        if camera.model == "equidistant":
            image = cv2.fisheye.undistortImage(image, matrix, camera.distortion, Knew=matrix)
        elif camera.distortion.any():
            image = cv2.undistort(image, matrix, camera.distortion)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            target.write_bytes(cv2.imencode(".png", image)[1].tobytes())
        except OSError as error:
            raise D2RosError(f"cannot write {target}: {error.strerror}") from None
    return f"{folder.name}/{target.name}", matrix
