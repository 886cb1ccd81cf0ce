"""Image pyramids, and the patches that are cut from them once and aligned many times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

_SMOOTHING = (0.1, 0.8, 0.1)
SMOOTHING_ENERGY = sum(weight**2 for weight in _SMOOTHING) ** 2
"""Variance of white noise after the smoothing of :func:`build_pyramid`, per unit."""

_HALVING = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_LOBES = 4  # of the Lanczos kernel, to each side

_WINDOW_SIGMA = 0.5  # of the Gaussian window, in patch radii
_MIN_SPREAD = 1e-3  # grey values: a patch flatter than this has no texture at all
_DAMPING = 1e-3

_CHANNEL_CORRELATION = 8.0
"""By how much more the variance rises for several channels, whose errors are not independent;
measured (docs/algorithm.md, section 4)."""


def grey(image: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.float32]:
    """Grey values 0 to 255 of a grey or BGR image of 8 or 16 bits."""
    plane = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image
    scale = 1 / 257 if plane.dtype == np.uint16 else 1.0
    return plane.astype(np.float32) * np.float32(scale)


@dataclass(frozen=True)
class Level:
    """An image of C channels that is sampled between its pixels; a grey one has C = 1.

    Attributes
    ----------
    texels
        ``(1, C, h, w)`` float32 on the device; may be finer or coarser than the pixels.
    size
        (width, height), px.
    scale, shift
        ``(2,)``: pixel (u, v) times `scale` plus `shift` is its place in `texels`, from -1
        (centre of the first texel) to 1 (centre of the last).
    """

    texels: torch.Tensor
    size: tuple[int, int]
    scale: torch.Tensor
    shift: torch.Tensor

    @property
    def device(self) -> torch.device:
        """Where the texels are."""
        return self.texels.device

    @property
    def channels(self) -> int:
        """C."""
        return self.texels.shape[1]


Pyramid = tuple[Level, ...]
"""Levels, each half the size of the last; pixel p of level 0 is p / 2**l in level l."""


def build_pyramid(plane: NDArray[np.float32], levels: int, device: torch.device) -> Pyramid:
    """Halve an image `levels` - 1 times; double the texels of the first level.

    Texels twice as fine as pixels, interpolated by a Lanczos kernel, keep the bilinear
    interpolation between them free of error. Interpolated between pixels, a patch is blurrier
    than the one it is compared with by an amount that depends on its place, which moves
    high-contrast corners by up to 0.2 px.
    """
    image = torch.from_numpy(plane).to(device)[None, None]
    pyramid = [_doubled(smooth(image))]
    while len(pyramid) < levels and min(image.shape[2:]) >= 32:
        image = halve(image)
        pyramid.append(_level(image, 1))
    return tuple(pyramid)


def smooth(image: torch.Tensor) -> torch.Tensor:
    """Smooth ``(1, C, h, w)`` lightly."""
    return _filter(_filter(image, _SMOOTHING, 3), _SMOOTHING, 2)


def halve(image: torch.Tensor) -> torch.Tensor:
    """Halve ``(1, C, h, w)``; texel i is texel 2 i of the image, smoothed."""
    return _filter(_filter(image, _HALVING, 3, 2), _HALVING, 2, 2)


def _doubled(image: torch.Tensor) -> Level:
    """The level whose texels lie a quarter of a pixel to each side of every pixel's centre."""
    texels = image
    for axis in (2, 3):
        sides = [_filter(texels, _lanczos(shift), axis) for shift in (-0.25, 0.25)]
        texels = torch.stack(sides, axis + 1).flatten(axis, axis + 1)
    return _level(texels, 2)


@lru_cache(maxsize=2)
def _lanczos(shift: float) -> tuple[float, ...]:
    """Weights of the pixels -4 to 4 around a place `shift` px from a pixel's centre."""
    taps = np.arange(-_LOBES, _LOBES + 1)
    distance = taps - shift
    weights = np.sinc(distance) * np.sinc(distance / _LOBES) * (np.abs(distance) < _LOBES)
    # A windowed sinc does not quite reproduce ramps, which would move edges: correct that.
    moments = np.vstack([np.ones(len(taps)), taps])
    weights += np.linalg.pinv(moments) @ ([1.0, shift] - moments @ weights)
    return tuple(weights.tolist())


