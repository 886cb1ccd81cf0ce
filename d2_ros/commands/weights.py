"""``d2-ros weights list|import|verify``: the checkpoints this machine knows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from d2_ros.commands.common import Json, write_json
from d2_ros.errors import D2RosError


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    weights = typer.Typer(help="List, import and verify weights.", no_args_is_help=True)
    weights.command("list")(list_weights)
    weights.command("import")(import_weights)
    weights.command("verify")(verify_weights)
    app.add_typer(weights, name="weights")


def list_weights(json: Json = None) -> None:
    """List all weights that can be loaded by name, with checksum, size and state."""
    from d2_ros.features.weights import known_weights

    figures: dict[str, float | int | str] = {}
    for file in known_weights():
        size = file.path.stat().st_size if file.path.is_file() else 0
        state = "verified" if _fault(file.name) is None else "damaged"
        typer.echo(f"{file.name}  {state}  {size / 1e6:.1f} MB")
        typer.echo(f"  {file.path}\n  sha256 {file.sha256 or 'not recorded'}")
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


def _fault(name: str) -> str | None:
    """What is wrong with named weights, None if nothing."""
    from d2_ros.features import weights

    try:
        weights.verify_weights(name)
    except D2RosError as error:
        return str(error)
    return None
