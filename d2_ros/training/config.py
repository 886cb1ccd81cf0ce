"""Every setting of the training: default, unit, range and meaning, as in :mod:`d2_ros.config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2_ros.config import param, with_values
from d2_ros.config_text import yaml_lines
from d2_ros.errors import D2RosError
from d2_ros.features.backbones import BACKBONES
from d2_ros.parameter_files import dotted, read_group

STRIDES = (4, 8)


@dataclass(frozen=True)
class NetworkConfig:
    """What is trained, and on which grid."""

    weights: str = param(
        "off_the_shelf", "Name or path of the weights to start from; empty draws them."
    )
    backbone: str = param(
        "vgg16", "Network whose weights are drawn, if they are.", choices=tuple(BACKBONES)
    )
    stride: int = param(
        STRIDES[0],
        "Grid of the response while training: 4 as in use, 8 as in the paper.",
        unit="px",
        low=min(STRIDES),
        high=max(STRIDES),
    )
    layers: tuple[str, ...] = param(["conv4_3"], "Layers that are trained; all takes all.")
    teacher: str = param(
        "", "Weights to distil: their response is the aim, in the joint loss's place."
    )

    def __post_init__(self) -> None:
        if self.stride not in STRIDES:
            raise D2RosError(f"parameter network.stride is {self.stride}; it must be 4 or 8")


@dataclass(frozen=True)
class DataConfig:
    """Where pairs of images with correspondences come from."""

    sources: tuple[str, ...] = param(
        [], "KIND:PLACE of each source of pairs; docs/training.md lists the kinds."
    )
    held_back: float = param(
        0.2, "Share of every source's images, its last, kept for validation.", low=0.0, high=0.9
    )
    validation: tuple[str, ...] = param(
        [], "Sources that serve for validation as a whole; empty takes what is held back."
    )
    crop: int = param(256, "Side of the square windows around shared points.", unit="px",
                      low=64, high=1024)  # fmt: skip
    max_edge: int = param(
        640, "Longer photographs are reduced to this long edge.", unit="px", low=64, high=8192
    )
    points: int = param(
        512, "Most correspondences per pair, drawn anew each time.", low=16, high=16384
    )
    min_overlap: float = param(
        0.2, "Pairs that share a smaller part of what they see are left out.", low=0.0, high=1.0
    )
    max_overlap: float = param(
        0.95, "Pairs that share a larger part are too easy and left out.", low=0.0, high=1.0
    )
    draws: int = param(
        0, "Different pairs of windows, after which they come again; 0 draws new ones for ever.",
        low=0, high=100_000_000)  # fmt: skip
    workers: int = param(
        0, "Processes that prepare pairs; 0 does it in the training's own.", low=0, high=256
    )


@dataclass(frozen=True)
class AugmentationConfig:
    """How much the random homographies and photometric changes of photographs change."""

    rotation: float = param(0.5, "Largest turn to either side.", unit="rad", low=0.0, high=3.15)
    zoom: float = param(1.4, "Largest factor by which the size changes.", low=1.0, high=4.0)
    shift: float = param(
        0.15, "Largest shift, as a share of the window, per axis.", low=0.0, high=0.5
    )
    perspective: float = param(
        0.3, "Largest change of size across the window, per axis, relative.", low=0.0, high=0.9
    )
    blur: float = param(1.5, "Largest standard deviation of the blur.", unit="px", low=0, high=10.0)
    gain: float = param(0.4, "Largest exposure change, natural logarithm.", low=0.0, high=2.0)
    gamma: float = param(0.3, "Largest gamma, natural logarithm.", low=0.0, high=2.0)
    noise: float = param(
        8.0, "Largest standard deviation of sensor noise.", unit="gray value", low=0.0, high=100.0
    )
    jpeg: int = param(40, "Lowest JPEG quality; 100 leaves compression out.", low=5, high=100)
    shadow: float = param(
        0.5, "Strongest darkening by a shadow with a soft edge.", low=0.0, high=0.95
    )
    lamps: int = param(2, "Most lamps that light up a round place.", low=0, high=16)
    lamp: float = param(1.0, "Most light that a lamp adds, relative.", low=0.0, high=16.0)
    tint: float = param(
        0.1, "Largest change of one colour against the others, natural logarithm.",
        low=0.0, high=2.0)  # fmt: skip
    haze: float = param(0.3, "Largest share of haze.", low=0.0, high=0.95)
    night: float = param(
        0.1, "Share of images taken at night: little light, amplified, with its noise.",
        low=0.0, high=1.0)  # fmt: skip


@dataclass(frozen=True)
class LossConfig:
    """The joint loss."""

    margin: float = param(
        1.0, "Margin between right and wrong squared distances.", low=0.01, high=4
    )
    temperature: float = param(
        0.0, "0 takes the hardest negative and the margin; otherwise a softmax over all negatives "
        "with this temperature, a difference of cosines.", low=0.0, high=1.0)  # fmt: skip
    safe_radius: float = param(
        4.0, "Cells around the right one that are no negatives.", unit="cells", low=0.0, high=64.0
    )


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam."""

    learning_rate: float = param(1e-3, "Step size.", low=1e-8, high=1.0)
    batch: int = param(
        1, "Pairs per step, all processes together; the paper takes 1.", low=1, high=4096
    )
    steps: int = param(20000, "Steps in all.", low=1, high=100_000_000)
    decay: bool = param(False, "Whether the step size falls, in a line, to zero at the last step.")


