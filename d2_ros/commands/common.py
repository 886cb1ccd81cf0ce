"""What the commands share: parameters, JSON files and output places."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

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
    write_file(path, (json.dumps(dict(figures), indent=2) + "\n").encode())


def write_file(path: Path, content: bytes) -> None:
    """Write a file; one that was there before stays whole until the new one is.

    Raises
    ------
    D2RosError
        If it cannot be written.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    try:
        if target.exists() and not target.is_file():  # a pipe or /dev/stdout
            path.write_bytes(content)
            return
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            scratch.write_bytes(content)
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise D2RosError(f"cannot write {path}: {error.strerror}; choose another place") from None


def output_file(path: Path, *inputs: str | Path | None) -> Path:
    """Return `path` once it can be written to and is nothing of what is read.

    Raises
    ------
    D2RosError
        If it cannot be written to, or writing it would destroy an input.
    """
    spare_inputs(path, *inputs)
    if path.is_dir():
        raise D2RosError(f"output {path} is a folder; give the name of a file")
    if path.is_file() or not path.exists():  # pipes and devices have no folder to write to
        make_folder(path.parent)
    return path


def output_folder(path: Path, *inputs: str | Path | None) -> Path:
    """Return `path` once it is a folder that can be written to, outside of what is read.

    Raises
    ------
    D2RosError
        If it cannot be written to, or would change an input.
    """
    spare_inputs(path, *inputs)
    return make_folder(path)


def spare_inputs(path: Path, *inputs: str | Path | None) -> None:
    """Refuse an output that is an input, lies in one, or is one of its files by another name.

    Parameters
    ----------
    path
        The file or folder to be written; it need not exist.
    inputs
        Files and folders that are read; names of other things, such as ``synthetic``, and None
        are passed over.

    Raises
    ------
    D2RosError
        If writing `path` would change an input.
    """
    real = Path(os.path.realpath(path))
    around = {identity for place in real.parents if (identity := _identity(place))}
    itself = _identity(real)
    for item in map(Path, filter(None, inputs)):
        source = _identity(item)
        if source is None:
            continue
        if source == itself:
            raise D2RosError(f"output {path} is the input itself; choose another name")
        if not source.is_dir:
            continue
        if source in around or any(
            inner == itself or (inner.is_dir and inner in around) for inner in _inside(item)
        ):
            raise D2RosError(f"output {path} lies inside the input {item}; choose another place")


class _Identity(NamedTuple):
    """What a file or folder is, whatever it is called: links and other spellings are the same."""

    device: int
    number: int
    is_dir: bool


def _identity(path: Path) -> _Identity | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return _Identity(status.st_dev, status.st_ino, stat.S_ISDIR(status.st_mode))


def _inside(folder: Path) -> Iterator[_Identity]:
    """Yield all that is in a folder; folders that are links themselves, but not what is in them."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if identity := _identity(Path(place, name)):
                yield identity


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
