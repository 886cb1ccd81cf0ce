"""What the commands share: parameters, JSON files and output places."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from d2_ros.config import Config, check_config, with_values
from d2_ros.errors import D2RosError
from d2_ros.parameter_files import NODE, load_params_file, parse_override

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


def load_config(params_file: Path | None, overrides: Sequence[str] | None) -> Config:
    """Defaults, then the parameter file, then ``name:=value`` overrides: as the node has it.

    Raises
    ------
    D2RosError
        For what the node would refuse.
    """
    values: dict[str, Any] = {}
    if params_file:
        found = load_params_file(params_file)
        values = found or {}
        if found is None:
            typer.echo(f"{params_file} has no section for {NODE} and changes nothing", err=True)
    config = with_values(Config(), values | read_overrides(overrides))
    check_config(config)
    return config


def read_overrides(overrides: Sequence[str] | None) -> dict[str, Any]:
    """``name:=value`` texts as a dictionary, the values typed as ROS does it."""
    return dict(parse_override(text) for text in overrides or [])


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
