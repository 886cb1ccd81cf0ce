"""What this machine can do: measured rates, memory in use, power drawn."""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

MIB = 2**20
_MATRIX_EDGE = {"cpu": 2048, "cuda": 8192}
_COPIED_BYTES = {"cpu": 64 * MIB, "cuda": 1024 * MIB}


@dataclass(frozen=True)
class Machine:
    """A device and its measured limits.

    Attributes
    ----------
    name
        Processor or GPU, in words.
    device
        ``cpu`` or ``cuda``.
    dtype
        Arithmetic that the rate holds for.
    macs_per_s
        Multiplications with addition per second, of a large matrix product.
    bytes_per_s
        Bytes read and written per second, of a large copy.
    """

    name: str
    device: str
    dtype: torch.dtype
    macs_per_s: float
    bytes_per_s: float


def measure_machine(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> Machine:
    """Measure the limits of `device`, each for so long; the fastest run counts."""
    edge, size = _MATRIX_EDGE[device.type], _COPIED_BYTES[device.type]
    matrix = torch.rand(edge, edge, device=device).to(dtype)
    product = torch.empty_like(matrix)
    origin = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(origin)
    settle = settler(device)
    product_s = _fastest(lambda: torch.mm(matrix, matrix, out=product), settle, seconds)
    copy_s = _fastest(lambda: target.copy_(origin), settle, seconds)
    return Machine(device_name(device), device.type, dtype, edge**3 / product_s, 2 * size / copy_s)


def settler(device: torch.device) -> Callable[[], object] | None:
    """What waits for the device; None where nothing has to be waited for."""
    return torch.cuda.synchronize if device.type == "cuda" else None


def device_name(device: torch.device) -> str:
    """The GPU, or the processor and its cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def _fastest(
    work: Callable[[], object], settle: Callable[[], object] | None, seconds: float
) -> float:
    """Seconds of the fastest run of `work` among those that fit into `seconds`."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        if settle is not None:
            settle()
        times.append(time.perf_counter() - start)
    return min(times[1:] or times)  # the first one also sets things up


def memory(device: torch.device) -> dict[str, float]:
    """Memory of this process, MiB: in use now and at most so far, on the host and the device."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"host_peak_mib": peak / (MIB if sys.platform == "darwin" else 1024)}
    statm = Path("/proc/self/statm")
    if statm.is_file():
        pages = int(statm.read_text(encoding="ascii").split()[1])
        found["host_mib"] = pages * resource.getpagesize() / MIB
        # The kernel's own peak may lag behind by some pages.
        found["host_peak_mib"] = max(found["host_peak_mib"], found["host_mib"])
    if device.type == "cuda":
        found["device_mib"] = torch.cuda.memory_allocated(device) / MIB
        found["device_peak_mib"] = torch.cuda.max_memory_allocated(device) / MIB
    return found


@dataclass(frozen=True)
class Usage:
    """CPU time so far, s, and memory in use, MiB, of this process and its children."""

    cpu_s: float
    memory_mib: float


def usage() -> Usage:
    """What this process and those that it has started with multiprocessing use.

    Pages that they share count for each. Outside of Linux children count when they have ended.
    """
    ended = os.times()
    cpu = ended.user + ended.system + ended.children_user + ended.children_system
    memory_mib = memory(torch.device("cpu")).get("host_mib", 0.0)
    for child in multiprocessing.active_children():
        try:
            stat = Path(f"/proc/{child.pid}/stat").read_text(encoding="utf-8")
        except OSError:  # ended since, or no Linux
            continue
        fields = stat.rpartition(")")[2].split()  # the name before may hold anything
        cpu += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        memory_mib += int(fields[21]) * resource.getpagesize() / MIB
    return Usage(cpu, memory_mib)


class PowerMeter:
    """Context manager that samples the GPU's power with nvidia-smi, where there is one.

    Attributes
    ----------
    watts
        Mean over the time inside; NaN where it could not be had.
    """

    def __init__(self, device: torch.device) -> None:
        self.watts = float("nan")
        self._device = device
        self._process: subprocess.Popen[str] | None = None
        self._wanted = device.type == "cuda" and shutil.which("nvidia-smi") is not None

    def __enter__(self) -> PowerMeter:
        if self._wanted:
            uuid = getattr(torch.cuda.get_device_properties(self._device), "uuid", None)
            chosen = [] if uuid is None else ["-i", f"GPU-{uuid}"]
            query = ["--query-gpu=power.draw", "--format=csv,noheader,nounits", "-lms", "100"]
            self._process = subprocess.Popen(
                ["nvidia-smi", *chosen, *query],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self.watts = mean_power(self._process.communicate()[0])


def mean_power(text: str) -> float:
    """Mean of nvidia-smi's lines, W; NaN without a number among them ("[N/A]", for instance)."""
    values = []
    for line in text.splitlines():
        try:
            values.append(float(line))
        except ValueError:
            continue
    return float(np.mean(values)) if values else float("nan")
