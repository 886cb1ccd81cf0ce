"""A place: what is kept of a keyframe for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.features.extractor import Features
from d2_ros.matching.pyramid import to_gray
from d2_ros.places.vlad import Vocabulary, unit
from d2_ros.records import FrameResult, columns

MOST_KEYPOINTS = 500
"""Keypoints that are kept of a keyframe."""

IMAGE_EDGE = 320
"""Long edge of the image that is kept, px."""


@dataclass(frozen=True)
class Place:
    """A keyframe as it is kept: about 75 KB, 150 KB with the image of 320x240.

    Attributes
    ----------
    stamp
        Integer nanoseconds.
    session
        Number of the run that it was seen in.
    size
        (width, height) of the raw image, px.
    camera
        Calibration, or None.
    vlad
        ``(K,)`` float32 of unit length.
    pixels
        ``(N, 2)`` float32 refined places, raw px.
    covariances
        ``(N, 3)`` float32 of these: uu, uv, vv, px^2.
    descriptors
        ``(N, d)`` int8, projected; each up to its own scale.
    image
        ``(h, w)`` uint8 gray, reduced.
    """

    stamp: int
    session: int
    size: tuple[int, int]
    camera: Camera | None
    vlad: NDArray[np.float32]
    pixels: NDArray[np.float32]
    covariances: NDArray[np.float32]
    descriptors: NDArray[np.int8]
    image: NDArray[np.uint8]

    def __post_init__(self) -> None:
        count = len(self.pixels)
        if self.covariances.shape != (count, 3) or len(self.descriptors) != count:
            raise ValueError("the arrays of a Place must have the same number of rows")

    @property
    def bearings(self) -> NDArray[np.float64]:
        """``(N, 3)`` bearings (x, y, 1), optical frame; NaN where there is none."""
        if self.camera is None:
            return np.full((len(self.pixels), 3), np.nan)
        return self.camera.bearings(self.pixels)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        arrays = (self.vlad, self.pixels, self.covariances, self.descriptors, self.image)
        return sum(array.nbytes for array in arrays)

    @property
    def scale(self) -> NDArray[np.float64]:
        """``(2,)`` px of the image that is kept, per raw px, (u, v)."""
        return np.divide(self.image.shape[::-1], self.size)

    def unit_descriptors(self) -> NDArray[np.float32]:
        """``(N, d)`` float32 of unit length."""
        return unit(self.descriptors.astype(np.float32))


def place_of_result(
    result: FrameResult,
    image: NDArray[Any],
    camera: Camera | None,
    vocabulary: Vocabulary,
    session: int = 0,
) -> Place:
    """What is to be kept of a frame that the front-end's network has seen.

    Parameters
    ----------
    result
        Its first 500 rows are kept: the best, spread over the image.
    image
        ``(H, W)`` or ``(H, W, 3)`` BGR, uint8 or uint16.
    """
    rows = result.features[:MOST_KEYPOINTS]
    pixels = columns(rows, "u", "v")
    covariances = columns(rows, "sigma_uu", "sigma_uv", "sigma_vv")
    descriptors = result.descriptors[:MOST_KEYPOINTS]
    return _place(
        result.stamp, image, camera, pixels, covariances, descriptors, vocabulary, session
    )


def place_of_features(
    features: Features,
    stamp: int,
    image: NDArray[Any],
    camera: Camera | None,
    vocabulary: Vocabulary,
    session: int = 0,
) -> Place:
    """What is to be kept of an image by itself, at the detected places."""
    covariances = features.covariances.reshape(-1, 4)[:MOST_KEYPOINTS, [0, 1, 3]]
    pixels = features.keypoints[:MOST_KEYPOINTS]
    descriptors = features.descriptors[:MOST_KEYPOINTS].float().cpu().numpy()
    return _place(stamp, image, camera, pixels, covariances, descriptors, vocabulary, session)


def _place(
    stamp: int,
    image: NDArray[Any],
    camera: Camera | None,
    pixels: NDArray[Any],
    covariances: NDArray[Any],
    descriptors: NDArray[np.float32],
    vocabulary: Vocabulary,
    session: int,
) -> Place:
    length = descriptors.shape[1]
    if length != len(vocabulary.projection):
        raise D2RosError(
            f"the weights give descriptors of {length} values, and the vocabulary of places is for "
            f"{len(vocabulary.projection)}; take weights without a projection"
        )
    local = vocabulary.project(descriptors)
    largest = np.maximum(np.abs(local).max(axis=1, keepdims=True, initial=0), 1e-12)
    height, width = image.shape[:2]
    return Place(
        stamp,
        session,
        (width, height),
        camera,
        vocabulary.describe(local),
        pixels.astype(np.float32),
        covariances.astype(np.float32),
        np.rint(127 * local / largest).astype(np.int8),
        _reduced(image),
    )


def _reduced(image: NDArray[Any]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    factor = min(1.0, IMAGE_EDGE / max(height, width))
    gray = to_gray(image)
    if factor < 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        gray = np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), np.float32)
    return np.rint(gray).astype(np.uint8)
