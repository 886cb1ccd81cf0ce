"""Two-view patch alignment: the local transform T_ij of every match.

Affine inverse-compositional Lucas-Kanade with gain and bias (Baker and Matthews, IJCV 2004),
batched over all matches of a frame. A patch of a keyframe is the template; the warp
``x(d) = pixels + affine @ d`` places its offsets d in the frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.config import AlignmentConfig
from d2_ros.matching.patches import Disc, Patches, disc, moments, normal_equations, per_channel
from d2_ros.matching.pyramid import Level, Pyramid, inside, sample_grid
from d2_ros.matching.warps import Alignment, Warps

_MIN_VALID = 0.6  # share of a patch's weight that must lie inside both images
_CONVERGED = 0.03  # px of the level
_REPACK = 0.7  # a batch is packed anew when fewer than this share of it still moves
_MAX_STEP = 3.0  # px of the level
_BACK_STEPS = 1
_ROBUST_STEPS = 1
_ROBUST = 1.5  # width of the kernel inside a patch, in standard deviations of its residual


def align(
    templates: Sequence[Patches],
    target: Pyramid,
    starts: Sequence[Warps],
    config: AlignmentConfig,
) -> Alignment:
    """Align template patches in the target image.

    Parameters
    ----------
    templates
        Of each level from 0 on, M patches; as many levels as are to be searched.
    target
        Pyramid of the image to look in.
    starts
        Places to start from; of each match the one that looks most alike is taken.
    config
        Iterations.
    """
    shape = disc(config.patch_radius, target[0].device)
    top = min(len(templates), len(target)) - 1
    pixels, affine = _best_start(templates[top], target[top], starts, top, shape)
    for level in reversed(range(top + 1)):
        pixels, affine = _track(
            templates[level], target[level], pixels, affine, level, shape, config.max_iterations
        )
    for _ in range(_ROBUST_STEPS):
        pixels, affine = _robust_step(templates[0], target[0], pixels, affine, shape)
    return _conclude(templates[0], target[0], pixels, affine, shape)


def accept(
    found: Alignment, origin: NDArray[np.float64], config: AlignmentConfig
) -> NDArray[np.bool_]:
    """Alignments that pass every gate but the way back, ``(M,)``.

    Parameters
    ----------
    origin
        ``(M, 2)`` keypoints, from which an alignment must not stray.
    """
    move = np.linalg.norm(found.warps.pixels - origin, axis=1)
    sigma = largest_sigma(found.covariance)
    return (
        found.valid
        & (move <= config.max_move)
        & (found.correlation >= config.min_correlation)
        & (sigma <= config.max_sigma)
    )


def way_back(
    patches: Patches,
    centres: NDArray[np.float64],
    found: Warps,
    target: Pyramid,
    origin: NDArray[np.float64],
    config: AlignmentConfig,
) -> NDArray[np.float64]:
    """Distance from the template's centre after aligning the other way, ``(M,)``, px.

    Parameters
    ----------
    patches, centres
        M patches of the frame, cut at ``(M, 2)`` places near those that were found.
    found
        The alignments to be tested, template -> frame.
    target, origin
        The template's image, and ``(M, 2)`` where its patches have their centres.
    """
    device = target[0].device
    inverse = np.linalg.inv(found.affine).astype(np.float64)
    begin = origin + np.einsum("mij,mj->mi", inverse, centres - found.pixels)
    shape = disc(config.patch_radius, device)
    pixels, affine = _tensor(begin, device), _tensor(inverse, device)
    for _ in range(_BACK_STEPS):
        residual, _ = _residual(patches, target[0], pixels, affine, shape)
        pixels, affine, _ = _compose(pixels, affine, _product(patches.influence, residual))
    distance: NDArray[np.float64] = np.linalg.norm(_array(pixels) - begin, axis=1)
    return distance


def largest_sigma(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation along the longest axis of every ellipse, ``(M, 2, 2)`` -> ``(M,)``."""
    a, b, c = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    return np.sqrt((a + c) / 2 + np.sqrt((a - c) ** 2 / 4 + b**2))


def predicted_sigma(patches: Patches, noise: float = 2.0) -> NDArray[np.float64]:
    """Largest standard deviation (px) with which a patch could be aligned to its like.

    The aperture problem before it happens: from the patch's own gradients and an assumed
    `noise` of grey values. Patches without texture give a very large value.
    """
    hessian = (patches.gradient * patches.weight[:, None]) @ patches.gradient.transpose(1, 2)
    trace = hessian.diagonal(dim1=1, dim2=2).sum(1)
    smallest = trace / 2 - (trace**2 / 4 - torch.linalg.det(hessian)).clamp(min=0).sqrt()
    # The Jacobian is of normalised grey values: scale the noise alike.
    return _array(noise / patches.spread / smallest.clamp(min=1e-12).sqrt())


def _tensor(values: NDArray[np.float64], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device)


def _array(values: torch.Tensor) -> NDArray[np.float64]:
    return values.double().cpu().numpy()


