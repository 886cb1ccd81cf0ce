"""The peers: SIFT, ORB and KLT, each with its usual settings, on the same frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.matching.neighbours import match

Points = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Matched raw pixels of the first and of the second image, ``(M, 2)`` each."""

Rows = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Rows of the first and of the second frame."""

Verify = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]
"""(places in the first, places in the second frame) -> inliers."""

# OpenCV 4.8 and later can do without a bias of a quarter pixel; the peer gets its best.
_PRECISE: dict[str, Any] = (
    {"enable_precise_upscale": True}
    if tuple(map(int, cv2.__version__.split(".")[:2])) >= (4, 8)
    else {}
)


@dataclass(frozen=True)
class Sparse:
    """Keypoints of one image.

    Attributes
    ----------
    pixels
        ``(N, 2)`` float64, px.
    descriptors
        ``(N, D)`` float32 rows of unit length; nearest is largest scalar product.
    """

    pixels: NDArray[np.float64]
    descriptors: NDArray[np.float32]

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.descriptors):
            raise ValueError("a Sparse has one descriptor per keypoint")


@dataclass(frozen=True)
class Observed:
    """What a tracker saw in one frame.

    Attributes
    ----------
    ids
        ``(N,)`` int64 tracks, each at most once.
    pixels
        ``(N, 2)`` float64, px.
    """

    ids: NDArray[np.int64]
    pixels: NDArray[np.float64]


def gray8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return any image of a source as ``(H, W)`` uint8."""
    if image.dtype == np.uint16:
        image = np.rint(image / 257).astype(np.uint8)
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return np.ascontiguousarray(image)


def root_sift(image: NDArray[np.uint8], count: int) -> Sparse:
    """The `count` best SIFT keypoints, RootSIFT descriptors (Arandjelovic, Zisserman 2012)."""
    sift = cv2.SIFT_create(count, **_PRECISE)  # type: ignore[attr-defined]
    keypoints, descriptors = sift.detectAndCompute(image, None)
    if descriptors is None:
        return Sparse(np.empty((0, 2)), np.empty((0, 128), np.float32))
    total = descriptors.sum(axis=1, keepdims=True)
    return Sparse(_places(keypoints), np.sqrt(descriptors / np.maximum(total, 1e-9)))


def orb(image: NDArray[np.uint8], count: int) -> Sparse:
    """The `count` best ORB keypoints; bits as -1 and 1, so that products rank like Hamming."""
    detector = cv2.ORB_create(nfeatures=count)  # type: ignore[attr-defined]
    keypoints, descriptors = detector.detectAndCompute(image, None)
    if descriptors is None:
        return Sparse(np.empty((0, 2)), np.empty((0, 256), np.float32))
    bits = np.unpackbits(descriptors, axis=1).astype(np.float32)
    return Sparse(_places(keypoints), (2 * bits - 1) / np.float32(16))


def mutual_nearest(first: Sparse, second: Sparse) -> Rows:
    """Mutual nearest neighbours, by the very matcher of the front-end."""
    found = match(torch.from_numpy(second.descriptors), [torch.from_numpy(first.descriptors)])
    return found.keyframe_index, found.index


def join(first: NDArray[np.int64], second: NDArray[np.int64]) -> Rows:
    """Rows of the tracks that both frames see; ids below 1 are none."""
    near, far = np.flatnonzero(first > 0), np.flatnonzero(second > 0)
    _, a, b = np.intersect1d(first[near], second[far], assume_unique=True, return_indices=True)
    return near[a], far[b]


def _places(keypoints: Any) -> NDArray[np.float64]:
    return np.reshape(cv2.KeyPoint.convert(keypoints), (-1, 2)).astype(np.float64)


