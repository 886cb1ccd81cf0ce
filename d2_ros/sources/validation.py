"""Bag validation: lengths that a damaged bag claims, checked before memory is taken for them.

The readers of rosbags and mcap trust a length in a file and ask for that much memory before they
look whether the file holds it. The files opened here hand out what is there and no more, so a
length that claims too much meets the end of the file, which the readers know how to report.
Nothing is read ahead: records that a reader seeks over are not looked at.
"""

from __future__ import annotations

import bz2
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from io import BufferedReader, BytesIO
from typing import IO, Any

import lz4.frame
import zstandard
from mcap.records import Chunk
from rosbags.rosbag1 import reader as rosbag1
from rosbags.rosbag2 import storage_mcap as rosbag2_mcap

if sys.platform == "win32":
    from pathlib import WindowsPath as NativePath
else:
    from pathlib import PosixPath as NativePath

LARGEST = 1 << 28
"""Bytes that a record or a chunk may have, compressed or not.

The readers hold up to three copies of one while they take it apart, which stay below a gibibyte.
"""

BLOCK = 1 << 20
"""Bytes up to which a read is not looked at, and by which chunks are decompressed."""


class BoundedFile(BufferedReader):
    """A file whose reads are bounded by what it holds.

    Raises
    ------
    ValueError
        While reading, if more than :data:`LARGEST` are asked for that are there.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes, fewer at the end of the file, all that are left if < 0."""
        if size is None or not 0 <= size <= BLOCK:
            left = max(os.fstat(self.fileno()).st_size - self.tell(), 0)
            size = left if size is None or size < 0 else min(size, left)
            _validate_size(size)
        return super().read(size)


class BoundedPath(NativePath):
    """A path that opens binary files, and those in its folder, as :class:`BoundedFile`."""

    def open(self, mode: str = "r", *args: Any, **options: Any) -> Any:  # type: ignore[override]
        """Open the file."""
        if mode != "rb":
            return super().open(mode, *args, **options)
        return BoundedFile(super().open("rb", buffering=0))


def _validate_size(size: int) -> None:
    if size > LARGEST:
        raise ValueError(
            f"a record or chunk claims {size / 2**20:.0f} MiB, "
            f"more than the {LARGEST / 2**20:.0f} MiB that are read in one piece"
        )


_OPENERS: Mapping[str, Callable[[IO[bytes]], Any]] = {
    "bz2": bz2.BZ2File,
    "lz4": lz4.frame.LZ4FrameFile,
    "zstd": lambda stream: zstandard.ZstdDecompressor().stream_reader(stream),
}


def decompress(compression: str, data: bytes, size: int = LARGEST) -> bytes:
    """Return what a chunk holds, taking memory for what comes out, not for what its head claims.

    Parameters
    ----------
    compression
        One of the names that mcap and rosbag1 have for it.
    data
        The compressed bytes.
    size
        How many must come out at most, as far as that is known.

    Raises
    ------
    ValueError
        If more come out, or more than :data:`LARGEST`.
    """
    _validate_size(size)
    pieces: list[bytes] = []
    left = size
    with _OPENERS[compression](BytesIO(data)) as stream:
        while piece := stream.read(BLOCK):
            left -= len(piece)
            if left < 0:
                raise ValueError(f"a chunk of {size} bytes holds more than that")
            pieces.append(piece)
    return b"".join(pieces)


def unpacked(chunk: Chunk) -> Chunk:
    """Return an mcap chunk with its data decompressed; one that never was, as it is.

    Raises
    ------
    ValueError
        As :func:`decompress` does.
    """
    if chunk.compression not in _OPENERS:
        return chunk
    data = decompress(chunk.compression, chunk.data, chunk.uncompressed_size)
    return Chunk(**{**vars(chunk), "compression": "", "data": data})


# rosbags has no other way to say how chunks are decompressed than these two tables of its own.
for _name in ("lz4", "bz2"):
    rosbag1.decompressors[_name] = partial(decompress, _name)
for _name in ("lz4", "zstd"):
    rosbag2_mcap.DECOMPRESSORS[_name] = partial(decompress, _name)
