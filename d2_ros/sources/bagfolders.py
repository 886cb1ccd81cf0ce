"""Which files make up a bag, by their names and by ``metadata.yaml``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path, PurePath

import yaml

from d2_ros.errors import D2RosError
from d2_ros.sources.base import MAKER

ROSBAG1, SQLITE, MCAP = ".bag", ".db3", ".mcap"


def bag_kind(path: Path) -> str | None:
    """Return the storage of a bag file by its name; None if that is no bag's.

    A recorder that was killed leaves the ending ``.active`` (rosbag1); rosbag2's compression of
    whole files adds ``.zstd``.
    """
    name = path.name.lower().removesuffix(".zstd").removesuffix(".active")
    suffix = PurePath(name).suffix
    return suffix if suffix in (ROSBAG1, SQLITE, MCAP) else None


def is_compressed(path: Path) -> bool:
    """Return whether the file as a whole is compressed."""
    return path.suffix.lower() == ".zstd"


def storage_files(folder: Path) -> list[Path]:
    """Return the mcap files of a folder, or else its sqlite3 files, as a person would order them.

    What macOS leaves beside a file (``._name``) is none; of a file that lies there both compressed
    and not, the latter counts. What this package has written there counts only if it is alone.
    """
    from d2_ros.sources.folder import natural_key

    try:
        files = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    except OSError as error:
        raise D2RosError(f"folder {folder} cannot be read: {error.strerror}") from None
    files.sort(key=lambda path: natural_key(path.name))
    return _storage([path for path in files if not is_output(path)]) or _storage(files)


def _storage(files: Sequence[Path]) -> list[Path]:
    for kind in (MCAP, SQLITE):
        found = [path for path in files if bag_kind(path) == kind]
        plain = {path.name for path in found if not is_compressed(path)}
        if found:
            return [path for path in found if not is_compressed(path) or path.stem not in plain]
    return []


def is_output(path: Path) -> bool:
    """Return whether a file is a bag that this package has written, by the maker in its head."""
    if bag_kind(path) != MCAP or is_compressed(path):
        return False
    try:
        with path.open("rb") as stream:
            head = stream.read(64)  # the mark, the profile "ros2", then the maker
    except OSError:
        return False
    return f"{MAKER} ".encode() in head


def recordings(files: Sequence[Path]) -> list[list[Path]]:
    """Return the files that a recorder has split, one list for each recording.

    Their names differ in the number at their end only, ``rec_0.mcap`` to ``rec_12.mcap``.
    """

    def recording(path: Path) -> str:
        return re.sub(r"_?\d+$", "", path.name.split(".")[0])

    ordered = sorted(files, key=recording)  # a stable sort: it keeps the numbers' order
    return [list(group) for _, group in groupby(ordered, recording)]


def named_files(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the files that ``metadata.yaml`` names, and the names of those that are gone.

    Neither if it does not tell, as when it was cut short: then what lies there counts.
    All versions of rosbag2 name them under the same key, the first with the folder before them.
    """
    try:
        tree = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
        paths = tree["rosbag2_bagfile_information"]["relative_file_paths"]
        names = [PurePath(path).name for path in paths]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return [], []
    files, gone = [], []
    for name in names:
        # Compressed or decompressed by hand since, or named before rosbag2 had compressed it.
        spellings = [name, f"{name}.zstd", name.removesuffix(".zstd")]
        found = [folder / spelling for spelling in spellings if (folder / spelling).is_file()]
        if found:
            files.append(found[0])
        else:
            gone.append(name)
    return files, gone
