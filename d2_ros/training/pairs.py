"""Two images and where they show the same points: what every source of training data yields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator
from scipy.sparse import csr_matrix
from scipy.spatial import QhullError, cKDTree

GRID_STEP = 4.0
"""Spacing of correspondences where any pixel has one, px."""

REACH = 4.0
"""A pixel this near to a known correspondence has a true place itself, px."""

_FEWEST = 4  # correspondences that make up a triangulation worth interpolating in


@dataclass(frozen=True)
class Pair:
    """Two images of the same things.

    Attributes
    ----------
    first, second
        ``(H, W, 3)`` uint8 BGR.
    pixels, pixels_second
        ``(N, 2)`` float64 (u, v) of the same N points in either, px, within the images.
    """

    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    pixels: NDArray[np.float64]
    pixels_second: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.pixels.shape != self.pixels_second.shape or self.pixels.shape[1:] != (2,):
            raise ValueError("a pair has as many (u, v) in its second image as in its first")


class PairSource(Protocol):
    """Pairs of images with correspondences."""

    def __len__(self) -> int:
        """Return the number of pairs, or of images that are paired with themselves."""
        ...

    def draw(self, index: int, rng: np.random.Generator) -> Pair:
        """Return one of them; `rng` decides all that is random about it."""
        ...


def as_bgr(image: NDArray[Any]) -> NDArray[np.uint8]:
    """``(H, W)`` or ``(H, W, 3)``, uint8 or uint16 -> ``(H, W, 3)`` uint8."""
    if image.dtype == np.uint16:
        image = np.rint(image / 257).astype(np.uint8)
    return np.ascontiguousarray(np.dstack([image] * 3) if image.ndim == 2 else image)


def grid(width: int, height: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """``(N, 2)`` pixels on a grid of :data:`GRID_STEP` with a random offset."""
    u, v = (
        np.arange(offset, edge - 1, GRID_STEP)
        for offset, edge in zip(rng.uniform(0, GRID_STEP, 2), (width, height), strict=True)
    )
    return np.stack(np.meshgrid(u, v), -1).reshape(-1, 2)


def inside(pixels: NDArray[np.float64], width: int, height: int) -> NDArray[np.bool_]:
    """Which of ``(N, 2)`` pixels lie between the centres of the outermost ones; NaN does not."""
    return np.asarray(((pixels >= 0) & (pixels <= (width - 1, height - 1))).all(axis=1))


def crop_pair(pair: Pair, size: int, rng: np.random.Generator) -> Pair:
    """Cut a square window out of both images around a random point that both show.

    Windows stay within their images; a smaller image is continued by its nearest pixels.

    Parameters
    ----------
    pair
        With at least one correspondence.
    size
        Side of the windows, px.
    rng
        Chooses the point.

    Returns
    -------
    The windows, with the correspondences that lie in both: at least the chosen one.
    """
    chosen = rng.integers(len(pair.pixels))
    windows, places = [], []
    for image, pixels in ((pair.first, pair.pixels), (pair.second, pair.pixels_second)):
        height, width = image.shape[:2]
        below, right = max(size - height, 0), max(size - width, 0)
        if below or right:
            image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
        room = np.maximum([width - size, height - size], 0)
        corner = np.clip(np.rint(pixels[chosen] - (size - 1) / 2), 0, room).astype(int)
        windows.append(image[corner[1] : corner[1] + size, corner[0] : corner[0] + size])
        places.append(pixels - corner)
    keep = inside(places[0], size, size) & inside(places[1], size, size)
    first, second = (np.ascontiguousarray(window, np.uint8) for window in windows)
    return Pair(first, second, places[0][keep], places[1][keep])


def true_places(pair: Pair, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Say where pixels of the first image lie in the second.

    Linear between the correspondences around (Delaunay); exact to a hundredth of a pixel on a
    :data:`GRID_STEP` grid, except across edges of depth.

    Parameters
    ----------
    pair
        With its correspondences.
    pixels
        ``(M, 2)`` in the first image.

    Returns
    -------
    ``(M, 2)`` in the second, NaN further than :data:`REACH` from any correspondence.
    """
    unknown = np.full((len(pixels), 2), np.nan)
    if len(pair.pixels) < _FEWEST or not len(pixels):
        return unknown
    try:
        between = LinearNDInterpolator(pair.pixels, pair.pixels_second)
    except QhullError:  # all on one line
        return unknown
    near = cKDTree(pair.pixels).query(pixels)[0] <= REACH
    return np.where(near[:, None], between(pixels), np.nan)


def overlapping(
    seen: Sequence[NDArray[np.int64]], low: float, high: float
) -> list[tuple[int, int]]:
    """Choose pairs of images by the share of points that they have in common.

    Parameters
    ----------
    seen
        For each image the numbers of the points it shows, each once.
    low, high
        Smallest and largest number of shared points, over that of the image with fewer.

    Returns
    -------
    Pairs (i, j) with i < j, in order.
    """
    counts = np.array([len(points) for points in seen])
    if not counts.sum():
        return []
    names, columns = np.unique(np.concatenate(seen), return_inverse=True)
    rows = np.repeat(np.arange(len(seen)), counts)
    matrix = csr_matrix((np.ones(len(rows)), (rows, columns)), (len(seen), len(names)))
    shared = (matrix @ matrix.T).toarray()
    share = shared / np.maximum(np.minimum(counts[:, None], counts), 1)
    chosen = np.triu((share >= low) & (share <= high) & (shared >= 1), k=1)
    return [(int(i), int(j)) for i, j in np.argwhere(chosen)]
