"""Where the network runs, and in which arithmetic."""

from __future__ import annotations

import torch

from d2_ros.errors import D2RosError

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """The device of parameter ``device``.

    Raises
    ------
    D2RosError
        If CUDA is asked for and not there.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise D2RosError(
            "parameter device is 'cuda' but torch sees no GPU; `d2-ros doctor` says why, "
            "or set device to auto"
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The arithmetic of parameter ``precision`` on `device`."""
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    return _DTYPES[precision]