def _level(texels: torch.Tensor, fine: int) -> Level:
    height, width = texels.shape[2:]
    last = torch.tensor([width - 1, height - 1], device=texels.device)
    # Pixel p has its centre at texel fine * p + (fine - 1) / 2.
    size = (width // fine, height // fine)
    return Level(texels, size, 2 * fine / last, (fine - 1) / last - 1)


def _filter(
    image: torch.Tensor, weights: Sequence[float], axis: int, stride: int = 1
) -> torch.Tensor:
    """Correlate along an axis of ``(1, C, h, w)``: a few sums of shifted images."""
    radius = len(weights) // 2
    margins = (radius, radius, 0, 0) if axis == 3 else (0, 0, radius, radius)
    padded = torch.nn.functional.pad(image, margins, mode="reflect")
    steps = (slice(None),) * axis + (slice(None, None, stride),)
    views = [padded.narrow(axis, k, image.shape[axis])[steps] for k in range(len(weights))]
    total = views[0] * weights[0]
    for view, weight in zip(views[1:], weights[1:], strict=True):
        total.add_(view, alpha=weight)
    return total


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
    """N patches of one image at one pyramid level, ready to be aligned; on the device.

    K is the number of values of a patch: those of its P pixels, channel after channel.

    Attributes
    ----------
    values
        ``(N, K)``, in every channel of zero mean and unit variance under `weight`.
    gradient
        ``(N, 2, K)`` of `values`, per px.
    weight
        ``(N, K)`` Gaussian window times the channel's share, zero outside the image.
    influence
        ``(N, 6, K)``: a residual times this is the Gauss-Newton step of the warp (shift,
        then affine part).
    spread
        ``(N,)`` grey values per unit of `values`; of several channels the root mean square.
    correlation
        ``(N,)`` by how much the smoothing of the image raises the variance of a position
        above that under white noise of the same size.
    """

    values: torch.Tensor
    gradient: torch.Tensor
    weight: torch.Tensor
    influence: torch.Tensor
    spread: torch.Tensor
    correlation: torch.Tensor

    def __len__(self) -> int:
        return len(self.values)

    def select(self, rows: torch.Tensor) -> Patches:
        """The patches of `rows`."""
        return Patches(*(column[rows] for column in vars(self).values()))


def gather(parts: Sequence[tuple[Patches, torch.Tensor]]) -> Patches:
    """The patches of some rows of several images, in order."""
    picked = [patches.select(rows.to(patches.values.device)) for patches, rows in parts]
    columns = zip(*(vars(patches).values() for patches in picked), strict=True)
    return Patches(*(torch.cat(column) for column in columns))


def cut(pyramid: Pyramid, centres: NDArray[np.float64], radius: int) -> tuple[Patches, ...]:
    """Cut patches around places of an image, at every level of its pyramid.

    Parameters
    ----------
    pyramid
        Of the image.
    centres
        ``(N, 2)`` px; patches that reach over the border weigh nothing there.
    radius
        Of the patch, px of each level.
    """
    centre = torch.from_numpy(np.ascontiguousarray(centres, np.float32)).to(pyramid[0].device)
    return tuple(_cut(image, centre / 2**level, radius) for level, image in enumerate(pyramid))


def _cut(image: Level, centre: torch.Tensor, radius: int) -> Patches:
    shape = disc(radius, image.device)
    side, pixels = 2 * radius + 3, len(shape.offsets)
    square = sample(image, (centre[:, None] + patch_grid(radius + 1, image.device)))
    square = square.view(-1, side, side)  # a row per patch and channel
    dx = ((square[:, 1:-1, 2:] - square[:, 1:-1, :-2]) / 2).flatten(1)[:, shape.cells]
    dy = ((square[:, 2:, 1:-1] - square[:, :-2, 1:-1]) / 2).flatten(1)[:, shape.cells]
    core = square[:, 1:-1, 1:-1].flatten(1)[:, shape.cells]
    weight = shape.window * inside(image, centre[:, None] + shape.offsets)
    weight = per_channel(weight, image.channels)
    mean, spread = moments(core, weight.view(-1, pixels))
    core = (core - mean[:, None]) / spread[:, None]
    gradient = torch.stack([dx, dy], 1) / spread[:, None, None]
    if image.channels > 1:
        shares = spread.view(-1, image.channels) ** 2
        spread = shares.mean(1).sqrt()
        shares = shares / shares.sum(1, keepdim=True)
        weight = (weight.view(*shares.shape, pixels) * shares[:, :, None]).flatten(1)
        core = core.view(len(centre), -1)
        gradient = gradient.view(len(centre), -1, 2, pixels).transpose(1, 2).flatten(2)
    weighted, inverse = normal_equations(core, gradient, weight, shape)
    influence = inverse[:, :6] @ weighted
    correlation = _noise_correlation(influence[:, :2], shape)
    if image.channels > 1:
        correlation = correlation * _CHANNEL_CORRELATION
    return Patches(core, gradient, weight, influence, spread, correlation)


def per_channel(values: torch.Tensor, channels: int) -> torch.Tensor:
    """Repeat what holds for every pixel for every channel, ``(M, P)`` -> ``(M, C P)``."""
    return values if channels == 1 else values.repeat(1, channels)


def normal_equations(
    values: torch.Tensor, gradient: torch.Tensor, weight: torch.Tensor, shape: Disc
) -> tuple[torch.Tensor, torch.Tensor]:
    """Least squares of a residual over shift, affine part, gain and bias.

    Parameters
    ----------
    values, gradient, weight
        ``(M, K)``, ``(M, 2, K)`` and ``(M, K)``, as in :class:`Patches`.
    shape
        The places of the P pixels.

    Returns
    -------
    weighted
        ``(M, 8, K)`` transposed Jacobian times weights.
    inverse
        ``(M, 8, 8)`` of the (slightly damped) Hessian.
    """
    dx, dy = gradient.unbind(1)
    x, y = per_channel(shape.offsets.T, values.shape[1] // len(shape.offsets))
    rows = [dx, dy, dx * x, dx * y, dy * x, dy * y, values, torch.ones_like(values)]
    jacobian = torch.stack(rows, 1)
    weighted = jacobian * weight[:, None]
    hessian = weighted @ jacobian.transpose(1, 2)
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    return weighted, torch.linalg.inv(hessian + torch.diag_embed(_DAMPING * diagonal + 1e-6))


def _noise_correlation(influence: torch.Tensor, shape: Disc) -> torch.Tensor:
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
    return mean, variance.sqrt().clamp(min=_MIN_SPREAD)


def smooth_patches(values: torch.Tensor) -> torch.Tensor:
    """Apply the smoothing of :func:`build_pyramid` to square patches ``(M, C, P)``."""
    side = int(values.shape[2] ** 0.5)
    edge, middle, _ = _SMOOTHING
    images = torch.nn.functional.pad(values.unflatten(2, (side, side)), (1, 1, 1, 1))
    rows = middle * images[..., 1:-1] + edge * (images[..., 2:] + images[..., :-2])
    both = middle * rows[..., 1:-1, :] + edge * (rows[..., 2:, :] + rows[..., :-2, :])
    return both.flatten(2)


def sample(level: Level, points: torch.Tensor) -> torch.Tensor:
    """Values at `points` ``(M, P, 2)``, px of the level; outside, the border's -> ``(M, C P)``."""
    return sample_grid(level, points * level.scale + level.shift)


def sample_grid(level: Level, places: torch.Tensor) -> torch.Tensor:
    """Like :func:`sample`, at places from -1 (first texel) to 1 (last texel)."""
    # On the CPU this kernel is parallel over the batch only, so the places go in as halves.
    halves = 2 if len(places) % 2 == 0 else 1
    values = torch.nn.functional.grid_sample(
        level.texels.expand(halves, -1, -1, -1),
        places.unflatten(0, (halves, -1)),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return values.transpose(1, 2).reshape(len(places), level.channels * places.shape[1])


def inside(level: Level, points: torch.Tensor) -> torch.Tensor:
    """Whether `points` ``(..., 2)`` lie between pixel centres of the level."""
    width, height = level.size
    u, v = points.unbind(-1)
    return (u >= 0) & (v >= 0) & (u <= width - 1) & (v <= height - 1)
