"""What a run leaves on disk: checkpoints to go on from, and weights for the front-end."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2_ros import __version__
from d2_ros.config import parameters
from d2_ros.errors import D2RosError
from d2_ros.features.weights import pack_weights
from d2_ros.files import write_file
from d2_ros.training.config import TrainingConfig
from d2_ros.training.validation import Accuracy

CHECKPOINT, BEST = "checkpoint.pt", "best.safetensors"
"""Names of the files in a run's folder."""

_FREE = {"device", "threads", "checkpoint_every", "optimiser.steps", "data.workers", "cache",
         "cache_size", "validation.patience"}  # fmt: skip
"""Settings that may change when a run is resumed."""


@dataclass
class Progress:
    """How far a run has come.

    Attributes
    ----------
    step
        Steps done.
    losses
        Of each step.
    start, best, last
        Accuracy before the first step, at the best step and at the last validation.
    best_step
        Where the best one was.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    start: Accuracy | None = None
    best: Accuracy | None = None
    last: Accuracy | None = None
    best_step: int = 0

    def add(self, accuracy: Accuracy) -> bool:
        """Note a validation; say whether it is the best so far (at 3 px)."""
        self.start, self.last = self.start or accuracy, accuracy
        better = self.best is None or accuracy.mma_3px > self.best.mma_3px
        if better:
            self.best, self.best_step = accuracy, self.step
        return better

    def figures(self) -> dict[str, float | int]:
        """Return all figures as one flat object."""
        tenth = max(len(self.losses) // 10, 1)
        result: dict[str, float | int] = {"steps": self.step, "best_step": self.best_step}
        if self.losses:
            result["loss_first_tenth"] = sum(self.losses[:tenth]) / tenth
            result["loss_last_tenth"] = sum(self.losses[-tenth:]) / tenth
        named = {"start": self.start, "best": self.best, "last": self.last}
        for name, accuracy in named.items():
            if accuracy:
                result |= {f"{name}.{key}": value for key, value in asdict(accuracy).items()}
        return result


def settings_of(config: TrainingConfig) -> dict[str, Any]:
    """Every setting by its dotted name."""
    return {parameter.name: parameter.default for parameter in parameters(config)}


def save_checkpoint(
    folder: Path,
    config: TrainingConfig,
    progress: Progress,
    network: Mapping[str, Tensor],
    optimiser: Mapping[str, Any],
) -> None:
    """Write all that it takes to go on exactly, in one step."""
    buffer = io.BytesIO()
    content = {
        "settings": settings_of(config),
        "progress": asdict(progress),
        "network": dict(network),
        "optimiser": dict(optimiser),
        "rng": torch.get_rng_state(),
    }
    torch.save(content, buffer)
    write_file(folder / CHECKPOINT, buffer.getvalue())


def load_checkpoint(folder: Path, config: TrainingConfig) -> tuple[Progress, dict[str, Any]]:
    """Read what :func:`save_checkpoint` wrote.

    Returns
    -------
    The progress, and the entries ``network``, ``optimiser`` and ``rng``.

    Raises
    ------
    D2RosError
        If there is none, it is damaged, or was made with other settings.
    """
    path = folder / CHECKPOINT
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        made_with, noted = content["settings"], content["progress"]
    except OSError as error:
        raise D2RosError(
            f"checkpoint {path} cannot be read: {error.strerror}; start without --resume"
        ) from None
    except Exception:  # a damaged file can raise nearly anything
        raise D2RosError(
            f"checkpoint {path} is damaged or not of `d2-ros train`; start anew elsewhere"
        ) from None
    now = settings_of(config)
    free = _FREE - {"optimiser.steps"} if config.optimiser.decay else _FREE
    odd = [key for key in now if key not in free and now[key] != made_with.get(key)]
    if odd:
        raise D2RosError(
            f"parameter {odd[0]} is {now[odd[0]]!r}, but the run in {folder} was made with "
            f"{made_with.get(odd[0])!r}; resume with the same settings or choose another --out"
        )
    for name in ("start", "best", "last"):
        noted[name] = Accuracy(**noted[name]) if noted[name] else None
    return Progress(**noted), content


def export(
    folder: Path, config: TrainingConfig, progress: Progress, network: Mapping[str, Tensor]
) -> Path:
    """Write weights for the front-end, with where they come from inside.

    Returns
    -------
    The file; ``d2-ros weights import`` and ``-p weights:=FILE`` take it.
    """
    notes = {
        "trained_from": config.network.weights,
        "data": ", ".join(config.data.sources),
        "d2_ros": __version__,
        "commit": commit(),
        "torch": torch.__version__,
        "settings": json.dumps(settings_of(config)),
        "figures": json.dumps(progress.figures()),
    }
    path = folder / BEST
    write_file(path, pack_weights(network, notes, "the trained network's"))
    return path


def commit() -> str:
    """Return the commit of the checkout this package runs from, marked if changed, or unknown."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty",
               "--abbrev=40", "--exclude=*"]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
