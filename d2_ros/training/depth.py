"""Pairs of photographs with depth maps, in the layout of MegaDepth's dense reconstructions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError, optional_import
from d2_ros.sources.images import read_image
from d2_ros.training.colmap import View
from d2_ros.training.pairs import Pair, as_bgr, grid, inside, overlapping

MAX_DEPTH_ERROR = 0.05
"""A point whose depth differs by more from the other map's is hidden there, relative."""


class DepthMaps:
    """Pairs of photographs where the depth map says where each pixel lies in the other.

    Parameters
    ----------
    views
        Photographs to pair with each other, undistorted.
    folder
        Of the depth maps: ``NAME.h5`` with a data set ``depth``, ``(H, W)``, 0 where unknown, in
        the unit of the poses.
    overlap
        Smallest and largest share of sparse points in common.
    """

    def __init__(self, views: list[View], folder: Path, overlap: tuple[float, float]) -> None:
        self._folder = folder
        self._views = [view for view in views if self._path(view).is_file()]
        if not self._views:
            raise D2RosError(
                f"{folder} holds no depth map of the reconstruction's images; "
                "MegaDepth has them as depths/NAME.h5"
            )
        self.pairs = overlapping([view.points for view in self._views], *overlap)

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    def draw(self, index: int, rng: np.random.Generator) -> Pair:
        """Return pair `index`, with a random grid of correspondences."""
        a, b = (self._views[k] for k in self.pairs[index])
        depth, depth_second = read_depth(self._path(a)), read_depth(self._path(b))
        pixels = grid(depth.shape[1], depth.shape[0], rng)
        there = locate_by_depth(
            pixels,
            (depth, depth_second),
            (a.matrix, b.matrix),
            b.T_camera_world @ np.linalg.inv(a.T_camera_world),
        )
        keep = np.isfinite(there[:, 0])
        first, second = as_bgr(read_image(a.path)), as_bgr(read_image(b.path))
        return Pair(first, second, pixels[keep], there[keep])

    def _path(self, view: View) -> Path:
        return self._folder / f"{view.path.stem}.h5"


def locate_by_depth(
    pixels: NDArray[np.float64],
    depths: tuple[NDArray[np.float32], NDArray[np.float32]],
    matrices: tuple[NDArray[np.float64], NDArray[np.float64]],
    T_second_first: NDArray[np.float64],
    max_error: float = MAX_DEPTH_ERROR,
) -> NDArray[np.float64]:
    """Say where pixels of the first image lie in the second.

    Parameters
    ----------
    pixels
        ``(N, 2)`` in the first image.
    depths
        ``(H, W)`` depth along the optical axis of either image, 0 where unknown.
    matrices
        ``(3, 3)`` intrinsics of either.
    T_second_first
        ``(4, 4)`` relative pose, in the unit of the depths.
    max_error
        Largest difference between the point's depth and the second map's there, relative.

    Returns
    -------
    ``(N, 2)``, NaN where a depth is unknown or the point is outside or hidden.
    """
    bearings = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(matrices[0]).T
    depth = sample_depth(depths[0], pixels)
    points = (bearings * depth[:, None]) @ T_second_first[:3, :3].T + T_second_first[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        projected = points @ matrices[1].T
        there = projected[:, :2] / projected[:, 2:]
        error = np.abs(points[:, 2] / sample_depth(depths[1], there) - 1)
    visible = (points[:, 2] > 0) & (error <= max_error)  # False for NaN
    return np.where(visible[:, None], there, np.nan)


def sample_depth(depth: NDArray[np.float32], pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Depth at ``(N, 2)`` pixels, bilinear; NaN outside and where any of the four is unknown."""
    height, width = depth.shape
    within = inside(pixels, width, height)
    u, v = np.where(within[:, None], pixels, 0.0).T
    left = np.minimum(u.astype(int), width - 2)
    top = np.minimum(v.astype(int), height - 2)
    right, down = u - left, v - top
    corners = np.stack([depth[top + i, left + j] for i in (0, 1) for j in (0, 1)])
    share = [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right]
    known = within & (corners > 0).all(axis=0)
    return np.where(known, (corners * share).sum(axis=0), np.nan)


def read_depth(path: Path) -> NDArray[np.float32]:
    """Read the data set ``depth`` of an HDF5 file.

    Raises
    ------
    D2RosError
        If h5py is not installed, or the file or its content is not that.
    """
    with optional_import(
        f"reading the depth map {path} takes h5py; install it with `pip install h5py`"
    ):
        import h5py
    try:
        with h5py.File(path, "r") as file:
            depth = np.asarray(file["depth"], np.float32)
    except (OSError, KeyError, ValueError) as error:
        raise D2RosError(f"depth map {path} cannot be read: {error}") from None
    if depth.ndim != 2:
        raise D2RosError(f"depth map {path} has shape {depth.shape}; it must be (H, W)")
    return np.where(np.isfinite(depth), depth, 0)