def _best_start(
    patches: Patches, image: Level, starts: Sequence[Warps], level: int, shape: Disc
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of several starts of each match, the one with the smallest residual."""
    pixels = torch.stack([_tensor(start.pixels, image.device) for start in starts])
    affine = torch.stack([_tensor(start.affine, image.device) for start in starts])
    if len(starts) == 1:
        return pixels[0], affine[0]
    energies = []
    for place, shear in zip(pixels, affine, strict=True):
        residual, weight = _residual(patches, image, place / 2**level, shear, shape)
        energies.append((weight * residual**2).sum(1) / weight.sum(1).clamp(min=1e-6))
    best = torch.stack(energies).argmin(0)
    rows = torch.arange(len(best), device=image.device)
    return pixels[best, rows], affine[best, rows]


def _track(
    patches: Patches,
    image: Level,
    pixels: torch.Tensor,
    affine: torch.Tensor,
    level: int,
    shape: Disc,
    iterations: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gauss-Newton on one level; patches that have converged drop out of the batch."""
    pixels, affine = pixels / 2**level, affine.clone()
    active = torch.arange(len(pixels), device=image.device)
    place, shear = pixels, affine
    for _ in range(iterations):
        residual, _ = _residual(patches, image, place, shear, shape)
        place, shear, move = _compose(place, shear, _product(patches.influence, residual))
        going = torch.nonzero(move > _CONVERGED)[:, 0]
        if len(going) < _REPACK * len(active):
            pixels[active], affine[active] = place, shear
            if len(going) == 0:
                return pixels * 2**level, affine
            active, patches, place, shear = (
                active[going], patches.select(going), place[going], shear[going]
            )  # fmt: skip
    pixels[active], affine[active] = place, shear
    return pixels * 2**level, affine


def _product(influence: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    return (influence @ residual[:, :, None])[:, :, 0]


def _robust_step(
    patches: Patches,
    image: Level,
    pixels: torch.Tensor,
    affine: torch.Tensor,
    shape: Disc,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step in which pixels that disagree, as of another surface, count less."""
    residual, weight = _residual(patches, image, pixels, affine, shape)
    weight = _robust(residual, weight)
    weighted, inverse = normal_equations(patches.values, patches.gradient, weight, shape)
    step = _product(inverse[:, :6], _product(weighted, residual))
    return _compose(pixels, affine, step)[:2]


def _robust(residual: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Cauchy weights times `weight`."""
    energy = (weight * residual**2).sum(1) / weight.sum(1).clamp(min=1e-6)
    width = (_ROBUST**2 * energy).clamp(min=1e-4)
    return weight / (1 + residual**2 / width[:, None])


def _compose(
    pixels: torch.Tensor, affine: torch.Tensor, step: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Undo a step of the template's warp: new warps, and how far they moved."""
    inverse = _inverse2(torch.eye(2, device=step.device) + step[:, 2:6].view(-1, 2, 2))
    affine = affine @ inverse
    move = (affine @ step[:, :2, None])[:, :, 0].clamp(-_MAX_STEP, _MAX_STEP)
    return pixels - move, affine, move.norm(dim=1)


def _residual(
    patches: Patches,
    image: Level,
    pixels: torch.Tensor,
    affine: torch.Tensor,
    shape: Disc,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised frame patch minus template, and its weights (0 outside the image)."""
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


def _conclude(
    patches: Patches, image: Level, pixels: torch.Tensor, affine: torch.Tensor, shape: Disc
) -> Alignment:
    residual, weight = _residual(patches, image, pixels, affine, shape)
    total = weight.sum(1).clamp(min=1e-6)
    warped = residual + patches.values  # both have zero mean, and unit variance unless flat
    correlation = (weight * warped * patches.values).sum(1) / total
    energy = (weight * residual**2).sum(1) / total
    influence = patches.influence[:, :2]
    spread = influence @ influence.transpose(1, 2) * (energy * patches.correlation)[:, None, None]
    determinant = affine[:, 0, 0] * affine[:, 1, 1] - affine[:, 0, 1] * affine[:, 1, 0]
    valid = (
        (total >= _MIN_VALID * shape.window.sum())
        & (determinant > 0.1)
        & (determinant < 10)
        & inside(image, pixels)
        & torch.isfinite(pixels).all(1)
    )
    return Alignment(
        Warps(_array(pixels), _array(affine)),
        _array(affine @ spread @ affine.transpose(1, 2)),
        _array(correlation),
        valid.cpu().numpy(),
    )


def _inverse2(matrix: torch.Tensor) -> torch.Tensor:
    """Inverse of ``(M, 2, 2)``; of singular ones a large finite matrix that the gates refuse."""
    a, b, c, d = matrix.flatten(1).unbind(1)
    determinant = a * d - b * c
    determinant = torch.where(determinant.abs() < 1e-6, 1e-6, determinant)
    return torch.stack([d, -b, -c, a], 1).view(-1, 2, 2) / determinant[:, None, None]
