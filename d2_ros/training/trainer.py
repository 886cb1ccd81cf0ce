"""The training loop: pairs in, better weights out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from d2_ros.errors import D2RosError
from d2_ros.features.backbones import BACKBONES, Backbone, build_network
from d2_ros.features.network import OFFSET, STRIDE
from d2_ros.features.weights import load_weights
from d2_ros.training.checkpoints import Progress, export, load_checkpoint, save_checkpoint
from d2_ros.training.config import NetworkConfig, OptimiserConfig, TrainingConfig
from d2_ros.training.dataset import Batch, Draws, batches
from d2_ros.training.distributed import Process
from d2_ros.training.frozen import Frozen, open_cache
from d2_ros.training.losses import JointLoss, distillation_loss, joint_loss
from d2_ros.training.opening import open_pairs
from d2_ros.training.pairs import Pair
from d2_ros.training.validation import Accuracy, validate

COLLAPSE_STEPS = 20
"""So many steps in a row with the loss at the margin are a collapse."""

_AT_MARGIN = 1e-3
_VALIDATION_SEED = 2**31  # no seed of a training can be this one


class Watcher(Protocol):
    """What is told how the training goes."""

    def stepped(self, step: int, parts: Mapping[str, float]) -> None:
        """Tell of a step: its ``loss``, and what else there is to say of it."""
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
        torch.manual_seed(config.seed)
        self.network = _start(config.network)
        checkpoint = None
        if resume:
            self.progress, checkpoint = load_checkpoint(folder, config)
            self.network.load_state_dict(checkpoint["network"])
        self.network = self.network.to(process.device)
        trained = [value for value in self.network.parameters() if value.requires_grad]
        self.optimiser = torch.optim.Adam(trained, lr=config.optimiser.learning_rate)
        if checkpoint is not None:
            self.optimiser.load_state_dict(checkpoint["optimiser"])
            torch.set_rng_state(checkpoint["rng"])
        self.first = _first_trained(self.network)
        self._head: nn.Module = _Head(self.network, self.first)
        if process.world > 1:
            self._head = DistributedDataParallel(self._head)
        self.cache = open_cache(config)
        self._freeze()
        data = config.data
        sources = [open_pairs(name, "training", config) for name in data.sources]
        self.draws = Draws(sources, config.seed, data.crop, data.points, data.draws)
        self.held_back = held_back_pairs(config) if process.first else []

    def _freeze(self) -> None:
        """Split off what never changes: of the training, of the validation, and the teacher."""
        self._reduced = self.config.precision == "bf16" or (
            self.config.precision == "auto" and self.process.device.type == "cuda"
        )
        self._trunk = Frozen(self.network, self.first, self._reduced, self.cache)
        self._used_trunk = Frozen(as_used(self.network), self.first, False, self.cache)
        self._teacher: Frozen | None = None
        if self.config.network.teacher:
            weights = load_weights(self.config.network.teacher)
            teacher = build_network(weights, self.config.network.stride).requires_grad_(False)
            teacher = teacher.to(self.process.device)
            self._teacher = Frozen(teacher, None, self._reduced, self.cache)

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
        ended = self._stands_still()
        steps = range(progress.step, progress.step if ended else config.optimiser.steps)
        share = (config.optimiser.batch, self.process.rank, self.process.world)
        for batch in batches(self.draws, steps, *share, config.data.workers):
            parts = self.step(batch)
            progress.step += 1
            progress.losses.append(parts["loss"])
            watcher.stepped(progress.step, parts)
            check_losses(
                progress.losses,
                None if self._teacher or config.loss.temperature else config.loss.margin,
            )
            last = progress.step == config.optimiser.steps
            if last or progress.step % config.validation.every == 0:
                self._validate(watcher)
                last = last or self._stands_still()
            if last or progress.step % config.checkpoint_every == 0:
                self._save()
            if last:
                break

    def step(self, batch: Batch) -> dict[str, float]:
        """Take one step of the optimiser; returns the loss before it, mean of all processes."""
        pairs = batch.images.split(2)
        response = self._respond(torch.cat([self._trunk(pair) for pair in pairs]))
        if self._teacher is None:
            parts = joint_losses(response, batch.pixels, self.config)
        else:
            aim = torch.cat([self._teacher(pair) for pair in pairs])
            parts = {"loss": distillation_loss(response, aim)}
        self.optimiser.zero_grad(set_to_none=True)
        parts["loss"].backward()  # type: ignore[no-untyped-call]
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.config.optimiser, self.progress.step)
        self.optimiser.step()
        return {name: self.process.mean(value) for name, value in parts.items()}

    def _respond(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._reduced):
            response: Tensor = self._head(x)
        return response.float()

    def _stands_still(self) -> bool:
        """Whether as many validations as set brought nothing new; the first process decides."""
        progress, settings = self.progress, self.config.validation
        still = progress.step - progress.best_step >= settings.patience * settings.every
        ended = self.process.first and settings.patience > 0 and still
        return self.process.mean(torch.tensor(float(ended), device=self.process.device)) > 0

    def _validate(self, watcher: Watcher) -> None:
        """Validate in the first process, keep the weights if they are the best so far."""
        if self.process.first:
            network, most = as_used(self.network), self.config.validation.max_keypoints

            def respond(images: Tensor) -> Tensor:
                response: Tensor = network.after(self._used_trunk(images), self.first)
                return response

            accuracy = validate(respond, self.held_back, most)
            watcher.validated(self.progress.step, accuracy)
            if self.progress.add(accuracy):
                export(self.folder, self.config, self.progress, self.network.state_dict())
        self.process.wait()

    def _save(self) -> None:
        if self.process.first:
            states = self.network.state_dict(), self.optimiser.state_dict()
            save_checkpoint(self.folder, self.config, self.progress, *states)
        self.process.wait()


def learning_rate(config: OptimiserConfig, step: int) -> float:
    """Size of step number `step`, from 0: of nothing but that, so that a resumed run goes on."""
    left = 1 - step / config.steps if config.decay else 1.0
    return config.learning_rate * left


def joint_losses(
    responses: Tensor, pixels: Sequence[Tensor], config: TrainingConfig
) -> dict[str, Tensor]:
    """Mean joint loss of a batch and what it is made of.

    Parameters
    ----------
    responses
        ``(2 B, C, h, w)``.
    pixels
        As of :class:`~d2_ros.training.dataset.Batch`.
    config
        Uses ``network.stride`` and ``loss``.
    """
    losses = []
    for k, places in enumerate(pixels):
        cells = (places.to(responses.device) - OFFSET) / config.network.stride
        pair = (responses[2 * k], responses[2 * k + 1])
        settings = config.loss
        each = (settings.margin, settings.safe_radius, settings.temperature)
        losses.append(joint_loss(pair, (cells[0], cells[1]), *each))
    columns = zip(*losses, strict=True)
    return {
        name: torch.stack(column).mean()
        for name, column in zip(JointLoss._fields, columns, strict=True)
    }


def as_used(network: Backbone) -> Backbone:
    """The same weights on the grid in use."""
    if network.stride == STRIDE:
        return network
    return build_network(network.state_dict()).to(next(network.parameters()).device)


class _Head(nn.Module):
    """What is trained, and what lies behind it, as a module of its own for several processes."""

    def __init__(self, network: Backbone, first: str) -> None:
        super().__init__()
        self.network, self._first = network, first

    def forward(self, x: Tensor) -> Tensor:
        """Return the response, from what goes into the first trained layer."""
        response: Tensor = self.network.after(x, self._first)
        return response


def _first_trained(network: nn.Module) -> str:
    """Name of the first layer that takes gradients."""
    return next(
        name
        for name, layer in network.named_children()
        if any(value.requires_grad for value in layer.parameters())
    )


def _start(config: NetworkConfig) -> Backbone:
    """The network before the first step; only the layers to train take gradients."""
    if config.weights:
        network = build_network(load_weights(config.weights), config.stride)
    else:
        network = BACKBONES[config.backbone](config.stride)
    network.requires_grad_(False)
    layers = dict(network.named_children())
    chosen = list(layers) if config.layers == ("all",) else config.layers
    if not chosen or (odd := sorted(set(chosen) - layers.keys())):
        found = f"has {', '.join(odd)}" if chosen else "is empty"
        raise D2RosError(
            f"parameter network.layers {found}; choose from {', '.join(layers)}, or all"
        )
    for name in chosen:
        layers[name].requires_grad_(True)
    return network


def held_back_pairs(config: TrainingConfig) -> list[Pair]:
    """The pairs to validate on: the same for every run on the same data, whatever its seed."""
    data = config.data
    if data.validation:
        sources = [open_pairs(name, "all", config) for name in data.validation]
    else:
        sources = [open_pairs(name, "validation", config) for name in data.sources]
    draws = Draws(sources, _VALIDATION_SEED, data.crop)
    return [draws[index] for index in range(config.validation.pairs)]


def check_losses(losses: Sequence[float], margin: float | None) -> None:
    """Stop a training that leads nowhere.

    Parameters
    ----------
    losses
        Of all steps so far.
    margin
        Of the joint loss; None for another loss, which cannot collapse so.

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
    if margin is None or len(recent) < COLLAPSE_STEPS:
        return
    if all(abs(x - margin) < _AT_MARGIN for x in recent):
        raise D2RosError(
            f"training collapsed: the loss stays at the margin, {margin:g}, up to step "
            f"{len(losses)}, so all descriptors are equal; lower optimiser.learning_rate, or "
            "check that the images show something"
        )
