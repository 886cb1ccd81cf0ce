"""Where the network runs, and in which arithmetic."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from d2_ros.errors import D2RosError

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

BF16_FLAGS = ("amx_bf16", "avx512_bf16")
"""Flags of a CPU that multiplies bf16 in hardware; elsewhere it is slower than fp32."""

INT8_FLAGS = ("amx_int8", "avx512_vnni", "avx_vnni")
"""Flags of a CPU that multiplies 8-bit numbers in hardware."""

_WITHOUT_INT8 = {"SSE41", "AVX", "AVX2", "AVX512_CORE"}
_WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"}
"""Values of oneDNN's ONEDNN_MAX_CPU_ISA that leave no instruction for bf16."""

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


@dataclass(frozen=True)
class Precision:
    """An arithmetic of the network, and why it was chosen."""

    name: str
    reason: str


def auto_precision(device: str, flags: frozenset[str]) -> Precision:
    """What ``precision: auto`` means.

    Parameters
    ----------
    device
        ``cuda`` or ``cpu``.
    flags
        Of the CPU, as :func:`cpu_flags` reads them.
    """
    if device == "cuda":
        return Precision("fp16", "on a GPU")
    found = [flag for flag in BF16_FLAGS if flag in flags]
    if found:
        return Precision("bf16", f"this CPU has it in hardware ({', '.join(found)})")
    return Precision("fp32", f"this CPU has no bf16 in hardware ({' or '.join(BF16_FLAGS)})")


def cpu_flags(
    cpuinfo: Path = Path("/proc/cpuinfo"), environment: Mapping[str, str] = os.environ
) -> frozenset[str]:
    """Flags of the CPU that oneDNN, which does torch's arithmetic, may use.

    Those of :data:`BF16_FLAGS` and :data:`INT8_FLAGS` are left out where ``ONEDNN_MAX_CPU_ISA``
    forbids them: it is then as on a CPU without. Nothing where the system does not tell.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    names = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    limit = environment.get("ONEDNN_MAX_CPU_ISA") or environment.get("DNNL_MAX_CPU_ISA") or ""
    hidden: set[str] = set(BF16_FLAGS) if limit.upper() in _WITHOUT_BF16 else set()
    hidden |= set(INT8_FLAGS) if limit.upper() in _WITHOUT_INT8 else set()
    return frozenset(names.split()).difference(hidden)


def pick_precision(precision: str, device: torch.device) -> str:
    """Parameter ``precision`` on `device`, ``auto`` resolved for this machine."""
    if precision != "auto":
        return precision
    return auto_precision(device.type, cpu_flags()).name


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The arithmetic of parameter ``precision`` on `device`, in torch."""
    return _DTYPES[pick_precision(precision, device)]


def to_device(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """An array as a tensor on `device`.

    A GPU takes it from page-locked memory, for torch lets a copy from any other wait until all that
    the GPU has been given before is done. On the CPU the tensor is the array itself.
    """
    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


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
