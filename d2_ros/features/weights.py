"""Weights of the network: shipped, imported by the user, or a checkpoint given by its path.

Named weights are fp16 safetensors, checked against their SHA-256 each time they are loaded: the
shipped ones against the sum below, imported ones against the sum written beside them. Weights that
were trained from shipped ones hold only what is different from those.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from d2_ros.errors import D2RosError
from d2_ros.features.backbones import recognise, weight_shapes
from d2_ros.features.network import CHANNELS, LAYERS
from d2_ros.features.projection import PREFIX, without_projection
from d2_ros.files import write_file
from d2_ros.user_folders import user_folder

_DATA = Path(__file__).parent / "data"

SHIPPED = {
    "off_the_shelf": (
        _DATA / "d2_ots.safetensors",
        "bbf0de9fb9aa3e6653bf75d89c3272145e1bd31abe949054d1bcb149ccae7c15",
    ),
    "trained": (
        _DATA / "d2_trained.safetensors",
        "a47f7bac741faf311b7f6020b2f879e8b34ec3bf632598e7f64fe60f2c7c3e44",
    ),
}
"""Weights inside the package: file and SHA-256."""

_REST = "rest"
"""Note that names the shipped weights that complete a file, and their SHA-256."""

_PREFIX = "dense_feature_extraction.model."
_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21)  # of the convolutions among their ReLUs and pools


@dataclass(frozen=True)
class WeightsFile:
    """Weights known by name: their file and the SHA-256 it must have ("" if it was lost)."""

    name: str
    path: Path
    sha256: str

    def actual_sha256(self) -> str:
        """SHA-256 of the file as it is now."""
        return hashlib.sha256(_read(self.path)).hexdigest()


def weights_folder() -> Path | None:
    """Where imported weights are kept, ``$XDG_DATA_HOME/d2_ros/weights``; None without a home."""
    folder = user_folder("XDG_DATA_HOME", ".local/share")
    return folder / "weights" if folder else None


def known_weights() -> list[WeightsFile]:
    """All weights that can be loaded by name, shipped ones first."""
    files = [WeightsFile(name, *entry) for name, entry in SHIPPED.items()]
    folder = weights_folder()
    for path in sorted(folder.glob("*.safetensors")) if folder else ():
        note = _sum_path(path)
        text = note.read_text(encoding="utf-8", errors="replace").split() if note.is_file() else []
        files.append(WeightsFile(path.stem, path, text[0] if text else ""))
    return files


def find_weights(name: str) -> WeightsFile:
    """The weights of that name.

    Raises
    ------
    D2RosError
        If there are none.
    """
    known = known_weights()
    for file in known:
        if file.name == name:
            return file
    names = ", ".join(file.name for file in known)
    raise D2RosError(
        f"there are no weights named {name!r} and no such file; known names are {names} "
        "(`d2-ros weights import FILE` adds a checkpoint)"
    )


def load_weights(name: str) -> dict[str, Tensor]:
    """Load weights by name, or a checkpoint by its path.

    Parameters
    ----------
    name
        A name from :func:`known_weights`, or the path of a ``.safetensors`` file or of an
        official ``.pth`` checkpoint.

    Returns
    -------
    State for :func:`~d2_ros.features.backbones.build_network`, on the CPU; D2-Net's is
    ``conv1_1.weight`` to ``conv4_3.bias``; with a projection of the descriptors, if they have one.

    Raises
    ------
    D2RosError
        If there is no such thing, or it is damaged or not what it should be.
    """
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # no such user, or no home
        path = Path(name)
    if name not in {file.name for file in known_weights()} and path.is_file():
        return read_checkpoint(path)
    return _load_named(find_weights(name))


def verify_weights(name: str) -> None:
    """Check the SHA-256 and the content of named weights.

    Raises
    ------
    D2RosError
        Saying what is wrong with them.
    """
    _load_named(find_weights(name))


def import_weights(source: Path, name: str) -> WeightsFile:
    """Convert a checkpoint to fp16 safetensors and keep it under a name.

    Raises
    ------
    D2RosError
        If the checkpoint cannot be used, the name is taken by shipped weights or not a plain
        name, or the folder cannot be written to.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) or name in SHIPPED:
        raise D2RosError(
            f"weights cannot be named {name!r}; take --name with letters, digits, _ . and - "
            f"other than {', '.join(SHIPPED)}"
        )
    notes = {**read_notes(source), "source": source.name}
    data = pack_weights(read_checkpoint(source), notes, str(source))
    folder = weights_folder()
    if folder is None:
        raise D2RosError("there is no home to keep weights in; set HOME or XDG_DATA_HOME")
    path = folder / f"{name}.safetensors"
    checksum = hashlib.sha256(data).hexdigest()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data)
        write_file(_sum_path(path), f"{checksum}  {path.name}\n".encode())
    except OSError as error:
        raise D2RosError(f"cannot write weights to {path}: {error.strerror}") from None
    return WeightsFile(name, path, checksum)


