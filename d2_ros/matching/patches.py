"""Patches that are cut from image pyramids once and aligned many times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import torch

from d2_ros.matching.pyramid import SMOOTHING_ENERGY, smooth_patches

_WINDOW_SIGMA = 0.5  # of the Gaussian window, in patch radii
MIN_SPREAD = 1e-3  # gray values: a patch flatter than this has no texture at all
DAMPING = 1e-3
"""Share of its diagonal that is added to the Hessian of a patch."""

_CHANNEL_CORRELATION = 8.0
"""By how much more the variance rises for several channels, whose errors are not independent;
measured (docs/algorithm.md, section 4)."""

_Some = TypeVar("_Some", bound="Patches")


@dataclass(frozen=True)
class Disc:
    """The pixels of a round patch: every second one, as on a chessboard, within its radius.

    A large thin patch says more than a small full one of as many pixels.

    Attributes
    ----------
    radius
        px.
    offsets
        ``(P, 2)`` float32 (dx, dy) from the centre, px.
    homogeneous
        ``(3, P)`` rows 1, dx, dy.
    window
        ``(P,)`` Gaussian weights: the rim counts an eighth of the centre.
    cells
        ``(P,)`` place of each pixel in the square patch, rows first.
    """

    radius: int
    offsets: torch.Tensor
    homogeneous: torch.Tensor
    window: torch.Tensor
    cells: torch.Tensor


@lru_cache(maxsize=16)
def disc(radius: int, device: torch.device) -> Disc:
    """The round patch of that radius."""
    grid = patch_grid(radius, device)
    squared = (grid**2).sum(1)
    black = grid.sum(1).remainder(2) == 0
    cells = torch.nonzero(black & (squared <= (radius + 0.5) ** 2))[:, 0]
    window = torch.exp(-squared[cells] / (2 * (_WINDOW_SIGMA * radius) ** 2))
    offsets = grid[cells]
    homogeneous = torch.cat([torch.ones_like(offsets[:, :1]), offsets], 1).T.contiguous()
    return Disc(radius, offsets, homogeneous, window, cells)


def patch_grid(radius: int, device: torch.device) -> torch.Tensor:
    """Offsets (dx, dy) of a square patch, ``((2 r + 1)^2, 2)``, rows first."""
    line = torch.arange(-radius, radius + 1, dtype=torch.float32, device=device)
    dy, dx = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([dx.flatten(), dy.flatten()], 1)


@dataclass(frozen=True)
class Patches:
    """N patches of one image at one pyramid level; on the device.

    K is the number of values of a patch: those of its P pixels, channel after channel.

    Attributes
    ----------
    values
        ``(N, K)``, in every channel of zero mean and unit variance under `weight`.
    gradient
        ``(N, 2, K)`` of `values`, per px.
    weight
        ``(N, K)`` Gaussian window times the channel's share, zero outside the image.
    spread
        ``(N,)`` gray values per unit of `values`; of several channels the root mean square.
    """

    values: torch.Tensor
    gradient: torch.Tensor
    weight: torch.Tensor
    spread: torch.Tensor

    def __len__(self) -> int:
        return len(self.values)

    def select(self: _Some, rows: torch.Tensor) -> _Some:
        """The patches of `rows`."""
        return type(self)(*(column[rows] for column in vars(self).values()))


@dataclass(frozen=True)
class Templates(Patches):
    """Patches that say how surely something can be aligned with them.

    Attributes
    ----------
    noise
        ``(N, 2, 2)`` px^2: covariance of the place, per unit of the residual's variance.
    """

    noise: torch.Tensor


def gather(parts: Sequence[tuple[Templates, torch.Tensor]]) -> Templates:
    """The patches of some rows (on their device) of several images, in order."""
    count = sum(len(rows) for _, rows in parts)
    columns = []
    for name, column in vars(parts[0][0]).items():
        gathered = column.new_empty((count, *column.shape[1:]))
        begin = 0
        for patches, rows in parts:  # straight to their place: there is much to copy
            place = gathered[begin : begin + len(rows)]
            torch.index_select(getattr(patches, name), 0, rows, out=place)
            begin += len(rows)
        columns.append(gathered)
    return Templates(*columns)


def per_channel(values: torch.Tensor, channels: int) -> torch.Tensor:
    """Repeat what holds for every pixel for every channel, ``(M, P)`` -> ``(M, C P)``."""
    return values if channels == 1 else values.repeat(1, channels)


def normal_equations(
    patches: Patches, weight: torch.Tensor, shape: Disc
) -> tuple[torch.Tensor, torch.Tensor]:
    """Least squares of a residual over shift, affine part, gain and bias.

    Parameters
    ----------
    patches
        M patches of K values.
    weight
        ``(M, K)``, theirs or another.
    shape
        The places of the P pixels.

    Returns
    -------
    weighted
        ``(M, 8, K)`` transposed Jacobian times weights.
    inverse
        ``(M, 8, 8)`` of the (slightly damped) Hessian.
    """
    dx, dy = patches.gradient.unbind(1)
    x, y = per_channel(shape.offsets.T, dx.shape[1] // len(shape.offsets))
    rows = [dx, dy, dx * x, dx * y, dy * x, dy * y, patches.values, torch.ones_like(dx)]
    jacobian = torch.stack(rows, 1)
    weighted = jacobian * weight[:, None]
    hessian = weighted @ jacobian.transpose(1, 2)
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    # Damped, it has an inverse: to ask the GPU whether it has found one would be to wait for it.
    damped = hessian + torch.diag_embed(DAMPING * diagonal + 1e-6)
    return weighted, torch.linalg.inv_ex(damped).inverse


def noise(patches: Patches, shape: Disc) -> torch.Tensor:
    """Covariance of a place per unit of the residual's variance, ``(M, 2, 2)``."""
    weighted, inverse = normal_equations(patches, patches.weight, shape)
    influence = inverse[:, :2] @ weighted  # of the residual on the shift
    correlation = _noise_correlation(influence, shape)
    if influence.shape[2] > len(shape.offsets):
        correlation = correlation * _CHANNEL_CORRELATION
    return influence @ influence.transpose(1, 2) * correlation[:, None, None]


def _noise_correlation(influence: torch.Tensor, shape: Disc) -> torch.Tensor:
    """By how much the smoothing of the image raises a variance above that of white noise."""
    # Smoothed images have correlated noise: what a raw pixel's noise does to the place is the
    # smoothed influence, and the raw variance is the smoothed one over the kernel's energy.
    channels = influence.unflatten(2, (-1, len(shape.cells))).flatten(1, 2)
    square = influence.new_zeros(*channels.shape[:2], (2 * shape.radius + 1) ** 2)
    square[:, :, shape.cells] = channels
    smooth = smooth_patches(square)
    return (smooth**2).sum((1, 2)) / (influence**2).sum((1, 2)).clamp(min=1e-12) / SMOOTHING_ENERGY


def moments(values: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted mean and standard deviation of every row, ``(M,)`` each."""
    total = weight.sum(1).clamp(min=1e-6)
    mean = (weight * values).sum(1) / total
    variance = (weight * (values - mean[:, None]) ** 2).sum(1) / total
    return mean, variance.sqrt().clamp(min=MIN_SPREAD)
