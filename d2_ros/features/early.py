"""Maps of the network's first layers that keep their look when the light changes.

A linear discriminant analysis (Fisher, 1936) finds the combinations of conv1_2's channels that
say where in the image one is, whatever has been done to its tones: the classes are the places of
a seeded noise image with the spectrum of photographs, their members its responses under five
curves of tone, one of them the negative. It is computed from the loaded weights on first use, so
there is nothing to train or to ship, and costs once about as much as the maps of a VGA image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from d2_ros.features.device import to_device
from d2_ros.features.network import Network, normalise

MAPS = 8
"""Channels kept."""

_SIDE = 256  # px of the noise image
_RIM = 4  # px left out
_NOISE = 2.0  # gray values
_FLOOR = 0.1  # response added to the divisor, in typical responses
_RIDGE = 0.1  # of the within-class covariance, in mean variances


@dataclass(frozen=True)
class EarlyMap:
    """Early maps of one image, and where their cells lie in it.

    Attributes
    ----------
    values
        ``(8, h, w)`` float32 on the device.
    scale
        ``(2,)`` float64, cells per raw px, (u, v); cell edges meet the image's edges.
    """

    values: Tensor
    scale: NDArray[np.float64]


@dataclass(frozen=True)
class Projection:
    """conv1_2 -> early maps.

    Attributes
    ----------
    floor
        Added to the length of a pixel's response before dividing by it: contrast goes, noise
        stays small.
    matrix
        ``(8, 64)`` float32 on the device.
    """

    floor: float
    matrix: Tensor

    def __call__(self, response: Tensor) -> Tensor:
        """``(B, 64, h, w)`` of any arithmetic -> ``(B, 8, h, w)`` float32."""
        mixed = torch.einsum("kc,bchw->bkhw", self.matrix, response.float())
        return mixed / (_length(response.float()) + self.floor)


def build_projection(network: Network, device: torch.device, dtype: torch.dtype) -> Projection:
    """Find the projection for a network on its device."""
    images = to_device(tones(), device)[..., None]
    response = network.early(normalise(images, dtype))[:, :, _RIM:-_RIM, _RIM:-_RIM].float()
    length = _length(response)
    floor = _FLOOR * float(length[0].mean())
    classes = (response / (length + floor)).permute(0, 2, 3, 1).flatten(1, 2).double().cpu()
    classes = classes - classes.mean(1, keepdim=True)
    mean = classes.mean(0)
    between = mean.T @ mean / len(mean)
    total = (classes.transpose(1, 2) @ classes).mean(0) / len(mean)
    ridge = _RIDGE * total.diagonal().mean()
    root = torch.linalg.cholesky(total + ridge * torch.eye(len(total), dtype=torch.double))
    whiten = torch.linalg.inv(root)
    share, axes = torch.linalg.eigh(whiten @ between @ whiten.T)
    share, axes = share[-MAPS:], axes[:, -MAPS:]
    # Every map weighs as much as what it keeps stands out from what it does not.
    matrix = (share / (1 - share)).sqrt()[:, None] * (axes.T @ whiten)
    return Projection(floor, matrix.float().to(device))


def tones() -> NDArray[np.uint8]:
    """A 1/f noise image as it is, negative, brightened, folded and faint, ``(5, h, w)``."""
    rng = np.random.default_rng(0)
    line = np.fft.fftfreq(_SIDE)
    frequency = np.hypot(line[:, None], line)
    frequency[0, 0] = 1
    plane = np.fft.ifft2(np.fft.fft2(rng.normal(size=frequency.shape)) / frequency).real
    plane = np.clip(0.5 + 0.2 * plane / plane.std(), 0, 1)
    curves = np.stack([plane, 1 - plane, plane**0.4, abs(2 * plane - 1), 0.3 * plane + 0.05])
    noisy = curves * 255 + rng.normal(0, _NOISE, curves.shape)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


def _length(response: Tensor) -> Tensor:
    return response.norm(dim=1, keepdim=True)
