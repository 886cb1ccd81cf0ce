"""The training loop: pairs in, better weights out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from d2_ros.errors import D2RosError
from d2_ros.features.network import OFFSET, Network, normalise
from d2_ros.features.weights import load_weights
from d2_ros.training.checkpoints import Progress, export, load_checkpoint, save_checkpoint
from d2_ros.training.config import TrainingConfig
from d2_ros.training.dataset import Batch, Draws, batches
from d2_ros.training.distributed import Process
from d2_ros.training.losses import JointLoss, joint_loss
from d2_ros.training.opening import open_pairs
from d2_ros.training.pairs import Pair
from d2_ros.training.validation import Accuracy, validate

COLLAPSE_STEPS = 20
"""So many steps in a row with the loss at the margin are a collapse."""

_AT_MARGIN = 1e-3
_VALIDATION_SEED = 2**31  # no seed of a training can be this one


class Watcher(Protocol):
    """What is told how the training goes."""

    def stepped(self, step: int, loss: JointLoss) -> None:
        """Tell of a step."""
        ...

    def validated(self, step: int, accuracy: Accuracy) -> None:
        """Tell of a validation."""
        ...


class Trainer:
    """A network in training.

    Parameters
    ----------
    config
        All settings.
    folder
        For checkpoints and weights.
    process
        This process's place among all.
    resume
        Go on from the checkpoint in `folder`.

    Raises
    ------
    D2RosError
        If weights, data or the checkpoint cannot be used.
    """

    def __init__(
        self, config: TrainingConfig, folder: Path, process: Process, resume: bool = False
    ) -> None:
        self.config, self.folder, self.process = config, folder, process
        self.progress = Progress()
        self.network = Network(config.network.stride)
        self.network.load_state_dict(load_weights(config.network.weights))
        self.network.requires_grad_(False)
        for name in config.network.layers:
            self.network.get_submodule(name).requires_grad_(True)
        checkpoint = None
        if resume:
            self.progress, checkpoint = load_checkpoint(folder, config)
            self.network.load_state_dict(checkpoint["network"])
        self.network = self.network.to(process.device)
        trained = [value for value in self.network.parameters() if value.requires_grad]
        self.optimiser = torch.optim.Adam(trained, lr=config.optimiser.learning_rate)
        torch.manual_seed(config.seed)
        if checkpoint is not None:
            self.optimiser.load_state_dict(checkpoint["optimiser"])
            torch.set_rng_state(checkpoint["rng"])
        self._step_network: nn.Module = self.network
        if process.world > 1:
            self._step_network = DistributedDataParallel(self.network)
        data = config.data
        sources = [open_pairs(name, "training", config) for name in data.sources]
        self.draws = Draws(sources, config.seed, data.crop, data.points)
        self.held_back = held_back_pairs(config) if process.first else []

    def run(self, watcher: Watcher) -> None:
        """Train to the last step.

        Raises
        ------
        D2RosError
            If the training collapses or its loss is no number.
        """
        config, progress = self.config, self.progress
        if progress.start is None:
            self._validate(watcher)
        steps = range(progress.step, config.optimiser.steps)
        share = (config.optimiser.batch, self.process.rank, self.process.world)
        for batch in batches(self.draws, steps, *share, config.data.workers):
            loss = self.step(batch)
            progress.step += 1
            progress.losses.append(float(loss.loss))
            watcher.stepped(progress.step, loss)
            check_losses(progress.losses, config.loss.margin)
            last = progress.step == config.optimiser.steps
            if last or progress.step % config.validation.every == 0:
                self._validate(watcher)
            if last or progress.step % config.checkpoint_every == 0:
                self._save()

    def step(self, batch: Batch) -> JointLoss:
        """Take one step of the optimiser; returns the loss before it, mean of all processes."""
        losses = batch_losses(self._step_network, batch, self.config, self.process.device)
        mean = JointLoss(*(torch.stack(column).mean() for column in zip(*losses, strict=True)))
        self.optimiser.zero_grad(set_to_none=True)
        mean.loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return JointLoss(*(torch.tensor(self.process.mean(value)) for value in mean))

    def _validate(self, watcher: Watcher) -> None:
        """Validate in the first process, keep the weights if they are the best so far."""
        if self.process.first:
            network = as_used(self.network)
            most = self.config.validation.max_keypoints
            accuracy = validate(network, self.held_back, most, self.process.device)
            watcher.validated(self.progress.step, accuracy)
            if self.progress.add(accuracy):
                export(self.folder, self.config, self.progress, self.network.state_dict())
        self.process.wait()

    def _save(self) -> None:
        if self.process.first:
            states = self.network.state_dict(), self.optimiser.state_dict()
            save_checkpoint(self.folder, self.config, self.progress, *states)
        self.process.wait()


def batch_losses(
    network: nn.Module, batch: Batch, config: TrainingConfig, device: torch.device
) -> list[JointLoss]:
    """The loss of every pair of a batch."""
    reduced = config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda")
    images = normalise(batch.images.to(device), torch.float32)
    with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
        responses = network(images).response.float()
    places = [(pixels.to(device) - OFFSET) / config.network.stride for pixels in batch.pixels]
    return [
        joint_loss(
            (responses[2 * k], responses[2 * k + 1]),
            (cells[0], cells[1]),
            config.loss.margin,
            config.loss.safe_radius,
        )
        for k, cells in enumerate(places)
    ]


def as_used(network: Network) -> Network:
    """The same weights on the grid in use."""
    if network.stride == Network().stride:
        return network
    fine = Network()
    fine.load_state_dict(network.state_dict())
    return fine.to(next(network.parameters()).device)


def held_back_pairs(config: TrainingConfig) -> list[Pair]:
    """The pairs to validate on: the same for every run on the same data, whatever its seed."""
    data = config.data
    if data.validation:
        sources = [open_pairs(name, "all", config) for name in data.validation]
    else:
        sources = [open_pairs(name, "validation", config) for name in data.sources]
    draws = Draws(sources, _VALIDATION_SEED, data.crop)
    return [draws[index] for index in range(config.validation.pairs)]


def check_losses(losses: Sequence[float], margin: float) -> None:
    """Stop a training that leads nowhere.

    Raises
    ------
    D2RosError
        If the last loss is no number, or the last :data:`COLLAPSE_STEPS` are all at the margin:
        every descriptor is then equal, or zero, and the gradient has no direction.
    """
    if not math.isfinite(losses[-1]):
        raise D2RosError(
            f"the loss is {losses[-1]} at step {len(losses)}; lower optimiser.learning_rate"
        )
    recent = losses[-COLLAPSE_STEPS:]
    if len(recent) == COLLAPSE_STEPS and all(abs(x - margin) < _AT_MARGIN for x in recent):
        raise D2RosError(
            f"training collapsed: the loss stays at the margin, {margin:g}, up to step "
            f"{len(losses)}, so all descriptors are equal; lower optimiser.learning_rate, or "
            "check that the images show something"
        )


@contextlib.contextmanager
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