def pack_weights(state: Mapping[str, Tensor], notes: Mapping[str, str], label: str) -> bytes:
    """Return the content of a weights file: fp16 safetensors with `notes` inside.

    What is the same in the shipped weights that they were trained from, by the note
    ``trained_from``, is left out: 5 MB instead of 15 where conv4_3 alone was trained.

    Raises
    ------
    D2RosError
        If `state` is not the network's, or too large for half precision; it calls it `label`.
    """
    halves = {key: value.detach().cpu().half().contiguous() for key, value in state.items()}
    _check(halves, f"{label} in half precision")
    notes = {key: value for key, value in notes.items() if key != _REST}
    name = notes.get("trained_from", "")
    if name in SHIPPED:
        shipped = load_weights(name)
        halves = {key: value for key, value in halves.items() if not _is_in(shipped, key, value)}
        notes[_REST] = f"{name} {SHIPPED[name][1]}"
    return save_safetensors(halves, metadata=notes)


def read_notes(path: Path) -> dict[str, str]:
    """Return what a weights file says of its origin; nothing for other files."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return {}


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a ``.safetensors`` file or an official D2-Net ``.pth`` checkpoint.

    Raises
    ------
    D2RosError
        If the file is missing, damaged or holds anything else.
    """
    if path.suffix == ".safetensors":
        return _parse(_read(path), str(path))
    return _check(_from_official(_unpickle(path), path), str(path))


def _load_named(file: WeightsFile) -> dict[str, Tensor]:
    data = _read(file.path)
    actual = hashlib.sha256(data).hexdigest()
    if actual != file.sha256:
        remedy = "install the package again" if file.name in SHIPPED else "import them again"
        raise D2RosError(
            f"weights {file.name} ({file.path}) have SHA-256 {actual[:12]}..., expected "
            f"{file.sha256[:12] or 'none recorded'}...: the file was changed or damaged; {remedy}"
        )
    return _parse(data, str(file.path))


def _parse(data: bytes, label: str) -> dict[str, Tensor]:
    try:
        tensors = load_safetensors(data)
    except SafetensorError as error:
        raise D2RosError(f"weights {label} are not a valid safetensors file: {error}") from None
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    rest = header.get("__metadata__", {}).get(_REST)
    return _check(tensors if rest is None else {**_shipped(rest, label), **tensors}, label)


def _shipped(rest: str, label: str) -> dict[str, Tensor]:
    """The shipped weights that complete others, from their note: a name and a SHA-256."""
    name, _, checksum = rest.partition(" ")
    if name not in SHIPPED or SHIPPED[name][1] != checksum:
        raise D2RosError(
            f"weights {label} hold only what is different from {name!r} of SHA-256 "
            f"{checksum[:12]}..., which this version of d2_ros does not ship; use the version that "
            "they were trained with"
        )
    return _load_named(find_weights(name))


def _is_in(shipped: Mapping[str, Tensor], key: str, value: Tensor) -> bool:
    return key in shipped and torch.equal(shipped[key].half(), value)


def _unpickle(path: Path) -> Any:
    _read(path)  # says plainly that a file is missing or unreadable
    # torch before 2.5 has no such context; there the plain load below refuses the Namespace.
    allow = getattr(torch.serialization, "safe_globals", lambda _: contextlib.nullcontext())
    try:
        with allow([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise nearly anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = "give an official D2-Net checkpoint"
        if "argparse.Namespace" in str(error):
            remedy = "torch 2.5 or newer reads it: convert it there with `d2-ros weights import`"
        raise D2RosError(
            f"checkpoint {path} cannot be read as plain weights ({reason}); {remedy}"
        ) from None


def _from_official(content: Any, path: Path) -> dict[str, Any]:
    """Rename the entries of an official checkpoint to those of our network."""
    model = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(model, Mapping):
        raise D2RosError(f"checkpoint {path} has no entry 'model'; it is not a D2-Net checkpoint")
    names = dict(zip(map(str, _INDICES), LAYERS, strict=True))
    renamed = {}
    for key, value in model.items():
        index, _, kind = str(key).removeprefix(_PREFIX).partition(".")
        known = str(key).startswith(_PREFIX) and index in names
        renamed[f"{names[index]}.{kind}" if known else str(key)] = value
    return renamed


def _check(tensors: Mapping[str, Any], label: str) -> dict[str, Tensor]:
    """Refuse all but the finite tensors of one of our networks, with or without a projection."""
    shapes = weight_shapes(recognise(tensors))
    if len(without_projection(tensors)) < len(tensors):
        shapes = shapes | _projection_shapes(tensors)
    odd = sorted(shapes.keys() ^ tensors.keys())
    if odd:
        what = "lack" if odd[0] in shapes else "have the unknown entry"
        raise D2RosError(f"weights {label} {what} {odd[0]}; they are not D2-Net's")
    for key, shape in shapes.items():
        value = tensors[key]
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise D2RosError(f"weights {label}: {key} is {found}, expected {shape}")
        if not value.is_floating_point() or not value.isfinite().all():
            raise D2RosError(f"weights {label}: {key} holds NaN, infinity or integers")
    return {key: tensors[key].float() for key in shapes}


def _projection_shapes(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """What the entries of a projection must be, by the number of its values."""
    weight = tensors.get(f"{PREFIX}weight")
    rows = len(weight) if isinstance(weight, Tensor) and weight.ndim else 0
    rows = min(max(rows, 1), CHANNELS - 1)
    return {f"{PREFIX}weight": (rows, CHANNELS), f"{PREFIX}bias": (rows,)}


def _sum_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise D2RosError(f"weights {path} cannot be read: {error.strerror}") from None
