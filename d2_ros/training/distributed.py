"""How a process computes: alone or among several that ``torchrun`` started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from d2_ros.errors import D2RosError
from d2_ros.features.device import pick_device
from d2_ros.training.config import TrainingConfig


@dataclass(frozen=True)
class Process:
    """This process's number, that of all, and the device it trains on."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this one writes files and shows progress."""
        return self.rank == 0

    def mean(self, value: torch.Tensor) -> float:
        """Mean of a scalar over all processes."""
        value = value.detach().float()
        if self.world > 1:
            dist.all_reduce(value)
        return float(value) / self.world

    def wait(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def joined(device: str, batch: int) -> Iterator[Process]:
    """Join the processes that ``torchrun`` started; alone without it.

    Parameters
    ----------
    device
        Parameter ``device``.
    batch
        Pairs per step, of all processes.

    Raises
    ------
    D2RosError
        If the device is not there or the batch cannot be shared out evenly.
    """
    world, rank = (int(os.environ.get(name, n)) for name, n in (("WORLD_SIZE", 1), ("RANK", 0)))
    if batch % world:
        raise D2RosError(
            f"parameter optimiser.batch is {batch}; it must be a multiple of the {world} processes"
        )
    chosen = pick_device(device)
    if world == 1:
        yield Process(0, 1, chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Process(rank, world, chosen)
    finally:
        dist.destroy_process_group()


@contextmanager
def arithmetic(config: TrainingConfig) -> Iterator[None]:
    """Set threads and determinism, and put them back."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.use_deterministic_algorithms(config.deterministic)
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