@dataclass
class Chain:
    """Tracks of a matcher of pairs: verified matches with the last frame go on."""

    _last: Sparse | None = None
    _ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    _next: int = 1

    def track(self, features: Sparse, verify: Verify) -> Observed:
        """Add a frame."""
        ids = np.zeros(len(features.pixels), np.int64)
        if self._last is not None:
            before, now = mutual_nearest(self._last, features)
            kept = verify(self._last.pixels[before], features.pixels[now])
            ids[now[kept]] = self._ids[before[kept]]
        fresh = np.flatnonzero(ids == 0)
        ids[fresh] = self._next + np.arange(len(fresh))
        self._next += len(fresh)
        self._last, self._ids = features, ids
        return Observed(ids, features.pixels)


@dataclass
class Klt:
    """Corners, and pyramidal Lucas-Kanade with a forward-backward check, as in VINS-Fusion.

    Attributes
    ----------
    points, spacing
        Points kept alive, and their least distance when they are found, px.
    """

    points: int
    spacing: float
    _image: NDArray[np.uint8] | None = None
    _seen: Observed = field(
        default_factory=lambda: Observed(np.empty(0, np.int64), np.empty((0, 2)))
    )
    _next: int = 1

    def track(self, image: NDArray[np.uint8], verify: Verify) -> Observed:
        """Follow the points into a frame and find new ones."""
        seen = self._seen
        if self._image is not None and len(seen.ids):
            there, found = flow(self._image, image, seen.pixels)
            before, places, ids = seen.pixels[found], there[found], seen.ids[found]
            if len(ids) >= 8:  # as VINS: too few for a geometry are kept
                kept = verify(before, places)
                places, ids = places[kept], ids[kept]
            seen = Observed(ids, places)
        self._image, self._seen = image, self._replenish(image, seen)
        return self._seen

    def _replenish(self, image: NDArray[np.uint8], seen: Observed) -> Observed:
        wanted = self.points - len(seen.ids)
        if wanted <= 0:
            return seen
        free = np.full(image.shape, 255, np.uint8)
        column, row = np.rint(seen.pixels).astype(int).T
        free[row, column] = 0
        if len(seen.ids):
            away = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            free = (away >= self.spacing).astype(np.uint8)
        new = cv2.goodFeaturesToTrack(image, wanted, 0.01, self.spacing, mask=free)
        if new is None:
            return seen
        ids = self._next + np.arange(len(new))
        self._next += len(new)
        places = new.reshape(-1, 2).astype(np.float64)
        return Observed(np.concatenate([seen.ids, ids]), np.vstack([seen.pixels, places]))


_WINDOW, _LEVELS, _WAY_BACK = (21, 21), 3, 0.5  # px, levels above the image, px: VINS's


def flow(
    before: NDArray[np.uint8],
    now: NDArray[np.uint8],
    pixels: NDArray[np.float64],
    guess: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Where points went, and whether they came back within half a pixel and stayed inside.

    Parameters
    ----------
    before, now
        ``(H, W)`` images.
    pixels
        ``(N, 2)`` points of the first, px.
    guess
        ``(N, 2)`` where to start the search in the second; at `pixels` if not given.
    """
    start: Any = pixels.astype(np.float32)[:, None]
    track: Any = cv2.calcOpticalFlowPyrLK  # its stubs know no None for the guess
    settings: Any = {"winSize": _WINDOW, "maxLevel": _LEVELS}
    guided = {**settings, "flags": 0 if guess is None else cv2.OPTFLOW_USE_INITIAL_FLOW}
    place = None if guess is None else guess.astype(np.float32)[:, None].copy()
    there, ok, _ = track(before, now, start, place, **guided)
    back, returned, _ = track(now, before, there, None, **settings)
    places = there[:, 0].astype(np.float64)
    height, width = now.shape
    inside = ((places >= 0) & (places <= [width - 1, height - 1])).all(axis=1)
    close = np.linalg.norm((back - start)[:, 0], axis=1) <= _WAY_BACK
    return places, ok[:, 0].astype(bool) & returned[:, 0].astype(bool) & close & inside
