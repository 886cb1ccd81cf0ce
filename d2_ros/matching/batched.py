"""The steps of an alignment on whole batches, in torch: any device, any number of channels."""

from __future__ import annotations

import torch

from d2_ros.matching.patches import (
    Disc,
    Patches,
    moments,
    normal_equations,
    patch_grid,
    per_channel,
)
from d2_ros.matching.pyramid import Level, inside, sample, sample_grid

CONVERGED = 0.03
"""px of the level: a step shorter than this is the last one."""

MAX_STEP = 3.0
"""px of the level, per axis."""

ROBUST = 1.5
"""Width of the kernel inside a patch, in standard deviations of its residual."""

MIN_WIDTH = 1e-4
"""Square of that width, at least."""

MIN_WEIGHT = 1e-6
"""Weight of a patch, at least; what is not seen at all must not divide by zero."""

_REPACK = 0.7  # a batch is packed anew when fewer than this share of it still moves


def track(
    patches: Patches,
    image: Level,
    pixels: torch.Tensor,
    affine: torch.Tensor,
    shape: Disc,
    iterations: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gauss-Newton on one level, until nothing moves any more.

    Parameters
    ----------
    patches
        M patches of K values.
    image
        The level to look in.
    pixels, affine
        ``(S, M, 2)`` px of the level and ``(S, M, 2, 2)``: S starts of every patch, of which the
        one that looks most alike is taken.

    Returns
    -------
    ``(M, 2)`` and ``(M, 2, 2)``.
    """
    place, shear = _best_start(patches, image, pixels, affine, shape)
    pixels, affine = place.clone(), shear.clone()
    weighted, inverse = normal_equations(patches, patches.weight, shape)
    influence = inverse[:, :6] @ weighted
    if image.device.type != "cpu":  # to look at what still moves would be to wait for the GPU
        return _track_all(patches, image, place, shear, influence, shape, iterations)
    active = torch.arange(len(pixels), device=image.device)
    for _ in range(iterations):
        difference, _ = residual(patches, image, place, shear, shape)
        place, shear, move = _compose(place, shear, _product(influence, difference))
        going = torch.nonzero(move > CONVERGED)[:, 0]
        if len(going) < _REPACK * len(active):
            pixels[active], affine[active] = place, shear
            if len(going) == 0:
                return pixels, affine
            active, patches, influence = active[going], patches.select(going), influence[going]
            place, shear = place[going], shear[going]
    pixels[active], affine[active] = place, shear
    return pixels, affine


def _track_all(
    patches: Patches,
    image: Level,
    place: torch.Tensor,
    shear: torch.Tensor,
    influence: torch.Tensor,
    shape: Disc,
    iterations: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """All the steps of all patches, of which each stays where it has converged."""
    moving = torch.ones_like(place[:, 0], dtype=torch.bool)
    for _ in range(iterations):
        difference, _ = residual(patches, image, place, shear, shape)
        there, turned, move = _compose(place, shear, _product(influence, difference))
        place = torch.where(moving[:, None], there, place)
        shear = torch.where(moving[:, None, None], turned, shear)
        moving = moving & (move > CONVERGED)
    return place, shear


def finish(
    patches: Patches, image: Level, pixels: torch.Tensor, affine: torch.Tensor, shape: Disc
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One step in which pixels that disagree, as of another surface, count less.

    Returns
    -------
    pixels, affine
        ``(M, 2)`` and ``(M, 2, 2)``.
    score
        ``(M, 3)``: mean squared residual, correlation, and weight of the pixels that are seen.
    """
    difference, weight = residual(patches, image, pixels, affine, shape)
    energy = (weight * difference**2).sum(1) / weight.sum(1).clamp(min=MIN_WEIGHT)
    width = (ROBUST**2 * energy).clamp(min=MIN_WIDTH)
    robust = weight / (1 + difference**2 / width[:, None])
    pixels, affine, _ = _compose(pixels, affine, _solve(patches, robust, difference, shape))
    difference, weight = residual(patches, image, pixels, affine, shape)
    total = weight.sum(1)
    # Both patches have zero mean, and unit variance unless they are flat.
    product = weight * (difference + patches.values) * patches.values
    sums = torch.stack([(weight * difference**2).sum(1), product.sum(1)], 1)
    score = torch.cat([sums / total.clamp(min=MIN_WEIGHT)[:, None], total[:, None]], 1)
    return pixels, affine, score


def residual(
    patches: Patches, image: Level, pixels: torch.Tensor, affine: torch.Tensor, shape: Disc
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised patches of `image` minus `patches`, and their weights (0 outside the image).

    Both are ``(M, K)``.
    """
    # One matrix product places all pixels of all patches, axis by axis.
    warp = torch.cat(
        [(pixels * image.scale + image.shift)[:, :, None], affine * image.scale[:, None]], 2
    )
    places = (warp.view(-1, 3) @ shape.homogeneous).view(len(warp), 2, len(shape.offsets))
    values = sample_grid(image, places.transpose(1, 2))
    seen = places.abs().amax(1) <= 1
    weight = patches.weight * per_channel(seen, image.channels)
    rows = values.view(-1, seen.shape[1])  # one per patch and channel
    mean, spread = moments(rows, weight.view(rows.shape))
    values = ((rows - mean[:, None]) / spread[:, None]).view(weight.shape)
    return values - patches.values, weight


def _best_start(
    patches: Patches, image: Level, pixels: torch.Tensor, affine: torch.Tensor, shape: Disc
) -> tuple[torch.Tensor, torch.Tensor]:
    if len(pixels) == 1:
        return pixels[0], affine[0]
    energies = []
    for place, shear in zip(pixels, affine, strict=True):
        difference, weight = residual(patches, image, place, shear, shape)
        energies.append((weight * difference**2).sum(1) / weight.sum(1).clamp(min=MIN_WEIGHT))
    best = torch.stack(energies).argmin(0)
    rows = torch.arange(len(best), device=image.device)
    return pixels[best, rows], affine[best, rows]


def _solve(
    patches: Patches, weight: torch.Tensor, difference: torch.Tensor, shape: Disc
) -> torch.Tensor:
    """The weighted Gauss-Newton step ``(M, 6)`` (shift, then affine part) of a residual."""
    weighted, inverse = normal_equations(patches, weight, shape)
    return _product(inverse[:, :6], _product(weighted, difference))


def _compose(
    pixels: torch.Tensor, affine: torch.Tensor, step: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Undo a step of the template's warp: new warps, and how far they moved."""
    inverse = _inverse2(torch.eye(2, device=step.device) + step[:, 2:6].view(-1, 2, 2))
    affine = affine @ inverse
    move = (affine @ step[:, :2, None])[:, :, 0].clamp(-MAX_STEP, MAX_STEP)
    return pixels - move, affine, move.norm(dim=1)


def _product(matrix: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    return (matrix @ vector[:, :, None])[:, :, 0]


def _inverse2(matrix: torch.Tensor) -> torch.Tensor:
    """Inverse of ``(M, 2, 2)``; of singular ones a large finite matrix that the gates refuse."""
    a, b, c, d = matrix.flatten(1).unbind(1)
    determinant = a * d - b * c
    determinant = torch.where(determinant.abs() < 1e-6, 1e-6, determinant)
    return torch.stack([d, -b, -c, a], 1).view(-1, 2, 2) / determinant[:, None, None]


def cut(image: Level, centres: torch.Tensor, shape: Disc) -> Patches:
    """Cut patches around ``(N, 2)`` places of a level, px of that level."""
    radius = shape.radius
    side, pixels = 2 * radius + 3, len(shape.offsets)
    square = sample(image, (centres[:, None] + patch_grid(radius + 1, image.device)))
    square = square.view(-1, side, side)  # a row per patch and channel
    dx = ((square[:, 1:-1, 2:] - square[:, 1:-1, :-2]) / 2).flatten(1)[:, shape.cells]
    dy = ((square[:, 2:, 1:-1] - square[:, :-2, 1:-1]) / 2).flatten(1)[:, shape.cells]
    core = square[:, 1:-1, 1:-1].flatten(1)[:, shape.cells]
    weight = shape.window * inside(image, centres[:, None] + shape.offsets)
    weight = per_channel(weight, image.channels)
    mean, spread = moments(core, weight.view(-1, pixels))
    core = (core - mean[:, None]) / spread[:, None]
    gradient = torch.stack([dx, dy], 1) / spread[:, None, None]
    if image.channels > 1:
        shares = spread.view(-1, image.channels) ** 2
        spread = shares.mean(1).sqrt()
        shares = shares / shares.sum(1, keepdim=True)
        weight = (weight.view(*shares.shape, pixels) * shares[:, :, None]).flatten(1)
        core = core.view(len(centres), -1)
        gradient = gradient.view(len(centres), -1, 2, pixels).transpose(1, 2).flatten(2)
    return Patches(core, gradient, weight, spread)
