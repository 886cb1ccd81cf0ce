"""How a map begins: two keyframes with parallax (essential matrix, OpenCV), or a stereo pair."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d2_ros.mapper.config import MapperConfig
from d2_ros.mapper.geometry import depth_errors, inverse, parallax, triangulate
from d2_ros.mapper.observations import Table, View, table_of
from d2_ros.two_view import essential_pose


def two_view_start(
    first: View, second: View, config: MapperConfig, focal: float
) -> NDArray[np.float64] | None:
    """Relative pose of two keyframes, if a map can begin with them.

    Parameters
    ----------
    first, second
        In time order.
    config
        Thresholds.
    focal
        px, of what is said in pixels.

    Returns
    -------
    ``(4, 4)`` ``T_first_second`` with a translation of length 1; None where the tracks that both
    see are too few, have no parallax, as when the camera stands or only turns, or agree on no
    motion that puts enough of them in front of both, at depths that are certain enough.
    """
    first, second = first.select(first.eyes == 0), second.select(second.eyes == 0)
    _, a, b = np.intersect1d(first.ids, second.ids, assume_unique=True, return_indices=True)
    rays, rays_second = first.rays[a], second.rays[b]
    if len(rays) < config.start_points or parallax(rays, rays_second) < config.start_parallax:
        return None
    moved = essential_pose(rays, rays_second, config.max_error / focal / 2)
    if moved is None:
        return None
    pose = inverse(moved)
    table = table_of([first, second])
    poses = np.stack([np.eye(4), pose])
    return pose if _certain(table, poses[table.view], config, focal) else None


def stereo_start(view: View, rig: NDArray[np.float64], config: MapperConfig, focal: float) -> bool:
    """Whether a map can begin with one view of a pair of cameras, ``(2, 4, 4)`` T_body_camera."""
    table = table_of([view])
    return len(table.ids) > 0 and _certain(table, rig[table.eye], config, focal)


def _certain(
    table: Table, cameras: NDArray[np.float64], config: MapperConfig, focal: float
) -> bool:
    """Whether enough tracks have a place where both rays say, of a depth that is certain enough."""
    points = triangulate(table, cameras)
    right = table.sums((points.distances < config.max_error / focal).astype(np.float64)) == 2
    sure = depth_errors(points.places, points.covariances, cameras[-1, :3, 3])
    return np.count_nonzero(right & (sure < config.max_depth_error)) >= config.start_points
