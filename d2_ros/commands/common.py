"""What the commands share: parameters, JSON files and output places."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import typer

from d2_ros.config import Config, check_config, renamed, with_values
from d2_ros.errors import D2RosError
from d2_ros.files import write_file
from d2_ros.parameter_files import NODE, load_params_file, parse_override

Item = TypeVar("Item")

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
    """Defaults, then the parameter file, then ``name:=value`` overrides: as the node has it.

    Raises
    ------
    D2RosError
        For what the node would refuse.
    """
    given = given_values(params_file, overrides, NODE)
    config = with_values(Config(), renamed(given, partial(typer.echo, err=True)))
    check_config(config)
    return config


def given_values(
    params_file: Path | None, overrides: Sequence[str] | None, node: str
) -> dict[str, Any]:
    """What a parameter file says for a node, and then the overrides, by dotted names."""
    found = load_params_file(params_file, node) if params_file else {}
    if found is None:
        typer.echo(f"{params_file} has no section for {node} and changes nothing", err=True)
    return {**(found or {}), **read_overrides(overrides)}


def read_overrides(overrides: Sequence[str] | None) -> dict[str, Any]:
    """``name:=value`` texts as a dictionary, the values typed as ROS does it."""
    return dict(parse_override(text) for text in overrides or [])


def progress(items: Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items` behind a progress bar; a `total` of 0 or None is not known."""
    from rich.console import Console
    from rich.progress import track

    yield from track(items, title, total or None, console=Console(stderr=True))


def tell_ending(
    out: Path, frames: int, refused: Sequence[str], ending: BaseException | None
) -> None:
    """Raise what has ended the writing of `out` early, with the number of frames it holds.

    Parameters
    ----------
    out
        The bag.
    frames
        How many are in it.
    refused
        Why each of the frames that were left out was.
    ending
        The damage of the source, or what Ctrl-C and SIGTERM raise; None at the source's own end.

    Raises
    ------
    D2RosError
        For damage, frames that were left out, and a source without any frame.
    """
    whole = frames + len(refused)
    left_out = f"{len(refused)} of {whole} frames were left out: {refused[0]}" if refused else ""
    if frames:
        result = f"the {frames} frames until then are in {out}"
    else:
        result = f"no frame was written, and {out} is as it was"
    if isinstance(ending, D2RosError):
        parts = [str(ending), result, left_out]
        raise D2RosError("; ".join(filter(None, parts)))
    if ending is not None:
        typer.echo(f"d2-ros: interrupted; {result}", err=True)
        raise ending
    if not frames:
        raise D2RosError(f"{left_out or 'the source has no frames'}; {result}")
    if refused:
        raise D2RosError(left_out)


def write_json(path: Path, figures: Mapping[str, float | int | str]) -> None:
    """Write a flat object of numbers and strings."""
    write_file(path, (json.dumps(dict(figures), indent=2) + "\n").encode())


def output_file(path: Path, *inputs: str | Path | None) -> Path:
    """Return `path` once it can be written to and is nothing of what is read.

    Raises
    ------
    D2RosError
        If it cannot be written to, or writing it would destroy an input.
    """
    spare_inputs(path, *inputs)
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        kind = stat.S_IFREG
    except OSError as error:  # a name too long, links in a circle
        raise D2RosError(f"cannot write {path}: {error.strerror}; choose another name") from None
    if stat.S_ISDIR(kind):
        raise D2RosError(f"cannot write {path}: it is a folder; give the name of a file")
    if stat.S_ISREG(kind):  # pipes and devices have no folder to write to
        make_folder(path.parent)
    return path


def output_files(outputs: Iterable[Path | None], *inputs: str | Path | None) -> None:
    """Check all files that a command will write, before it begins; None is passed over.

    Raises
    ------
    D2RosError
        As :func:`output_file` does, or if two of them are the same file.
    """
    seen: dict[str, Path] = {}
    for path in filter(None, outputs):
        output_file(path, *inputs)
        if path.is_file() or not path.exists():
            other = seen.setdefault(os.path.realpath(path), path)
            if other is not path:
                raise D2RosError(f"{other} and {path} are one output; give two names")


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
    for item in (Path(name) for name in inputs if name):
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
