"""The part of a network that a training leaves as it is: computed once for each pair of windows."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from d2_ros.features.backbones import Backbone, recognise
from d2_ros.features.network import normalise
from d2_ros.training.cache import Cache
from d2_ros.training.config import TrainingConfig

_LARGEST = torch.finfo(torch.float16).max


def open_cache(config: TrainingConfig) -> Cache | None:
    """The cache that the settings ask for, if any."""
    return Cache(Path(config.cache), config.cache_size * 1e9) if config.cache else None


class Frozen:
    """What goes into the first layer that is trained, or all of a teacher, from images.

    The result is rounded to half precision whether there is a cache or not, and each pair is
    computed alone: that is why a cache does not change a bit of the training.

    Parameters
    ----------
    network
        With the weights it keeps.
    end
        First layer that is trained; None for the response of the whole network.
    reduced
        Whether to compute in bf16.
    cache
        Where to look first; None computes each time.
    """

    def __init__(
        self, network: Backbone, end: str | None, reduced: bool, cache: Cache | None
    ) -> None:
        self._network, self._end, self._reduced, self._cache = network, end, reduced, cache
        self._exact = end == next(iter(dict(network.named_children())))  # nothing is frozen
        self._device = next(network.parameters()).device
        self._identity = b"" if cache is None or self._exact else self._describe()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Compute, or find, the result for the windows of one pair.

        Parameters
        ----------
        images
            ``(2, S, S, 3)`` uint8 BGR, on the CPU.

        Returns
        -------
        ``(2, C, h, w)`` float32 on the network's device, channels-last.
        """
        if self._exact:
            return normalise(images.to(self._device), torch.float32)
        if self._cache is None:
            return self._compute(images).permute(0, 3, 1, 2).float()
        shape = str(tuple(images.shape)).encode()
        key = hashlib.sha256(self._identity + shape + images.numpy().tobytes()).hexdigest()
        value = self._cache.get(key)
        if value is None:
            value = self._compute(images)
            self._cache.put(key, value.cpu())
        return value.to(self._device).permute(0, 3, 1, 2).float()

    def _compute(self, images: Tensor) -> Tensor:
        """``(2, h, w, C)`` float16."""
        x = normalise(images.to(self._device), torch.float32)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._reduced):
            x = self._network.before(x, self._end) if self._end else self._network(x).response
        return x.float().clamp(max=_LARGEST).half().permute(0, 2, 3, 1).contiguous()

    def _describe(self) -> bytes:
        """SHA-256 of all but the images that the result's bits depend on."""
        state = self._network.state_dict()
        parts = [recognise(state), self._network.stride, self._end, self._reduced,
                 self._device.type, torch.__version__,
                 torch.backends.cpu.get_cpu_capability()]  # fmt: skip
        digest = hashlib.sha256(repr(parts).encode())
        for name, value in state.items():
            if self._end and name.partition(".")[0] == self._end:
                break  # in the order of the layers
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return digest.digest()
