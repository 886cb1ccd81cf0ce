"""The least time that a stage can take: its operations and bytes over the measured rates."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from d2_ros.benchmark.machine import Machine
from d2_ros.config import Config
from d2_ros.features.backbones import BACKBONES, recognise
from d2_ros.features.network import CHANNELS, STRIDE
from d2_ros.features.projection import projection_of
from d2_ros.features.weights import load_weights


def network_macs(backbone: str, width: int, height: int) -> float:
    """Multiplications with addition of one forward pass over an image of this size, px."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        BACKBONES[backbone](STRIDE)(torch.empty(1, 3, height, width))
    return counter.get_total_flops() / 2


def floors_ms(
    config: Config, machine: Machine, size: tuple[int, int], keypoints: float
) -> dict[str, float]:
    """Floors of the stages that have one, milliseconds.

    The network by its operations; detection by reading the response map once; matching by the
    operations of one product of the frame's descriptors with those of the full window.

    Parameters
    ----------
    config
        Uses ``weights``, ``features.max_edge`` and ``window.size``.
    machine
        The measured rates.
    size
        Width and height of the raw image, px.
    keypoints
        Mean number per frame.
    """
    shrink = min(1.0, config.features.max_edge / max(size))
    width, height = (round(edge * shrink) for edge in size)
    weights = load_weights(config.weights)
    macs = network_macs(recognise(weights), width, height)
    projection = projection_of(weights)
    values = len(projection.bias) if projection else CHANNELS
    cells = (width // STRIDE) * (height // STRIDE)
    map_bytes = cells * CHANNELS * machine.dtype.itemsize
    products = keypoints * keypoints * config.window.size * values
    return {
        "network": 1e3 * macs / machine.macs_per_s,
        "detection": 1e3 * map_bytes / machine.bytes_per_s,
        "matching": 1e3 * products / machine.macs_per_s,
    }
