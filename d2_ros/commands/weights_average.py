"""``d2-ros weights average``: the mean of several weights of one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from d2_ros.commands.common import output_file
from d2_ros.commands.weights_project import notes_of
from d2_ros.files import write_file


def average(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Weights by name, or checkpoints.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Weights to write, .safetensors.")],
    share: Annotated[
        list[float] | None,
        typer.Option(metavar="NUMBER", help="Of one NAME, in their order; default: all alike."),
    ] = None,
) -> None:
    """Average weights: trainings with each other, or with what they started from."""
    from d2_ros.features import averaging
    from d2_ros.features.weights import load_weights, pack_weights

    output_file(out, *names)
    shares = share or [1.0] * len(names)
    state = averaging.average([load_weights(name) for name in names], shares)
    notes = _notes(names, shares)
    write_file(out, pack_weights(state, notes, "the mean's"))
    typer.echo(f"{out}: {notes['averaged_from']}")
    typer.echo(f"Use it with  -p weights:={out}")


def _notes(names: Sequence[str], shares: Sequence[float]) -> dict[str, str]:
    """What goes into the file: the shares, and what the weights say of their origin."""
    from d2_ros.features.weights import SHIPPED

    total = sum(shares)
    parts = (f"{share / total:.3g} {name}" for name, share in zip(names, shares, strict=True))
    origins: list[Mapping[str, str]] = [
        {"trained_from": name} if name in SHIPPED else notes_of(name) for name in names
    ]
    begins = {origin.get("trained_from", "") for origin in origins}
    data = dict.fromkeys(origin["data"] for origin in origins if "data" in origin)
    notes = {"averaged_from": ", ".join(parts), "data": "; ".join(data)}
    # Of a common beginning, layers that nobody trained are left out of the file.
    return notes | ({"trained_from": begins.pop()} if len(begins) == 1 else {})
