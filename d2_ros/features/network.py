"""The D2-Net network: VGG-16 up to conv4_3, dense (Dusmanu et al., CVPR 2019, section 3).

Two max-pools, then a 2x2 average pool of stride 1 and a conv4 dilated by 2, so that the output
has stride 4. The average pool shifts the grid by half a conv3 cell: cell ``i`` is centred on
pixel ``4 i + 3.5`` of the network's input, per axis, in centre-of-pixel coordinates.

Every convolution continues its input beyond the rim by the nearest value, where the authors' code
pads with zeros. A zero rim looks like a step to the network and yields keypoints that stand still
in the image: 12 to 22 on an image of one gray value, now none. Between two crops of one photograph
shifted by (37, 23) px the share of right matches (3 px) of keypoints within 32 px of the rim went
from 0.55/0.29/0.47 to 0.74/0.49/0.71 (TUM, EuRoC, 7-Scenes); inside, nothing changes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 4
"""Network pixels per cell of the response map."""

OFFSET = 3.5
"""Network pixel at the centre of cell 0."""

CHANNELS = 512
"""Channels of the response map."""

MIN_EDGE = 16
"""Shortest edge, px, of a network input whose response map still has an inner cell."""

MEAN_BGR = (103.939, 116.779, 123.68)
"""Channel means of the ImageNet training images, scale 0-255."""

LAYERS = {
    "conv1_1": (3, 64),
    "conv1_2": (64, 64),
    "conv2_1": (64, 128),
    "conv2_2": (128, 128),
    "conv3_1": (128, 256),
    "conv3_2": (256, 256),
    "conv3_3": (256, 256),
    "conv4_1": (256, 512),
    "conv4_2": (512, 512),
    "conv4_3": (512, 512),
}
"""Convolutions in order, with their input and output channels; all kernels are 3x3."""


class Maps(NamedTuple):
    """What one forward pass can hand out, all after ReLU, ``(B, C, H, W)`` channels-last.

    ``conv1_2`` has stride 1 and 64 channels (cell i at pixel i), ``conv2_2`` stride 2 and 128
    (cell i at pixel 2 i + 0.5), ``response`` stride 4 and 512 (cell i at pixel 4 i + 3.5).
    """

    conv1_2: Tensor
    conv2_2: Tensor
    response: Tensor


class Network(nn.Module):
    """VGG-16 to conv4_3; its state dict has the keys ``conv1_1.weight`` ... ``conv4_3.bias``.

    Parameters
    ----------
    stride
        Network pixels per cell of the response: 4 to extract, or 8, as the paper trains, with a
        third max-pool and no dilation. Cell i is then centred on pixel 8 i + 3.5, the same
        :data:`OFFSET`; the weights are the same too.
    """

    def __init__(self, stride: int = STRIDE) -> None:
        super().__init__()
        if stride not in (STRIDE, 2 * STRIDE):
            raise ValueError(f"the network has stride {STRIDE} or {2 * STRIDE}, not {stride}")
        self.stride = stride
        for name, (inputs, outputs) in LAYERS.items():
            dilation = 2 if name.startswith("conv4") and stride == STRIDE else 1
            self.add_module(name, nn.Conv2d(inputs, outputs, 3, dilation=dilation))

    def forward(self, images: Tensor) -> Maps:
        """Run the network.

        Parameters
        ----------
        images
            ``(B, 3, H, W)`` from :func:`normalise`; H and W at least :data:`MIN_EDGE`.
        """
        conv1_2 = self.early(images)
        conv2_2 = self._layers(conv1_2, "conv2_1", "conv3_1")
        return Maps(conv1_2, conv2_2, self.after(self._pooled(conv2_2, "conv3_1"), "conv3_1"))

    def before(self, images: Tensor, layer: str) -> Tensor:
        """What goes into a layer: together with :meth:`after`, the same response as forward's.

        Parameters
        ----------
        images
            As of :meth:`forward`.
        layer
            One of :data:`LAYERS`.
        """
        return self._pooled(self._layers(images, "conv1_1", layer), layer)

    def after(self, x: Tensor, layer: str) -> Tensor:
        """The response, from what goes into a layer."""
        names = list(LAYERS)
        for name in names[names.index(layer) :]:
            x = self._block(x if name == layer else self._pooled(x, name), name)
        return x

    def early(self, images: Tensor) -> Tensor:
        """The first two layers only: conv1_2 of :class:`Maps`, a fourteenth of the work."""
        return self._layers(images, "conv1_1", "conv2_1")

    def _layers(self, x: Tensor, first: str, end: str) -> Tensor:
        """From before the pooling in front of layer `first` to before the one in front of `end`."""
        names = list(LAYERS)
        for name in names[names.index(first) : names.index(end)]:
            x = self._block(self._pooled(x, name), name)
        return x

    def _pooled(self, x: Tensor, layer: str) -> Tensor:
        """What the pooling in front of a layer, if there is one, makes of the layer before."""
        if layer == "conv4_1" and self.stride == STRIDE:
            return F.avg_pool2d(x, 2, stride=1)
        return F.max_pool2d(x, 2) if layer in ("conv2_1", "conv3_1", "conv4_1") else x

    def _block(self, x: Tensor, name: str) -> Tensor:
        layer = getattr(self, name)
        x = layer(_continue(x, layer.dilation[0]))
        return F.relu(x, inplace=not torch.is_grad_enabled())


def _continue(x: Tensor, margin: int) -> Tensor:
    """Continue ``(B, C, H, W)`` by its nearest values, kept channels-last.

    Padding the (H, W, C) block as a volume does that in one kernel on every device; on CUDA the
    padding of planes would return to channels-first. Other runtimes know the padding of planes.
    """
    if torch.jit.is_tracing():
        return F.pad(x, (margin,) * 4, mode="replicate")
    volume = x.permute(0, 2, 3, 1)[None]
    padded = F.pad(volume, (0, 0, margin, margin, margin, margin), mode="replicate")
    return padded[0].permute(0, 3, 1, 2)


def normalise(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Subtract the channel means.

    Parameters
    ----------
    images
        ``(B, H, W, 3)`` BGR or ``(B, H, W, 1)`` gray, any real type, 0-255.
    dtype
        Arithmetic of the network.

    Returns
    -------
    ``(B, 3, H, W)`` of `dtype`, channels-last in memory.
    """
    return (images.float() - _mean(images.device)).to(dtype).permute(0, 3, 1, 2)


@lru_cache(maxsize=8)
def _mean(device: torch.device) -> Tensor:
    """The means, sent to each device once."""
    return torch.tensor(MEAN_BGR, device=device)
