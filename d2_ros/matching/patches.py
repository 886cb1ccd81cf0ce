"""Image pyramids and patches sampled from them at sub-pixel places."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

Pyramid = tuple[torch.Tensor, ...]
"""Grey images ``(1, 1, h, w)`` float32, each half the last; pixel p of level 0 is p / 2**l."""

_BINOMIAL = (0.25, 0.5, 0.25)
SMOOTHING_ENERGY = sum(weight**2 for weight in _BINOMIAL) ** 2
"""Variance of white noise after the smoothing of :func:`build_pyramid`, per unit."""


def grey(image: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.float32]:
    """Grey values 0 to 255 of a grey or BGR image of 8 or 16 bits."""
    plane = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image
    scale = 1 / 257 if plane.dtype == np.uint16 else 1.0
    return plane.astype(np.float32) * np.float32(scale)


def build_pyramid(plane: NDArray[np.float32], levels: int, device: torch.device) -> Pyramid:
    """Smooth lightly, then halve `levels` - 1 times.

    The binomial smoothing keeps bilinear interpolation nearly free of bias: without it a
    patch sampled between pixels is blurrier than the one it is compared with.
    """
    kernel = torch.tensor(_BINOMIAL, device=device)
    half = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=device) / 16
    image = _separable(torch.from_numpy(plane).to(device)[None, None], kernel, 1)
    pyramid = [image]
    while len(pyramid) < levels and min(pyramid[-1].shape[2:]) >= 32:
        pyramid.append(_separable(pyramid[-1], half, 2))
    return tuple(pyramid)


def _separable(image: torch.Tensor, kernel: torch.Tensor, stride: int) -> torch.Tensor:
    radius = len(kernel) // 2
    padded = torch.nn.functional.pad(image, (radius,) * 4, mode="reflect")
    rows = torch.nn.functional.conv2d(padded, kernel.view(1, 1, 1, -1), stride=(1, stride))
    return torch.nn.functional.conv2d(rows, kernel.view(1, 1, -1, 1), stride=(stride, 1))


def smooth_patches(values: torch.Tensor) -> torch.Tensor:
    """Apply the smoothing of :func:`build_pyramid` to square patches ``(M, C, P)``."""
    side = int(values.shape[2] ** 0.5)
    kernel = torch.tensor(_BINOMIAL, device=values.device)
    images = values.reshape(-1, 1, side, side)
    images = torch.nn.functional.conv2d(images, kernel.view(1, 1, 1, -1), padding=(0, 2))
    images = torch.nn.functional.conv2d(images, kernel.view(1, 1, -1, 1), padding=(2, 0))
    return images.reshape(*values.shape[:2], -1)


def patch_grid(radius: int, device: torch.device) -> torch.Tensor:
    """Offsets (dx, dy) of a square patch, ``((2 r + 1)^2, 2)``, rows first."""
    line = torch.arange(-radius, radius + 1, dtype=torch.float32, device=device)
    dy, dx = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([dx.flatten(), dy.flatten()], 1)


def sample(image: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Bilinear values at `points`.

    Parameters
    ----------
    image
        ``(1, C, h, w)``.
    points
        ``(M, P, 2)`` pixels (u, v) of that image; outside, the border's value is taken.

    Returns
    -------
    ``(M, C, P)``.
    """
    height, width = image.shape[2:]
    size = torch.tensor([width - 1, height - 1], dtype=torch.float32, device=image.device)
    grid = points * (2 / size) - 1
    values = torch.nn.functional.grid_sample(
        image, grid[None], mode="bilinear", padding_mode="border", align_corners=True
    )
    return values[0].transpose(0, 1)


def inside(image: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Whether `points` ``(..., 2)`` lie between pixel centres of `image`."""
    height, width = image.shape[2:]
    u, v = points.unbind(-1)
    return (u >= 0) & (v >= 0) & (u <= width - 1) & (v <= height - 1)
