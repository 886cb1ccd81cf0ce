"""What the commands share: parameters, JSON files and output places."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from d2_ros.config import Config, load_params_file, with_values
from d2_ros.errors import D2RosError

ParamsFile = Annotated[
    Path | None, typer.Option("--params-file", help="The node's own YAML parameter file.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("-p", metavar="NAME:=VALUE", help="One parameter, as in ros2 run; repeatable."),
]
SourceName = Annotated[
    str,
    typer.Argument(
        metavar="SRC",
        help="A bag, a EuRoC, TUM, KITTI or image folder, a video, or synthetic[:key=value,...].",
    ),
]
ImageTopic = Annotated[
    str | None,
    typer.Option("--image-topic", help="The bag's image topic, where it has several."),
]
Json = Annotated[
    Path | None, typer.Option("--json", help="Also write the figures to this flat JSON file.")
]


Start = Annotated[int, typer.Option(min=0, help="Frames of SRC to skip at the beginning.")]
Frames = Annotated[int | None, typer.Option(min=1, help="Frames to use; default: all the others.")]


def load_config(params_file: Path | None, overrides: Sequence[str] | None) -> Config:
    """Defaults, then the parameter file, then ``name:=value`` overrides."""
    values: dict[str, Any] = load_params_file(params_file) if params_file else {}
    return with_values(Config(), values | read_overrides(overrides))


def read_overrides(overrides: Sequence[str] | None) -> dict[str, Any]:
    """``name:=value`` texts, the values in YAML, as a dictionary."""
    values: dict[str, Any] = {}
    for text in overrides or []:
        name, assign, value = text.partition(":=")
        if not assign:
            raise D2RosError(f"-p {text} is not of the form name:=value")
        values[name] = yaml.safe_load(value)
    return values


def write_json(path: Path, figures: Mapping[str, float | int | str]) -> None:
    """Write a flat object of numbers and strings."""
    try:
        path.write_text(json.dumps(dict(figures), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise D2RosError(f"cannot write {path}: {error.strerror}") from None


def output_file(path: Path, *inputs: str | Path) -> Path:
    """Return `path` once its folder exists and is writable and it is none of the inputs.

    Raises
    ------
    D2RosError
        If it cannot be written to, or writing it would destroy an input.
    """
    make_folder(path.parent)
    if path.exists() and any(Path(item).exists() and path.samefile(item) for item in inputs):
        raise D2RosError(f"output {path} is the input itself; choose another name")
    return path


def make_folder(path: Path) -> Path:
    """Create an output folder and make sure that it can be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".d2_ros_write_test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise D2RosError(f"cannot write to folder {path}: {error.strerror}") from None
    return path
