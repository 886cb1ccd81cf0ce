"""Files of the network for other programs, checked against torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from d2_ros.features.comparison import Comparison, compare
from d2_ros.features.runtime import TorchRuntime, to_host


def export_openvino(
    network: nn.Module,
    folder: Path,
    size: tuple[int, int] | None,
    calibration: Sequence[NDArray[np.float32]] | None,
) -> None:
    """Write ``model.xml`` and ``model.bin`` to `folder`, in int8 if there is a calibration.

    Parameters
    ----------
    network
        In fp32 on the CPU.
    size
        Fixed width and height of the images, one a batch; None leaves all open.
    calibration
        Images as :func:`~d2_ros.features.calibration.batches` gives them, of `size`.

    Raises
    ------
    D2RosError
        If something is not installed or cannot be written.
    """
    from d2_ros.features.openvino_runtime import convert, quantise, save

    model = convert(network, size)
    save(quantise(model, calibration) if calibration is not None else model, folder)


def check_openvino(network: nn.Module, folder: Path, images: Sequence[Tensor]) -> Comparison:
    """Hold the written files against torch; images as :func:`compare` takes them."""
    from d2_ros.features.openvino_runtime import compile_model

    model = compile_model(folder / "model.xml", "fp32", 0)  # int8 layers stay what they are

    def respond(batch: Tensor) -> Tensor:
        return torch.from_numpy(model([to_host(batch).numpy()])[0]).permute(0, 3, 1, 2)

    return compare(TorchRuntime(network, torch.float32).respond, respond, images)


def check_onnx(network: nn.Module, content: bytes, images: Sequence[Tensor]) -> Comparison:
    """Hold an ONNX file against torch, on the CPU; images as :func:`compare` takes them.

    Raises
    ------
    D2RosError
        If ONNX Runtime is not installed.
    """
    from d2_ros.features.onnx_runtime import CPU, open_session

    session = open_session(content, [CPU], 0)

    def respond(batch: Tensor) -> Tensor:
        (maps,) = session.run(None, {"images": to_host(batch).numpy()})
        return torch.from_numpy(maps).permute(0, 3, 1, 2)

    return compare(TorchRuntime(network, torch.float32).respond, respond, images)
