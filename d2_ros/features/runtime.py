"""What runs the network: a batch of images -> the response map.

torch is always there; OpenVINO and ONNX Runtime are extras, imported where they are asked for.
Each takes over the network's forward pass only: the early maps and all that follows stay in torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor, nn

from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.features.device import (
    INT8_FLAGS,
    cpu_flags,
    pick_device,
    pick_dtype,
    pick_precision,
)
from d2_ros.features.network import normalise

PRECISIONS = {
    "torch": ("fp32", "fp16", "bf16"),
    "openvino": ("fp32", "bf16", "int8"),
    "onnxruntime": ("fp32",),
}
"""Runtime -> values of ``precision`` it has, besides ``auto``."""


class Runtime(Protocol):
    """The network's forward pass."""

    def respond(self, images: Tensor) -> Tensor:
        """Run the network.

        Parameters
        ----------
        images
            ``(B, H, W, 3)`` BGR or ``(B, H, W, 1)`` gray, any real type, 0-255, on the device.

        Returns
        -------
        ``(B, 512, h, w)`` after ReLU, channels-last in memory, on the device.
        """


@dataclass(frozen=True)
class Plan:
    """What the parameters come to on this machine.

    Attributes
    ----------
    runtime, precision
        Names, ``auto`` resolved.
    asked_device
        Parameter ``device``, for runtimes that have devices of their own.
    device, dtype
        Of all that torch does: of the network too if torch runs it.
    """

    runtime: str
    precision: str
    asked_device: str
    device: torch.device
    dtype: torch.dtype


def plan(config: Config) -> Plan:
    """Resolve ``runtime``, ``precision`` and ``device``.

    Raises
    ------
    D2RosError
        For a precision that the runtime does not have, or a device that is not there.
    """
    in_8_bits = takes_8_bits(config, cpu_flags(), _installed("openvino", "nncf"))
    runtime = config.runtime
    if runtime == "auto":
        runtime = "openvino" if in_8_bits else "torch"
    if config.precision not in ("auto", *PRECISIONS[runtime]):
        able = [name for name, known in PRECISIONS.items() if config.precision in known]
        raise D2RosError(
            f"parameter precision is {config.precision!r}, which runtime {runtime} does not have; "
            f"set precision to auto, {', '.join(PRECISIONS[runtime])}, or runtime to "
            f"{' or '.join(able)}"
        )
    if runtime == "torch":
        device = pick_device(config.device)
        precision = pick_precision(config.precision, device)
        return Plan(runtime, precision, config.device, device, pick_dtype(precision, device))
    device = torch.device("cpu")
    if runtime == "openvino" and config.device == "cuda":
        raise D2RosError(
            "parameter device is 'cuda', where runtime openvino does not run; "
            "set device to cpu, or runtime to torch or onnxruntime"
        )
    precision = "fp32" if runtime == "onnxruntime" else pick_precision(config.precision, device)
    precision = "int8" if runtime == "openvino" and in_8_bits else precision
    return Plan(runtime, precision, config.device, device, torch.float32)


def takes_8_bits(config: Config, flags: frozenset[str], installed: bool) -> bool:
    """Whether ``auto`` means OpenVINO in 8 bits: the fastest, and as good, where it was measured.

    That is with the shipped weights, on a CPU that multiplies 8 bits in hardware
    (docs/performance.md): half of bf16's time, a quarter of fp32's.

    Parameters
    ----------
    flags
        Of the CPU, as :func:`cpu_flags` reads them.
    installed
        Whether OpenVINO is, and NNCF, which makes its models of 8 bits.
    """
    return (
        installed
        and config.runtime in ("auto", "openvino")
        and config.precision == "auto"
        and config.weights == Config().weights
        and config.device != "cuda"
        and pick_device(config.device).type == "cpu"
        and not flags.isdisjoint(INT8_FLAGS)
    )


def _installed(*names: str) -> bool:
    return all(find_spec(name) is not None for name in names)


def open_runtime(plan: Plan, network: nn.Module, threads: int) -> Runtime:
    """The runtime of `plan` with a network in the plan's dtype on its device.

    Parameters
    ----------
    threads
        CPU threads; 0 takes all cores.

    Raises
    ------
    D2RosError
        If the runtime is not installed or cannot be used: there is no silent substitute.
    """
    if plan.runtime == "openvino":
        from d2_ros.features.openvino_runtime import OpenVinoRuntime

        return OpenVinoRuntime(network, plan.precision, threads)
    if plan.runtime == "onnxruntime":
        from d2_ros.features.onnx_runtime import OnnxRuntime

        return OnnxRuntime(network, plan.asked_device, threads)
    return TorchRuntime(network, plan.dtype)


@dataclass(frozen=True)
class TorchRuntime:
    """The network as it is, on its own device."""

    network: nn.Module
    dtype: torch.dtype

    def respond(self, images: Tensor) -> Tensor:
        """As :meth:`Runtime.respond`."""
        maps: Tensor = self.network(normalise(images, self.dtype)).response
        return maps.contiguous(memory_format=torch.channels_last)


class Portable(nn.Module):
    """The network as other runtimes get it, normalisation included.

    ``(B, H, W, 3)`` float32 BGR, 0-255 -> ``(B, h, w, 512)`` float32: channels last both ways, so
    that nobody has to turn a map of 38 MB (640x480) over.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Run it."""
        maps: Tensor = self.network(normalise(images, torch.float32)).response
        return maps.permute(0, 2, 3, 1)


def to_host(images: Tensor) -> Tensor:
    """``(B, H, W, 1 or 3)`` of any type -> what :class:`Portable` takes, in one block."""
    return images.float().expand(-1, -1, -1, 3).contiguous()
