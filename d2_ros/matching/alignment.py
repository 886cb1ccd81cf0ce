"""Two-view patch alignment: the local transform T_ij of every match.

Affine inverse-compositional Lucas-Kanade with gain and bias (Baker and Matthews, IJCV 2004),
batched over all matches of a frame. A patch of a keyframe is the template; the warp
``x(d) = pixels + affine @ d`` places its offsets d in the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.config import AlignmentConfig
from d2_ros.matching.patches import (
    SMOOTHING_ENERGY,
    Pyramid,
    inside,
    patch_grid,
    sample,
    smooth_patches,
)

_MIN_VALID = 0.6  # share of a patch's weight that must lie inside both images
_DAMPING = 1e-3
_CONVERGED = 0.01  # px of the level


@dataclass(frozen=True)
class Warps:
    """Where template patches lie in a frame.

    Attributes
    ----------
    pixels
        ``(M, 2)`` float64, px: where the template's centre lies.
    affine
        ``(M, 2, 2)`` float64: template offsets -> frame offsets.
    """

    pixels: NDArray[np.float64]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.pixels.shape != (len(self.affine), 2) or self.affine.shape[1:] != (2, 2):
            raise ValueError("pixels must be (M, 2) and affine (M, 2, 2)")


@dataclass(frozen=True)
class Alignment:
    """Measured transforms of M matches.

    Attributes
    ----------
    warps
        The transforms.
    covariance
        ``(M, 2, 2)`` float64, px^2 of the frame: of ``warps.pixels`` relative to the template.
    correlation
        ``(M,)`` zero-normalised cross-correlation of the aligned patches, -1 to 1.
    forward_backward
        ``(M,)`` px of the template: distance from the start after the way back.
    accepted
        ``(M,)`` bool: passed every gate.
    """

    warps: Warps
    covariance: NDArray[np.float64]
    correlation: NDArray[np.float64]
    forward_backward: NDArray[np.float64]
    accepted: NDArray[np.bool_]


def align(
    templates: Sequence[Pyramid],
    target: Pyramid,
    template_of: NDArray[np.int64],
    centres: NDArray[np.float64],
    starts: Sequence[Warps],
    config: AlignmentConfig,
) -> Alignment:
    """Align patches of the template images in the target image.

    Parameters
    ----------
    templates, target
        Pyramids on one device.
    template_of
        ``(M,)`` index into `templates`.
    centres
        ``(M, 2)`` patch centres in their template image, px.
    starts
        Places to start from, the keypoint's own first; of each match the one that looks most
        alike is taken.
    config
        Patch size, iterations and gates.
    """
    device = target[0].device
    which = torch.from_numpy(np.ascontiguousarray(template_of, np.int64)).to(device)
    centre = _tensor(centres, device)
    top = min(config.levels, *(len(pyramid) for pyramid in (target, *templates))) - 1
    patches = _cut(templates, which, centre, top, config.patch_radius)
    begin = _best_start(patches, target[top], starts, top)
    fit = _track(patches, target[top], begin, top, config.max_iterations)
    for level in reversed(range(top)):
        patches = _cut(templates, which, centre, level, config.patch_radius)
        fit = _track(patches, target[level], fit, level, config.max_iterations)
    back = _way_back(templates, target, which, centre, fit, config)
    move = (fit.pixels - _tensor(starts[0].pixels, device)).norm(dim=1)
    sigma = _largest_sigma(fit.covariance)
    accepted = (
        fit.valid
        & (move <= config.max_move)
        & (back <= config.max_forward_backward)
        & (fit.correlation >= config.min_correlation)
        & (sigma <= config.max_sigma)
    )
    return Alignment(
        Warps(_array(fit.pixels), _array(fit.affine)),
        _array(fit.covariance),
        _array(fit.correlation),
        _array(back),
        accepted.cpu().numpy(),
    )


def predicted_sigma(
    pyramid: Pyramid, centres: NDArray[np.float64], radius: int, noise: float = 2.0
) -> NDArray[np.float64]:
    """Largest standard deviation (px) with which a patch could be aligned to its like.

    The aperture problem before it happens: from the patch's own gradients and an assumed
    `noise` of grey values. Patches without texture give infinity.
    """
    centre = _tensor(centres, pyramid[0].device)
    which = torch.zeros(len(centre), dtype=torch.int64, device=centre.device)
    patches = _cut([pyramid], which, centre, 0, radius)
    weighted = patches.jacobian[:, :, :2] * patches.weight[:, :, None]
    hessian = weighted.transpose(1, 2) @ patches.jacobian[:, :, :2]
    trace = hessian.diagonal(dim1=1, dim2=2).sum(1)
    smallest = trace / 2 - (trace**2 / 4 - torch.linalg.det(hessian)).clamp(min=0).sqrt()
    # The Jacobian is of normalised grey values: scale the noise alike.
    return _array(noise / patches.spread / smallest.clamp(min=1e-12).sqrt())


@dataclass(frozen=True)
class _Patches:
    values: torch.Tensor  # (M, P), zero mean, unit weighted variance
    jacobian: torch.Tensor  # (M, P, 8): 6 of the warp, gain, bias
    weight: torch.Tensor  # (M, P)
    spread: torch.Tensor  # (M,) grey values per unit of `values`


@dataclass(frozen=True)
class _Start:
    pixels: torch.Tensor
    affine: torch.Tensor


@dataclass(frozen=True)
class _Fit(_Start):
    covariance: torch.Tensor
    correlation: torch.Tensor
    valid: torch.Tensor


def _tensor(values: NDArray[np.float64], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device)


def _array(values: torch.Tensor) -> NDArray[np.float64]:
    return values.double().cpu().numpy()


def _window(grid: torch.Tensor, radius: int) -> torch.Tensor:
    """Gaussian weights: the centre counts most, the corners a fiftieth."""
    return torch.exp(-(grid**2).sum(1) / (2 * (0.5 * radius) ** 2))


def _cut(
    templates: Sequence[Pyramid], which: torch.Tensor, centre: torch.Tensor, level: int, radius: int
) -> _Patches:
    """Sample template patches with their gradients at one pyramid level."""
    grid = patch_grid(radius + 1, centre.device)
    side = 2 * radius + 3
    values = torch.empty(len(centre), side, side, device=centre.device)
    weight = torch.empty(len(centre), (side - 2) ** 2, device=centre.device)
    inner = patch_grid(radius, centre.device)
    for index, pyramid in enumerate(templates):
        rows = which == index
        middle = centre[rows, None] / 2**level
        values[rows] = sample(pyramid[level], middle + grid)[:, 0].view(-1, side, side)
        weight[rows] = inside(pyramid[level], middle + inner).float()
    weight *= _window(inner, radius)
    dx = (values[:, 1:-1, 2:] - values[:, 1:-1, :-2]).flatten(1) / 2
    dy = (values[:, 2:, 1:-1] - values[:, :-2, 1:-1]).flatten(1) / 2
    core = values[:, 1:-1, 1:-1].flatten(1)
    mean, spread = _moments(core, weight)
    core = (core - mean[:, None]) / spread[:, None]
    dx, dy = dx / spread[:, None], dy / spread[:, None]
    x, y = inner[:, 0], inner[:, 1]
    ones = torch.ones_like(core)
    jacobian = torch.stack([dx, dy, dx * x, dx * y, dy * x, dy * y, core, ones], 2)
    return _Patches(core, jacobian, weight, spread)


def _moments(values: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    total = weight.sum(1).clamp(min=1e-6)
    mean = (weight * values).sum(1) / total
    variance = (weight * (values - mean[:, None]) ** 2).sum(1) / total
    return mean, variance.sqrt().clamp(min=1e-3)


def _best_start(
    patches: _Patches, image: torch.Tensor, starts: Sequence[Warps], level: int
) -> _Start:
    """Of several starts of each match, the one with the smallest residual."""
    fits = [
        _Start(_tensor(w.pixels, image.device), _tensor(w.affine, image.device)) for w in starts
    ]
    if len(fits) == 1:
        return fits[0]
    grid = patch_grid((int(patches.values.shape[1] ** 0.5) - 1) // 2, image.device)
    energies = []
    for fit in fits:
        residual, weight, _ = _residual(patches, image, fit.pixels / 2**level, fit.affine, grid)
        energies.append((weight * residual**2).sum(1) / weight.sum(1).clamp(min=1e-6))
    best = torch.stack(energies).argmin(0)
    rows = torch.arange(len(best), device=image.device)
    pixels = torch.stack([fit.pixels for fit in fits])[best, rows]
    affine = torch.stack([fit.affine for fit in fits])[best, rows]
    return _Start(pixels, affine)


def _track(
    patches: _Patches, image: torch.Tensor, start: _Start, level: int, iterations: int
) -> _Fit:
    """Gauss-Newton on one level; patches that have converged drop out of the batch."""
    radius = (int(patches.values.shape[1] ** 0.5) - 1) // 2
    grid = patch_grid(radius, image.device)
    pixels, affine = start.pixels / 2**level, start.affine.clone()
    active = torch.arange(len(pixels), device=image.device)
    for _ in range(iterations):
        if len(active) == 0:
            break
        part = _select(patches, active)
        residual, weight, _ = _residual(part, image, pixels[active], affine[active], grid)
        hessian, gradient = _normal_equations(part.jacobian, weight, residual)
        step = torch.linalg.solve(hessian, gradient)
        inverse = _inverse2(torch.eye(2, device=image.device) + step[:, 2:6].view(-1, 2, 2))
        affine[active] = affine[active] @ inverse
        move = (affine[active] @ step[:, :2, None])[:, :, 0]
        pixels[active] -= move.clamp(-3, 3)
        active = active[move.norm(dim=1) > _CONVERGED]
    residual, weight, share = _residual(patches, image, pixels, affine, grid)
    covariance, correlation = _statistics(patches, residual, weight, affine)
    determinant = torch.linalg.det(affine)
    valid = (
        (share >= _MIN_VALID)
        & (determinant > 0.1)
        & (determinant < 10)
        & inside(image, pixels)
        & torch.isfinite(pixels).all(1)
    )
    return _Fit(pixels * 2**level, affine, covariance * 4**level, correlation, valid)


def _select(patches: _Patches, rows: torch.Tensor) -> _Patches:
    if len(rows) == len(patches.values):
        return patches
    return _Patches(
        patches.values[rows], patches.jacobian[rows], patches.weight[rows], patches.spread[rows]
    )


def _residual(
    patches: _Patches,
    image: torch.Tensor,
    pixels: torch.Tensor,
    affine: torch.Tensor,
    grid: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalised frame patch minus template, its weights, and the share of weight inside."""
    points = pixels[:, None] + grid @ affine.transpose(1, 2)
    values = sample(image, points)[:, 0]
    weight = patches.weight * inside(image, points)
    mean, spread = _moments(values, weight)
    share = weight.sum(1) / _window(grid, (int(len(grid) ** 0.5) - 1) // 2).sum()
    return (values - mean[:, None]) / spread[:, None] - patches.values, weight, share


def _normal_equations(
    jacobian: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    weighted = jacobian * weight[:, :, None]
    hessian = weighted.transpose(1, 2) @ jacobian
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    hessian = hessian + torch.diag_embed(_DAMPING * diagonal + 1e-6)
    return hessian, (weighted.transpose(1, 2) @ residual[:, :, None])[:, :, 0]


def _statistics(
    patches: _Patches, residual: torch.Tensor, weight: torch.Tensor, affine: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Covariance of the position in the frame, and the patches' correlation."""
    total = weight.sum(1).clamp(min=1e-6)
    energy = (weight * residual**2).sum(1) / total
    warped = residual + patches.values  # both have zero mean, and unit variance unless flat
    correlation = (weight * warped * patches.values).sum(1) / total
    hessian, _ = _normal_equations(patches.jacobian, weight, residual)
    weighted = (patches.jacobian * weight[:, :, None]).transpose(1, 2)
    influence = torch.linalg.solve(hessian, weighted)[:, :2]  # of each residual on the place
    # Smoothed images have correlated noise: what a raw pixel's noise does to the place is
    # the smoothed influence, and the raw variance is the smoothed one over the kernel's energy.
    spread = smooth_patches(influence)
    covariance = spread @ spread.transpose(1, 2) * (energy / SMOOTHING_ENERGY)[:, None, None]
    return affine @ covariance @ affine.transpose(1, 2), correlation


def _way_back(
    templates: Sequence[Pyramid],
    target: Pyramid,
    which: torch.Tensor,
    centre: torch.Tensor,
    fit: _Fit,
    config: AlignmentConfig,
) -> torch.Tensor:
    """Distance from the template's centre after aligning the other way."""
    none = torch.zeros_like(which)
    patches = _cut([target], none, fit.pixels, 0, config.patch_radius)
    inverse = _inverse2(fit.affine)
    distance = torch.full((len(which),), torch.inf, device=centre.device)
    for index, pyramid in enumerate(templates):
        rows = torch.nonzero(which == index)[:, 0]
        if len(rows):
            start = _Start(centre[rows], inverse[rows])
            back = _track(_select(patches, rows), pyramid[0], start, 0, 4)
            distance[rows] = (back.pixels - centre[rows]).norm(dim=1)
    return distance


def _inverse2(matrix: torch.Tensor) -> torch.Tensor:
    """Inverse of ``(M, 2, 2)``; of singular ones a large finite matrix that the gates refuse."""
    a, b, c, d = matrix.flatten(1).unbind(1)
    determinant = a * d - b * c
    determinant = torch.where(determinant.abs() < 1e-6, 1e-6, determinant)
    return torch.stack([d, -b, -c, a], 1).view(-1, 2, 2) / determinant[:, None, None]


def _largest_sigma(covariance: torch.Tensor) -> torch.Tensor:
    a, b, c = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    return ((a + c) / 2 + ((a - c) ** 2 / 4 + b**2).sqrt()).sqrt()
