"""The synthetic world: a room of textured planes, and what a ray of a camera meets in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Picture:
    """A photograph pasted on a plane.

    Attributes
    ----------
    photo
        Name of a photograph of :mod:`d2_ros.sources.synthetic.textures`.
    x, y
        Its top-left corner on the plane, m.
    width
        Its width, m; the height follows from the photograph.
    turns
        Quarter turns, counter-clockwise.
    """

    photo: str
    x: float
    y: float
    width: float
    turns: int = 0


@dataclass(frozen=True)
class Plane:
    """A textured rectangle.

    Attributes
    ----------
    origin
        ``(3,)`` top-left corner, world frame, m.
    right, down
        ``(3,)`` unit vectors of the texture's columns and rows, world frame.
    size
        Width along `right` and height along `down`, m.
    background
        Photograph that covers the plane, mirrored at its edges until it fills it.
    tile
        Width of the background photograph on the plane, m.
    tint
        Factors on blue, green and red of the background.
    pictures
        What hangs on it.
    """

    origin: NDArray[np.float64]
    right: NDArray[np.float64]
    down: NDArray[np.float64]
    size: tuple[float, float]
    background: str
    tile: float
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    pictures: tuple[Picture, ...] = ()

    def homography(self, T_world_camera: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map bearings to the plane.

        Parameters
        ----------
        T_world_camera
            ``(4, 4)`` pose.

        Returns
        -------
        ``(3, 3)`` H with ``H @ (x, y, 1) = (a, b, 1) / depth``: the plane coordinates (m from
        `origin` along `right` and `down`) of the point of that bearing, and its depth.
        """
        rotation, centre = T_world_camera[:3, :3], T_world_camera[:3, 3]
        basis = np.column_stack([self.right, self.down, self.origin - centre])
        return np.asarray(np.linalg.inv(rotation.T @ basis), np.float64)

    def points(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """``(N, 2)`` plane coordinates -> ``(N, 3)`` points, world frame, m."""
        return self.origin + coordinates @ np.stack([self.right, self.down])


def trace(
    planes: Sequence[Plane],
    T_world_camera: NDArray[np.float64],
    bearings: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find what each ray meets first.

    Parameters
    ----------
    planes
        The world.
    T_world_camera
        ``(4, 4)`` pose.
    bearings
        ``(N, 3)`` rays (x, y, 1), optical frame.

    Returns
    -------
    index
        ``(N,)`` int64 index of the nearest plane, -1 where the ray meets none.
    coordinates
        ``(N, 2)`` float64 plane coordinates, m, NaN where the ray meets none.
    """
    index = np.full(len(bearings), -1)
    coordinates = np.full((len(bearings), 2), np.nan)
    nearest = np.zeros(len(bearings))  # inverse depth: zero is infinitely far
    for k, plane in enumerate(planes):
        inverse_depth, place, inside = _meet(plane, T_world_camera, bearings)
        closer = inside & (inverse_depth > nearest)
        index[closer] = k
        coordinates[closer] = place[closer]
        nearest[closer] = inverse_depth[closer]
    return index, coordinates


def hidden(
    planes: Sequence[Plane],
    T_world_camera: NDArray[np.float64],
    points: NDArray[np.float64],
    index: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Tell which points another plane hides.

    Parameters
    ----------
    planes
        The world.
    T_world_camera
        ``(4, 4)`` pose.
    points
        ``(N, 3)`` points of the optical frame with positive depth, m.
    index
        ``(N,)`` the plane that each point lies on, which does not hide it.

    Returns
    -------
    ``(N,)`` bool.
    """
    depth = points[:, 2]
    result = np.zeros(len(points), bool)
    for k, plane in enumerate(planes):
        inverse_depth, _, inside = _meet(plane, T_world_camera, points / depth[:, None])
        in_front = inverse_depth * depth > 1 + 1e-9  # planes that meet in an edge do not hide it
        result |= inside & in_front & (index != k)
    return result


def _meet(
    plane: Plane, T_world_camera: NDArray[np.float64], bearings: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Inverse depth, plane coordinates and whether the rectangle (not only its plane) is met."""
    x, y, z = bearings.T
    H = plane.homography(T_world_camera)
    a, b, inverse_depth = (row[0] * x + row[1] * y + row[2] * z for row in H)
    with np.errstate(divide="ignore", invalid="ignore"):
        a /= inverse_depth
        b /= inverse_depth
    width, height = plane.size
    inside = (a >= 0) & (a <= width) & (b >= 0) & (b <= height) & (inverse_depth > 0)
    return inverse_depth, np.column_stack([a, b]), inside
