"""The D2-Net network: VGG-16 up to conv4_3, dense (Dusmanu et al., CVPR 2019, section 3).

Two max-pools, then a 2x2 average pool of stride 1 and a conv4 dilated by 2, so that the output
has stride 4. The average pool shifts the grid by half a conv3 cell: cell ``i`` is centred on
pixel ``4 i + 3.5`` of the network's input, per axis, in centre-of-pixel coordinates.
"""

from __future__ import annotations

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
    """VGG-16 to conv4_3; its state dict has the keys ``conv1_1.weight`` ... ``conv4_3.bias``."""

    def __init__(self) -> None:
        super().__init__()
        for name, (inputs, outputs) in LAYERS.items():
            dilation = 2 if name.startswith("conv4") else 1
            layer = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)
            self.add_module(name, layer)

    def forward(self, images: Tensor) -> Maps:
        """Run the network.

        Parameters
        ----------
        images
            ``(B, 3, H, W)`` from :func:`normalise`; H and W at least :data:`MIN_EDGE`.
        """
        conv1_2 = self._block(images, "conv1_1", "conv1_2")
        conv2_2 = self._block(F.max_pool2d(conv1_2, 2), "conv2_1", "conv2_2")
        conv3_3 = self._block(F.max_pool2d(conv2_2, 2), "conv3_1", "conv3_2", "conv3_3")
        shifted = F.avg_pool2d(conv3_3, 2, stride=1)
        return Maps(conv1_2, conv2_2, self._block(shifted, "conv4_1", "conv4_2", "conv4_3"))

    def _block(self, x: Tensor, *names: str) -> Tensor:
        for name in names:
            x = F.relu(self.get_submodule(name)(x), inplace=not torch.is_grad_enabled())
        return x


def normalise(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Subtract the channel means.

    Parameters
    ----------
    images
        ``(B, H, W, 3)`` BGR or ``(B, H, W, 1)`` grey, any real type, 0-255.
    dtype
        Arithmetic of the network.

    Returns
    -------
    ``(B, 3, H, W)`` of `dtype`, channels-last in memory.
    """
    mean = torch.tensor(MEAN_BGR, device=images.device)
    return (images.float() - mean).to(dtype).permute(0, 3, 1, 2)
