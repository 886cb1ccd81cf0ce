"""``d2-ros weights project``: weights with a projection that shortens their descriptors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from d2_ros.commands.common import Overrides, output_file, read_overrides
from d2_ros.files import write_file


def project(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Weights by name, or a checkpoint.")],
    config: Annotated[
        Path, typer.Option(metavar="FILE", help="Settings of d2-ros train: data, seed, cache.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Weights to write, .safetensors.")],
    size: Annotated[int, typer.Option(min=2, max=511, help="Values of a descriptor.")] = 128,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of windows to fit to.")] = 400,
    shrinkage: Annotated[
        float,
        typer.Option(min=0, help="0: trust how points were seen to differ; large: plain PCA."),
    ] = 0.2,
    overrides: Overrides = None,
) -> None:
    """Add a projection to weights that shortens their descriptors, fitted to training pairs."""
    from rich.console import Console
    from rich.progress import track

    from d2_ros.features.projection import without_projection
    from d2_ros.features.weights import load_weights, pack_weights
    from d2_ros.training.config import load_training_config
    from d2_ros.training.distributed import arithmetic
    from d2_ros.training.projection import fit, same_points

    chosen = load_training_config(config, read_overrides(overrides))
    output_file(out, name, config)
    state = without_projection(load_weights(name))
    with arithmetic(chosen):
        drawn = track(
            same_points(chosen, name, pairs), "Describing", pairs, console=Console(stderr=True)
        )
        parts = list(drawn)
    points = sum(len(first) for first, _ in parts)
    projection = fit(parts, size, shrinkage)
    notes = {"projected_from": name, **notes_of(name)} | {
        "projection": f"{size} values, fitted to {points} points of {pairs} pairs of "
        f"{', '.join(chosen.data.sources)}; seed {chosen.seed}, shrinkage {shrinkage:g}"
    }
    write_file(out, pack_weights({**state, **projection.state()}, notes, name))
    typer.echo(f"{out}: descriptors of {size} values, fitted to {points} points")
    typer.echo(f"Use it with  -p weights:={out}")


def notes_of(name: str) -> dict[str, str]:
    """What named weights, or a checkpoint, say of their origin."""
    from d2_ros.features.weights import find_weights, known_weights, read_notes

    known = name in {file.name for file in known_weights()}
    return read_notes(find_weights(name).path if known else Path(name))
