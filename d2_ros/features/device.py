"""Where the network runs, and in which arithmetic."""

from __future__ import annotations

import ctypes

import torch

from d2_ros.errors import D2RosError

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc
_MOST = 1 << 30  # bytes


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


def keep_memory() -> None:
    """Tell glibc not to give the network's memory back to the system after every layer.

    By default blocks of this size are mapped anew each time, and the system clears every page of
    them: about a tenth of the network's time on a CPU (docs/performance.md). With another C
    library nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _MOST)
    mallopt(_M_TRIM_THRESHOLD, _MOST)
    mallopt(_M_ARENA_MAX, 1)  # other arenas, those of threads, cannot hold such blocks
