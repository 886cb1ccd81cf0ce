"""The network in ONNX Runtime, fp32: on the CPU, or on a GPU where its build has that."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import torch
from torch import Tensor, nn

from d2_ros.errors import D2RosError, optional_import
from d2_ros.features.runtime import Portable, to_host

MISSING = (
    "runtime onnxruntime and ONNX files need the packages onnx and onnxruntime; install them with "
    "`pip install onnx onnxruntime`, or set runtime to torch"
)
CPU, GPU = "CPUExecutionProvider", ("TensorrtExecutionProvider", "CUDAExecutionProvider")


class OnnxRuntime:
    """The network in a session of its own; responses come back to the CPU.

    Raises
    ------
    D2RosError
        If ONNX Runtime is not installed, or has no GPU though one is asked for.
    """

    def __init__(self, network: nn.Module, device: str, threads: int) -> None:
        runtime = _onnxruntime()
        providers = pick_providers(device, runtime.get_available_providers())
        self._session = open_session(to_onnx(network), providers, threads)
        # ONNX Runtime goes on with the CPU where a provider does not start, with a line in its log.
        if device == "cuda" and not set(GPU) & set(self._session.get_providers()):
            raise D2RosError(
                f"parameter device is 'cuda' but {' and '.join(providers[:-1])} of ONNX Runtime "
                "did not start: its log above says why; set device to auto or cpu"
            )

    def respond(self, images: Tensor) -> Tensor:
        """As :meth:`d2_ros.features.runtime.Runtime.respond`."""
        (maps,) = self._session.run(None, {"images": to_host(images).numpy()})
        return torch.from_numpy(maps).permute(0, 3, 1, 2)


def open_session(model: bytes, providers: Sequence[str], threads: int) -> Any:
    """A session of an ONNX model; `threads` 0 takes all cores."""
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    return runtime.InferenceSession(model, options, providers=list(providers))


def pick_providers(device: str, available: Sequence[str]) -> list[str]:
    """Execution providers for parameter ``device``, best first.

    Raises
    ------
    D2RosError
        If a GPU is asked for and the installed build has none.
    """
    found = [name for name in GPU if name in available]
    if device == "cuda" and not found:
        raise D2RosError(
            "parameter device is 'cuda' but the installed ONNX Runtime has neither "
            f"{' nor '.join(GPU)}; install onnxruntime-gpu, or set device to auto or cpu"
        )
    return [CPU] if device == "cpu" else [*found, CPU]


def to_onnx(network: nn.Module, size: tuple[int, int] | None = None) -> bytes:
    """Content of an ONNX file of a network in fp32 on the CPU.

    Parameters
    ----------
    size
        Fixed width and height of the images, one a batch; None leaves all open.

    Raises
    ------
    D2RosError
        If the package onnx is not installed.
    """
    width, height = size or (64, 64)
    axes = {"images": {0: "batch", 1: "height", 2: "width"}}
    axes["response"] = {0: "batch", 1: "rows", 2: "columns"}
    content = BytesIO()
    with optional_import(MISSING):
        import onnx  # noqa: F401  torch needs it and would say so less plainly
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch, which calls tracing old
        torch.onnx.export(
            Portable(network).eval(),
            (torch.zeros(1, height, width, 3),),
            content,  # type: ignore[arg-type]  # torch's stubs lack files in memory
            input_names=["images"],
            output_names=["response"],
            dynamic_axes=None if size else axes,
            opset_version=17,
            dynamo=False,
        )
    return content.getvalue()


def _onnxruntime() -> Any:
    with optional_import(MISSING):
        import onnxruntime
    return onnxruntime
