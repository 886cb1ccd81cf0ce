"""A light network in D2-Net's place: separable convolutions, the same grid and channels.

As Howard et al., MobileNets, arXiv 2017, without normalisation layers, whose statistics would
depend on the size of the image. At 640x480 it takes 10 GMAC, a sixteenth of VGG's 172. Its weights
come from distillation (docs/training.md); none are shipped.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from d2_ros.features.network import CHANNELS, STRIDE

_WIDTH = 256
_BLOCKS = 5


class Response(NamedTuple):
    """What one forward pass hands out: the response, as of :class:`Maps`."""

    response: Tensor


class Separable(nn.Module):
    """Depthwise 3x3, ReLU, pointwise; added to its input where the channels agree."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            inputs, inputs, 3, padding=dilation, padding_mode="replicate",
            dilation=dilation, groups=inputs,
        )  # fmt: skip
        self.pointwise = nn.Conv2d(inputs, outputs, 1)
        self.residual = inputs == outputs
        # Not the normal one: on the meta device, where shapes are looked up at every start, that
        # imports torch's compiler, which takes two seconds.
        nn.init.kaiming_uniform_(self.depthwise.weight, nonlinearity="relu")
        nn.init.kaiming_uniform_(self.pointwise.weight, nonlinearity="relu")
        if self.residual:
            nn.init.zeros_(self.pointwise.weight)  # starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, h, w)`` -> ``(B, outputs, h, w)``."""
        y = self.pointwise(F.relu(self.depthwise(x)))
        return x + y if self.residual else F.relu(y)


class MobileNetwork(nn.Module):
    """Stem of stride 2, max-pool, and the average pool that puts cell i on pixel 4 i + 3.5.

    Parameters
    ----------
    stride
        4, or 8 with a max-pool in the average pool's place, as
        :class:`~d2_ros.features.network.Network`.
    """

    def __init__(self, stride: int = STRIDE) -> None:
        super().__init__()
        self.stride = stride
        dilation = 2 if stride == STRIDE else 1
        # Even, so that cell j of the stem lies on pixel 2 j + 0.5, as after a max-pool.
        self.stem = nn.Conv2d(3, 32, 4, stride=2, padding=1, padding_mode="replicate")
        self.early = Separable(32, 64)
        self.middle = nn.Sequential(Separable(64, 128), Separable(128, 128))
        late = [Separable(_WIDTH, _WIDTH, dilation) for _ in range(_BLOCKS)]
        self.late = nn.Sequential(Separable(128, _WIDTH, dilation), *late)
        self.head = nn.Conv2d(_WIDTH, CHANNELS, 1)

    def forward(self, images: Tensor) -> Response:
        """``(B, 3, H, W)`` from :func:`~d2_ros.features.network.normalise` -> the response."""
        return Response(self.after(images, "stem"))

    def before(self, images: Tensor, layer: str) -> Tensor:
        """What goes into a layer; as of :meth:`d2_ros.features.network.Network.before`."""
        return self._layers(images, "stem", layer)

    def after(self, x: Tensor, layer: str) -> Tensor:
        """The response, from what goes into a layer."""
        return self._layers(x, layer, None)

    def _layers(self, x: Tensor, first: str, end: str | None) -> Tensor:
        """Layers from `first` to before `end`; pooling and ReLU belong to the layer before them."""
        names = [name for name, _ in self.named_children()]
        for name in names[names.index(first) : names.index(end) if end else None]:
            x = getattr(self, name)(x)
            if name in ("stem", "head"):
                x = F.relu(x)
            elif name == "early":
                x = F.max_pool2d(x, 2)
            elif name == "middle":
                dense = self.stride == STRIDE
                x = F.avg_pool2d(x, 2, stride=1) if dense else F.max_pool2d(x, 2)
        return x
