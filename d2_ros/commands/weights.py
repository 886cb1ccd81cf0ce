"""``d2-ros weights``: the checkpoints this machine knows, and what can be made of them."""

from __future__ import annotations

import json as json_module
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d2_ros.commands.common import (
    Json,
    output_file,
    output_files,
    output_folder,
    write_json,
)
from d2_ros.commands.weights_average import average
from d2_ros.commands.weights_project import project
from d2_ros.errors import D2RosError
from d2_ros.files import write_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHECKED = 3
"""Images on which an exported file is held against torch."""


class Format(str, Enum):
    """What other programs read."""

    ONNX = "onnx"
    OPENVINO = "openvino"


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    weights = typer.Typer(
        help="List, import, verify, export, project and average weights.", no_args_is_help=True
    )
    weights.command("list")(list_weights)
    weights.command("import")(import_weights)
    weights.command("verify")(verify_weights)
    weights.command("export")(export_weights)
    weights.command("project")(project)
    weights.command("average")(average)
    app.add_typer(weights, name="weights")


def list_weights(json: Json = None) -> None:
    """List all weights that can be loaded by name, with checksum, size, state and origin."""
    from d2_ros.features.weights import known_weights, read_notes

    figures: dict[str, float | int | str] = {}
    for file in known_weights():
        size = file.path.stat().st_size if file.path.is_file() else 0
        state = "verified" if _fault(file.name) is None else "damaged"
        typer.echo(f"{file.name}  {state}  {size / 1e6:.1f} MB")
        typer.echo(f"  {file.path}\n  sha256 {file.sha256 or 'not recorded'}")
        for line in _origin(read_notes(file.path)):
            typer.echo(f"  {line}")
        figures[f"{file.name}.path"] = str(file.path)
        figures[f"{file.name}.sha256"] = file.sha256
        figures[f"{file.name}.size_bytes"] = size
        figures[f"{file.name}.state"] = state
    if json:
        write_json(json, figures)


def import_weights(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="FILE", help="Official .pth, or .safetensors.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Name to give it; default: the file's own.")
    ] = None,
) -> None:
    """Convert a checkpoint to half precision and keep it under a name, for this user."""
    from d2_ros.features import weights

    file = weights.import_weights(checkpoint, name or checkpoint.stem)
    typer.echo(f"{file.name}  {file.path}\n  sha256 {file.sha256}")
    typer.echo(f"Use it with  -p weights:={file.name}")


def verify_weights(
    name: Annotated[str | None, typer.Argument(help="Which weights; default: all.")] = None,
) -> None:
    """Check weights against their SHA-256 and for their content; exit code 2 if any is damaged."""
    from d2_ros.features.weights import find_weights, known_weights

    faults = []
    for file in [find_weights(name)] if name else known_weights():
        fault = _fault(file.name)
        typer.echo(f"{file.name}  {fault or 'verified'}")
        if fault:
            faults.append(file.name)
    if faults:
        raise D2RosError(f"weights {', '.join(faults)} failed verification, see above")


def export_weights(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Weights by name, or a checkpoint.")],
    out: Annotated[Path, typer.Option(help="ONNX file, or folder for OpenVINO's files.")],
    form: Annotated[Format, typer.Option("--format", help="What to write.")],
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Fixed size, px; default: any size.")
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit weights and activations (OpenVINO).")
    ] = False,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="SRC", help="Recording for --int8; default: scikit-image's photographs."
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Write the network for another program and hold the file against torch.

    Images go in as (B, H, W, 3) float32 BGR, 0-255, responses come out as (B, h, w, 512).
    """
    import torch

    from d2_ros.features.backbones import build_network
    from d2_ros.features.export import check_onnx, check_openvino, export_openvino
    from d2_ros.features.weights import load_weights

    if int8 and form is not Format.OPENVINO:
        raise D2RosError("--int8 is written for OpenVINO only; add --format openvino")
    if calibrate and not int8:
        raise D2RosError("--calibrate is for --int8; add that, or leave it out")
    output_files([json], name, calibrate)
    fixed = _parse_size(size)
    network = build_network(load_weights(name)).requires_grad_(False).eval()
    images = _calibration(calibrate, fixed)
    checked = [torch.from_numpy(image) for image in images[:CHECKED]]
    if form is Format.ONNX:
        from d2_ros.features.onnx_runtime import to_onnx

        output_file(out, name)
        content = to_onnx(network, fixed)
        comparison = check_onnx(network, content, checked)
        write_file(out, content)
    else:
        output_folder(out, name, calibrate)
        export_openvino(network, out, fixed, images if int8 else None)
        comparison = check_openvino(network, out, checked)
    figures: dict[str, float | int | str] = {"out": str(out), "images": len(checked)}
    typer.echo(f"{out}: against torch in fp32, on {len(checked)} images,")
    typer.echo(
        f"  worst response error {comparison.worst_error:.2g} of the largest response "
        f"({comparison.relative_error:.2g} over all), strongest channel the same in "
        f"{comparison.same_channel:.1%} of the cells, {comparison.same_keypoints:.1%} of "
        f"{comparison.keypoints} keypoints equal within a pixel"
    )
    if json:
        write_json(json, figures | asdict(comparison))


def _origin(notes: Mapping[str, str]) -> Iterator[str]:
    """Say what a training and a projection noted in a weights file."""
    if "figures" in notes:
        try:
            figures = dict(json_module.loads(notes["figures"]))
        except (TypeError, ValueError):  # not of d2-ros train
            figures = {}
        yield (
            f"trained from {notes.get('trained_from', '?')} on {notes.get('data', '?')}, "
            f"{figures.get('best_step', '?')} steps"
        )
        if {"start.mma_3px", "best.mma_3px"} <= figures.keys():
            yield (
                f"matching accuracy at 3 px on held-back pairs {figures['start.mma_3px']:.3f} "
                f"before, {figures['best.mma_3px']:.3f} after"
            )
    if "averaged_from" in notes:
        yield f"mean of {notes['averaged_from']}, trained on {notes.get('data', '?')}"
    if "projection" in notes:
        yield f"descriptors of {notes['projection']}"


def _parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text)
    if not match or min(int(edge) for edge in match.groups()) < 64:
        raise D2RosError(f"--size is {text!r}; write WIDTHxHEIGHT in px, at least 64x64")
    return int(match[1]), int(match[2])


def _calibration(source: str | None, size: tuple[int, int] | None) -> list[NDArray[np.float32]]:
    """Images to calibrate and check with, of `size` if that is fixed."""
    from d2_ros.features.calibration import MOST, batches, photographs, resized
    from d2_ros.sources import open_source

    if source is None:
        images = photographs()
    else:
        opened = open_source(source)
        spread = islice(iter(opened), 0, None, max(1, len(opened) // MOST))
        images = batches(frame.image for frame in spread)
        if not images:
            raise D2RosError(f"{source} has no frames to calibrate with; give another recording")
    return [resized(image, size) for image in images] if size else images


def _fault(name: str) -> str | None:
    """What is wrong with named weights, None if nothing."""
    from d2_ros.features import weights

    try:
        weights.verify_weights(name)
    except D2RosError as error:
        return str(error)
    return None
