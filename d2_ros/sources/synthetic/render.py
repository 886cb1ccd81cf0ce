"""From a pose to an image: ray casting with area sampling, then exposure and noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.sources.synthetic.textures import LEVELS, TEXEL, pyramid
from d2_ros.sources.synthetic.world import Plane, trace

SAMPLES = 4
"""Rays per pixel and axis; their mean is the light that the pixel collects."""

_BAND = 8  # rows rendered at a time, so that the arrays stay in the processor's cache
_PART = 2048  # edge pixels rendered at a time: cv2.remap takes fewer than 32767 rays in a row
_READ_NOISE = 1.0  # standard deviation, gray values
_SHOT_NOISE = 0.015  # variance per gray value of collected light


@dataclass(frozen=True)
class Scene:
    """Everything a rendering needs but the pose.

    Attributes
    ----------
    planes
        The world.
    textures
        The pyramid of each plane.
    rays
        ``(H, W, SAMPLES**2, 2)`` float32 bearings (x, y), spread over each pixel.
    centres
        ``(H, W, 3)`` float64 bearings of the pixels' centres.
    spacing
        Largest distance of neighbouring rays, bearing units.
    """

    planes: tuple[Plane, ...]
    textures: tuple[tuple[NDArray[np.uint8], ...], ...]
    rays: NDArray[np.float32]
    centres: NDArray[np.float64]
    spacing: float


def prepare(planes: tuple[Plane, ...], camera: Camera) -> Scene:
    """Paint the planes and undistort the rays of every pixel, once for all frames.

    A pixel's rays follow a triangle that reaches to the centres of its neighbours, the blur of
    a square pixel behind an equally wide blur of the lens: symmetric about the centre, so that
    the exact projection has no bias, and smooth enough not to alias.
    """
    share = (np.arange(SAMPLES) + 0.5) / SAMPLES  # quantiles of that triangle
    offsets = np.where(share < 0.5, np.sqrt(2 * share) - 1, 1 - np.sqrt(2 - 2 * share))
    grid = np.empty((camera.height, camera.width, SAMPLES, SAMPLES, 2))
    grid[..., 0] = (np.arange(camera.width)[:, None] + offsets)[None, :, None, :]
    grid[..., 1] = (np.arange(camera.height)[:, None] + offsets)[:, None, :, None]
    rays = camera.bearings(grid.reshape(-1, 2))[:, :2].astype(np.float32)
    rays = rays.reshape(camera.height, camera.width, SAMPLES**2, 2)
    centres = np.dstack([rays.mean(axis=2), np.ones(rays.shape[:2])])
    return Scene(
        planes,
        tuple(pyramid(plane) for plane in planes),
        rays,
        centres,
        float(np.diff(offsets).max()) / camera.focal,
    )


def radiance(scene: Scene, T_world_camera: NDArray[np.float64]) -> NDArray[np.float32]:
    """Render one instant without noise.

    Pixels far from any edge see one plane only; the few others trace every ray.

    Parameters
    ----------
    scene
        Of :func:`prepare`.
    T_world_camera
        ``(4, 4)`` pose.

    Returns
    -------
    ``(H, W, 3)`` float32 BGR, 0 to 255: the mean over each pixel's rays.
    """
    height, width = scene.rays.shape[:2]
    index, _ = trace(scene.planes, T_world_camera, scene.centres.reshape(-1, 3))
    index = index.reshape(height, width).astype(np.int16)
    square = np.ones((3, 3), np.uint8)
    whole = (cv2.erode(index, square) == cv2.dilate(index, square)) & (index >= 0)
    image = np.zeros((height, width, 3), np.float32)
    for top in range(0, height, _BAND):
        band = slice(top, top + _BAND)
        for k in np.unique(index[band][whole[band]]):
            mask = (index[band] == k) & whole[band]
            image[band][mask] = _colours(scene, k, T_world_camera, scene.rays[band][mask])
    rows, columns = np.nonzero(~whole)
    for part in range(0, len(rows), _PART):
        place = rows[part : part + _PART], columns[part : part + _PART]
        image[place] = _mixed_colours(scene, T_world_camera, scene.rays[place])
    return image


def _mixed_colours(
    scene: Scene, T_world_camera: NDArray[np.float64], rays: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Mean colours ``(N, 3)`` of pixels whose ``(N, S, 2)`` rays may meet several planes."""
    flat = rays.reshape(-1, 2)
    bearings = np.column_stack([flat.astype(np.float64), np.ones(len(flat))])
    index, _ = trace(scene.planes, T_world_camera, bearings)
    colours = np.zeros((len(flat), 3), np.float32)
    for k in np.unique(index[index >= 0]):
        met = index == k
        colours[met] = _colours(scene, k, T_world_camera, flat[met, None])
    return colours.reshape(*rays.shape[:2], 3).mean(axis=1)


def _colours(
    scene: Scene, k: int, T_world_camera: NDArray[np.float64], rays: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Mean colours ``(N, 3)`` of plane `k` where ``(N, S, 2)`` rays meet it.

    The pyramid level is chosen per pixel such that neighbouring rays are at most about a texel
    apart along the more stretched direction, so that they miss no detail.
    """
    H = scene.planes[k].homography(T_world_camera).astype(np.float32)
    x, y = rays[..., 0], rays[..., 1]
    a, b, inverse_depth = (row[0] * x + row[1] * y + row[2] for row in H)
    a /= inverse_depth
    b /= inverse_depth
    # The derivative of (a, b) by x and by y, times the spacing: texels between two rays.
    by_x = np.hypot(H[0, 0] - a[:, 0] * H[2, 0], H[1, 0] - b[:, 0] * H[2, 0])
    by_y = np.hypot(H[0, 1] - a[:, 0] * H[2, 1], H[1, 1] - b[:, 0] * H[2, 1])
    texels = np.maximum(by_x, by_y) / np.abs(inverse_depth[:, 0]) * (scene.spacing / TEXEL)
    level = np.clip(np.ceil(np.log2(texels)), 0, LEVELS - 1).astype(int)
    colours = np.empty((len(rays), 3), np.float32)
    for chosen in np.unique(level):
        texture, rows = scene.textures[k][chosen], level == chosen
        columns = a[rows] * np.float32(texture.shape[1] / scene.planes[k].size[0]) - 0.5
        lines = b[rows] * np.float32(texture.shape[0] / scene.planes[k].size[1]) - 0.5
        seen = cv2.remap(texture, columns, lines, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        colours[rows] = cv2.reduce(seen, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[:, 0]
    return colours


def expose(
    light: NDArray[np.float32],
    rng: np.random.Generator,
    gain: float = 1.0,
    gamma: float = 1.0,
    bias: float = 0.0,
    amplification: float = 1.0,
) -> NDArray[np.uint8]:
    """Turn light into the 8-bit image of a camera with shot and read noise.

    Parameters
    ----------
    light
        Radiance, 0 to 255.
    rng
        Draws the noise.
    gain, gamma, bias
        The camera's response: ``255 (gain light / 255) ** gamma + bias``, gray values.
    amplification
        Of what the sensor has collected, its noise included.

    Returns
    -------
    uint8 of the shape of `light`.
    """
    collected = light * np.float32(gain)
    deviation = np.sqrt(_READ_NOISE**2 + _SHOT_NOISE * collected)
    noisy = collected + deviation * rng.standard_normal(light.shape, np.float32)
    noisy *= np.float32(amplification)
    answer = 255 * np.clip(noisy / 255, 0, 1) ** np.float32(gamma) + np.float32(bias)
    return np.clip(np.rint(answer), 0, 255).astype(np.uint8)
