"""Pairs out of single photographs: a random homography and changes of light."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.training.config import AugmentationConfig
from d2_ros.training.pairs import Pair, as_bgr, grid, inside
from d2_ros.training.photometric import change

_FEWEST = 16  # correspondences of a pair worth having
_ATTEMPTS = 20


@dataclass(frozen=True)
class Photographs:
    """A window of a photograph, paired with a warped and changed one.

    Attributes
    ----------
    load
        One function per photograph that returns its image, ``(H, W)`` or ``(H, W, 3)``.
    size
        Side of the windows, px.
    max_edge
        Longer photographs are reduced to this long edge, px.
    augmentation
        How much is changed.
    """

    load: Sequence[Callable[[], NDArray[np.uint8]]]
    size: int
    max_edge: int
    augmentation: AugmentationConfig

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self.load)

    def draw(self, index: int, rng: np.random.Generator) -> Pair:
        """Return a new pair from photograph `index`."""
        photo = resize(as_bgr(self.load[index]()), self.size, self.max_edge)
        height, width = photo.shape[:2]
        for _ in range(_ATTEMPTS):
            corner = rng.uniform(0, 1, 2) * (width - self.size, height - self.size)
            corner = np.floor(corner).astype(int)
            H = random_homography(self.size, rng, self.augmentation)
            pixels = grid(self.size, self.size, rng)
            there = transfer(H, pixels)
            keep = inside(there, self.size, self.size)
            if keep.sum() >= _FEWEST:
                break
        first = photo[corner[1] : corner[1] + self.size, corner[0] : corner[0] + self.size]
        second = warp(photo, H @ translation(-corner), self.size)
        return Pair(
            change(first, rng, self.augmentation),
            change(second, rng, self.augmentation),
            pixels[keep],
            there[keep],
        )


def resize(photo: NDArray[np.uint8], size: int, max_edge: int) -> NDArray[np.uint8]:
    """Reduce a photograph to a long edge, or enlarge it until a window fits."""
    height, width = photo.shape[:2]
    factor = min(1.0, max_edge / max(height, width))
    factor = max(factor, size / min(height, width))
    if factor == 1:
        return photo
    shape = (max(size, round(width * factor)), max(size, round(height * factor)))
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(photo, shape, interpolation=interpolation), np.uint8)


def random_homography(
    size: int, rng: np.random.Generator, settings: AugmentationConfig
) -> NDArray[np.float64]:
    """A homography between two windows: turn, zoom, shift and tilt about their centres.

    Returns
    -------
    ``(3, 3)`` float64, first to second window, px.
    """
    angle = rng.uniform(-1, 1) * settings.rotation
    zoom = np.exp(rng.uniform(-1, 1) * np.log(settings.zoom))
    shift = rng.uniform(-1, 1, 2) * settings.shift * size
    tilt = rng.uniform(-1, 1, 2) * settings.perspective / size
    cosine, sine = zoom * np.cos(angle), zoom * np.sin(angle)
    similarity = np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]], [0, 0, 1.0]])
    perspective = np.array([[1, 0, 0], [0, 1, 0], [*tilt, 1.0]])
    centre = np.full(2, (size - 1) / 2)
    return translation(centre) @ similarity @ perspective @ translation(-centre)


def translation(shift: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """``(3, 3)`` homography that adds `shift`."""
    H = np.eye(3)
    H[:2, 2] = shift
    return H


def transfer(H: NDArray[np.float64], pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(N, 2)`` pixels through a homography; NaN beyond its horizon."""
    there = np.column_stack([pixels, np.ones(len(pixels))]) @ H.T
    depth = np.where(there[:, 2:] > 1e-9, there[:, 2:], np.nan)
    return np.asarray(there[:, :2] / depth)


def warp(photo: NDArray[np.uint8], H: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """The ``(size, size)`` window that `H` maps a photograph to, nearly without aliasing."""
    inverse = np.asarray(np.linalg.inv(H), np.float64)
    centre = transfer(inverse, np.full((1, 2), (size - 1) / 2))
    around = transfer(H, np.concatenate([centre, centre + np.eye(2)]))
    shrink = np.sqrt(abs(np.linalg.det(around[1:] - around[0])))  # at the window's centre
    if shrink < 1:  # blur away what the sparser pixels cannot hold
        sigma = 0.5 * np.sqrt(1 / shrink**2 - 1) + 1e-3
        photo = np.asarray(cv2.GaussianBlur(photo, (0, 0), sigma), np.uint8)
    return np.asarray(
        cv2.warpPerspective(
            photo, H, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        ),
        np.uint8,
    )
