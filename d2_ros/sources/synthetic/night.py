"""The room at night: two lamps instead of daylight, and a camera that strains to see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from d2_ros.sources.synthetic.world import Plane, trace

MOMENTS, SHUTTER_S = 5, 0.03
"""Moments that an exposure is made of, and how long it takes: by night the shutter opens longer."""

AMPLIFICATION = 4.0
"""Gain between the sensor and its 8 bits, which amplifies the noise with the light."""

_AMBIENT = 0.02  # share of daylight that is left
_TINT = np.array([0.55, 0.85, 1.1])  # BGR, of the lamps
_LAMPS = ((np.array([6.8, 2.2, 1.1]), 0.9), (np.array([1.6, -2.4, 0.6]), 0.35))
"""Place in the room, m, and share of daylight on a surface that faces it at 1 m."""
_NEAREST = 0.5  # m^2 that is added to the squared distance: a lamp is no point


def lamplight(
    planes: Sequence[Plane], T_world_camera: NDArray[np.float64], centres: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Light that falls on what every pixel sees, as a share of daylight (nothing casts shadows).

    Parameters
    ----------
    planes
        The world.
    T_world_camera
        ``(4, 4)`` pose.
    centres
        ``(H, W, 3)`` bearings of the pixels.

    Returns
    -------
    ``(H, W, 3)`` float32 factors on blue, green and red.
    """
    index, coordinates = trace(planes, T_world_camera, centres.reshape(-1, 3))
    light = np.zeros(len(index))
    for k in np.unique(index[index >= 0]):
        rows, plane = np.flatnonzero(index == k), planes[k]
        points, normal = plane.points(coordinates[rows]), np.cross(plane.right, plane.down)
        for place, power in _LAMPS:
            way = place - points
            squared = (way**2).sum(axis=1)
            facing = np.abs(way @ normal) / np.sqrt(squared)
            light[rows] += power * facing / (squared + _NEAREST)
    whole = _AMBIENT + light[:, None] * _TINT
    return whole.reshape(centres.shape).astype(np.float32)