@dataclass(frozen=True)
class ValidationConfig:
    """Matching accuracy on held-back pairs, on the grid in use (stride 4)."""

    every: int = param(500, "Steps from one validation to the next.", low=1, high=100_000_000)
    pairs: int = param(64, "Pairs, drawn once.", low=1, high=100_000)
    patience: int = param(
        0, "Validations without a new best after which training ends; 0 goes on to the last step.",
        low=0, high=100_000)  # fmt: skip
    max_keypoints: int = param(500, "Most keypoints per image.", low=10, high=8000)


@dataclass(frozen=True)
class TrainingConfig:
    """All settings of ``d2-ros train``. Nested groups become dotted names."""

    device: str = param(
        "auto",
        "Where to train: auto takes the GPU where there is one.",
        choices=("auto", "cpu", "cuda"),
    )
    precision: str = param(
        "auto",
        "Arithmetic of the network; the loss is always fp32. auto is bf16 on a GPU, else fp32.",
        choices=("auto", "fp32", "bf16"),
    )
    threads: int = param(0, "CPU threads; 0 takes all cores.", low=0, high=256)
    deterministic: bool = param(False, "Only operations that give the same bits every time.")
    seed: int = param(0, "Seed of order, pairs, crops and changes.", low=0, high=2**31 - 1)
    checkpoint_every: int = param(
        500, "Steps from one checkpoint to the next.", low=1, high=100_000_000
    )
    cache: str = param(
        "", "Folder for what the layers that are not trained make of each pair; empty keeps none."
    )
    cache_size: float = param(
        20.0, "Size up to which pairs are added to the cache.", unit="GB", low=0.0, high=1e6
    )
    network: NetworkConfig = NetworkConfig()
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    validation: ValidationConfig = ValidationConfig()


def load_training_config(path: Path, overrides: Mapping[str, Any] | None = None) -> TrainingConfig:
    """Read a YAML file of nested groups, then replace the dotted names of `overrides`.

    Raises
    ------
    D2RosError
        If the file cannot be read, or for an unknown name or a value that is not possible.
    """
    try:
        values = dict(dotted(read_group(path)))
    except D2RosError as error:
        raise D2RosError(f"training file {path} cannot be read: {error}") from None
    values |= overrides or {}
    config = with_values(TrainingConfig(), values, "`d2-ros train --settings` lists")
    if not config.data.sources:
        raise D2RosError(
            "parameter data.sources is empty; name what to train on, such as photos:FOLDER"
        )
    return config


def settings_text() -> str:
    """Every setting at its default, with its meaning, as a YAML file."""
    return "\n".join(yaml_lines(TrainingConfig())) + "\n"
