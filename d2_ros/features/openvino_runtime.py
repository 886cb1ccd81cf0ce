"""The network in OpenVINO, on the CPU: fp32, bf16, or 8-bit weights and activations."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from d2_ros.errors import D2RosError, optional_import
from d2_ros.features.calibration import photographs
from d2_ros.features.runtime import Portable, to_host
from d2_ros.user_folders import user_folder

RECIPE = "photographs-1"
"""Changes whenever int8 models have to be made anew: how they are made is part of their name."""

MISSING = (
    "runtime openvino needs the package openvino, and int8 nncf too; install them with "
    "`pip install openvino nncf`, or set runtime to torch"
)


class OpenVinoRuntime:
    """The network compiled for the CPU; an int8 model is made at first use and kept.

    Raises
    ------
    D2RosError
        If OpenVINO, or for a new int8 model NNCF, is not installed.
    """

    def __init__(self, network: nn.Module, precision: str, threads: int) -> None:
        model = kept_int8(network) if precision == "int8" else convert(network)
        self._model = compile_model(model, precision, threads)

    def respond(self, images: Tensor) -> Tensor:
        """As :meth:`d2_ros.features.runtime.Runtime.respond`."""
        maps = self._model([to_host(images).numpy()])[0]
        return torch.from_numpy(maps).permute(0, 3, 1, 2)


def compile_model(model: Any, precision: str, threads: int) -> Any:
    """An OpenVINO model for the CPU; `threads` 0 takes all cores."""
    hints: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    if threads:
        hints["INFERENCE_NUM_THREADS"] = threads
    return _openvino().Core().compile_model(model, "CPU", hints)


def convert(network: nn.Module, size: tuple[int, int] | None = None) -> Any:
    """Convert a network in fp32 on the CPU.

    Parameters
    ----------
    size
        Fixed width and height of the images, one a batch; None leaves all open.

    Raises
    ------
    D2RosError
        If OpenVINO is not installed.
    """
    openvino = _openvino()
    width, height = size or (64, 64)
    example = torch.zeros(1, height, width, 3)
    shape = [1, height, width, 3] if size else [-1, -1, -1, 3]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch, which calls tracing old
        traced = torch.jit.trace(Portable(network), example, check_trace=False)
        model = openvino.convert_model(traced, input=[openvino.PartialShape(shape)])
    model.inputs[0].tensor.set_names({"images"})
    model.outputs[0].tensor.set_names({"response"})
    return model


def quantise(model: Any, images: Sequence[NDArray[np.float32]]) -> Any:
    """Post-training quantisation to 8 bits (NNCF), activations' ranges from `images`.

    Parameters
    ----------
    images
        Each ``(1, H, W, 3)`` float32 BGR, 0-255.

    Raises
    ------
    D2RosError
        If NNCF is not installed.
    """
    with optional_import(MISSING):
        import nncf
    nncf.set_log_level(30)  # warnings
    return nncf.quantize(model, nncf.Dataset(list(images)), subset_size=len(images))


def kept_int8(network: nn.Module) -> Any:
    """The int8 model of these weights from the user's cache, made first if it is not there.

    Raises
    ------
    D2RosError
        If it has to be made and cannot be, or the cache cannot be written.
    """
    openvino = _openvino()
    cache = user_folder("XDG_CACHE_HOME", ".cache")
    if cache is None:
        raise D2RosError("there is no home to keep int8 models in; set HOME or XDG_CACHE_HOME")
    folder = cache / "models" / f"{_fingerprint(network, openvino.__version__)}_int8"
    if not _whole(folder):
        save(quantise(convert(network), photographs()), folder)
    return openvino.Core().read_model(folder / "model.xml")


def save(model: Any, folder: Path) -> None:
    """Write ``model.xml``, ``model.bin`` and ``sha256`` into a folder, each when it is complete.

    The checksum comes last and is that of both: what is only half new does not agree with it.

    Raises
    ------
    D2RosError
        If they cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            part = Path(scratch)
            _openvino().save_model(model, str(part / "model.xml"), compress_to_fp16=False)
            (part / "sha256").write_text(_checksum(part))
            for name in ("model.bin", "model.xml", "sha256"):
                (part / name).replace(folder / name)
    except (OSError, RuntimeError) as error:
        raise D2RosError(
            f"cannot keep an OpenVINO model in {folder}: {error}; choose another place "
            "(XDG_CACHE_HOME for those made at first use)"
        ) from None


def _whole(folder: Path) -> bool:
    try:
        return (folder / "sha256").read_text() == _checksum(folder)
    except (OSError, UnicodeDecodeError):
        return False


def _checksum(folder: Path) -> str:
    content = [(folder / name).read_bytes() for name in ("model.xml", "model.bin")]
    return hashlib.sha256(b"".join(content)).hexdigest()


def _fingerprint(network: nn.Module, version: str) -> str:
    digest = hashlib.sha256(f"{RECIPE} {version}".encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _openvino() -> Any:
    with optional_import(MISSING):
        import openvino
    return openvino
