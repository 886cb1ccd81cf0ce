"""Results on disk, found by what they were computed from, so that nothing can be out of date."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from d2_ros.errors import D2RosError
from d2_ros.files import replacing

_SUFFIX = ".pair"
_DIGEST = hashlib.sha256().digest_size


class Cache:
    """Tensors by key in a folder of limited size.

    Every entry is a file that starts with the SHA-256 of its key and content: one that was cut
    short, changed or put there by anything else counts as missing and is written anew. Killing a
    process at any time leaves entries that are whole or missing. Several processes may share a
    folder.

    Parameters
    ----------
    folder
        Made if missing.
    limit
        No entry is added that would take the folder beyond so many bytes; none is removed.

    Attributes
    ----------
    hits, added
        Entries found, and written, by this object.
    size
        Bytes of all entries: at the start, and what this object added.
    full
        Whether something was not kept, for the limit or as the disk refused it.

    Raises
    ------
    D2RosError
        If the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder, self.limit = folder, limit
        self.hits, self.added, self.full = 0, 0, False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f"probe{os.getpid()}"
            probe.touch()
            probe.unlink()
            self.size = sum(entry.stat().st_size for entry in self.entries())
        except OSError as error:
            raise D2RosError(
                f"parameter cache is {folder}, which cannot be used: {error.strerror}"
            ) from None

    def entries(self) -> Iterator[Path]:
        """Files of all entries, whole or not."""
        return self.folder.glob("*" + _SUFFIX)

    def get(self, key: str) -> Tensor | None:
        """Return an entry, None if it is missing or not whole."""
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        body = data[_DIGEST:]
        if data[:_DIGEST] != _digest(key, body):
            return None
        self.hits += 1
        return load(body)["value"]

    def put(self, key: str, value: Tensor) -> None:
        """Keep an entry, if there is room for it."""
        body, path = save({"value": value}), self._path(key)
        replaced = path.stat().st_size if path.exists() else 0  # cut short or changed
        size = self.size - replaced + _DIGEST + len(body)
        if size > self.limit:
            self.full = True
            return
        try:
            with replacing(path) as scratch, scratch.open("wb") as file:
                file.write(_digest(key, body))
                file.write(body)
        except OSError:  # a full disk is no reason to stop a training
            self.full = True
            return
        self.size = size
        self.added += 1

    def _path(self, key: str) -> Path:
        return self.folder / (key + _SUFFIX)


def _digest(key: str, body: bytes) -> bytes:
    return hashlib.sha256(key.encode() + body).digest()
