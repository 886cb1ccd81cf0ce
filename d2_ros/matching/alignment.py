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
from d2_ros.features.device import to_device
from d2_ros.matching.patches import Patches, Templates, disc
from d2_ros.matching.pyramid import SMOOTHING_ENERGY, Pyramid, inside
from d2_ros.matching.steps import steps_for
from d2_ros.matching.warps import Alignment, Warps

_MIN_VALID = 0.6  # share of a patch's weight that must lie inside both images
_BACK_STEPS = 1

QUANTISATION = 2 / 12 * SMOOTHING_ENERGY
"""Squared gray values: variance of the difference of two images by their rounding alone, 1/12 of a
gray level each (Widrow and Kollar, Quantization Noise, 2008), smoothed as they are. Residuals of
two real images are larger; those of a simulator, or of an exact shift, may be zero, and would make
a place certain that is not. Measured on photographs: 1.03 to 1.19 times as much (median)."""

EARLY_QUANTISATION = 5e-4
"""The same of the early maps, in their own units: measured on photographs, 5e-4 to 1.6e-3."""


def align(
    templates: Sequence[Templates],
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
    image, device = target[0], target[0].device
    shape, steps = disc(config.patch_radius, device), steps_for(image)
    pixels, affine = _warps(starts, device)
    for level in reversed(range(min(len(templates), len(target)))):
        place, shear = steps.track(
            templates[level], target[level], pixels / 2**level, affine, shape, config.max_iterations
        )
        pixels, affine = place[None] * 2**level, shear[None]
    place, shear, score = steps.finish(templates[0], image, pixels[0], affine[0], shape)
    energy, correlation, seen = score.unbind(1)
    rounding = QUANTISATION if image.channels == 1 else EARLY_QUANTISATION
    energy = torch.maximum(energy, rounding / templates[0].spread ** 2)
    spread = shear @ (templates[0].noise * energy[:, None, None]) @ shear.transpose(1, 2)
    determinant = torch.linalg.det(shear)
    valid = (
        (seen >= _MIN_VALID * shape.window.sum())
        & (determinant > 0.1)
        & (determinant < 10)
        & inside(image, place)
        & torch.isfinite(place).all(1)
    )
    columns = [place, shear.flatten(1), spread.flatten(1), correlation[:, None], valid[:, None]]
    found = _array(torch.cat(columns, 1))  # one transfer back
    return Alignment(
        Warps(found[:, :2].copy(), found[:, 2:6].reshape(-1, 2, 2)),
        found[:, 6:10].reshape(-1, 2, 2),
        found[:, 10].copy(),
        found[:, 11] > 0,
    )


def accept(
    found: Alignment, origin: NDArray[np.float64], config: AlignmentConfig
) -> NDArray[np.bool_]:
    """Alignments that pass every gate but the forward-backward one, ``(M,)``.

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


def forward_backward(
    patches: Patches,
    patch: NDArray[np.int64],
    centres: NDArray[np.float64],
    found: Warps,
    targets: Sequence[Pyramid],
    target: NDArray[np.int64],
    origin: NDArray[np.float64],
    config: AlignmentConfig,
) -> NDArray[np.float64]:
    """Forward-backward error, ``(M,)``, px: from the template's centre to where aligning back ends.

    Parameters
    ----------
    patches, patch
        Patches of the frame, and which of them each alignment is tested with, ``(M,)``.
    centres
        ``(M, 2)`` where these were cut, px, near the places that were found.
    found
        The alignments to be tested, template -> frame.
    targets, target
        Images of templates, and which of them each alignment is of, ``(M,)``; none without any.
    origin
        ``(M, 2)`` where the templates have their centres.
    """
    if len(patch) == 0:
        return np.empty(0)
    device = targets[0][0].device
    inverse = np.linalg.inv(found.affine).astype(np.float64)
    begin = origin + np.einsum("mij,mj->mi", inverse, centres - found.pixels)
    order, sizes = np.argsort(target, kind="stable"), np.bincount(target).tolist()
    pixels, affine = _warps([Warps(begin, inverse).select(order)], device)
    chosen = to_device(patch[order], device)
    shape, track = disc(config.patch_radius, device), steps_for(targets[0][0]).track
    parts = zip(
        targets, chosen.split(sizes), pixels.split(sizes, 1), affine.split(sizes, 1), strict=True
    )
    places = [
        track(patches.select(rows), image[0], start, shear, shape, _BACK_STEPS)[0]
        for image, rows, start, shear in parts
    ]
    distance = np.empty(len(begin))
    distance[order] = np.linalg.norm(_array(torch.cat(places)) - begin[order], axis=1)
    return distance


def largest_sigma(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation along the longest axis of every ellipse, ``(M, 2, 2)`` -> ``(M,)``."""
    a, b, c = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    return np.sqrt((a + c) / 2 + np.sqrt((a - c) ** 2 / 4 + b**2))


def predicted_sigma(patches: Patches, noise: float = 2.0) -> NDArray[np.float64]:
    """Largest standard deviation (px) with which a patch could be aligned to its like.

    The aperture problem before it happens: from the patch's own gradients and an assumed
    `noise` of gray values. Patches without texture give a very large value.
    """
    hessian = (patches.gradient * patches.weight[:, None]) @ patches.gradient.transpose(1, 2)
    trace = hessian.diagonal(dim1=1, dim2=2).sum(1)
    smallest = trace / 2 - (trace**2 / 4 - torch.linalg.det(hessian)).clamp(min=0).sqrt()
    # The Jacobian is of normalised gray values: scale the noise alike.
    return _array(noise / patches.spread / smallest.clamp(min=1e-12).sqrt())


def _warps(starts: Sequence[Warps], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Warps on the device in one transfer: ``(S, M, 2)`` and ``(S, M, 2, 2)``."""
    parts = [start.pixels.ravel() for start in starts] + [start.affine.ravel() for start in starts]
    shape = (len(starts), len(starts[0].pixels))
    values = to_device(np.concatenate(parts).astype(np.float32), device)
    pixels, affine = values.split([2 * shape[0] * shape[1], 4 * shape[0] * shape[1]])
    return pixels.view(*shape, 2), affine.view(*shape, 2, 2)


def _array(values: torch.Tensor) -> NDArray[np.float64]:
    return values.double().cpu().numpy()
