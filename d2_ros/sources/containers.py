"""Whether the file of a video is cut short, by what its container says of its own length.

The number of frames that a container states is no measure of that: it is an estimate from duration
and rate, wrong for a variable rate, an offset at the start or a trimmed end, and absent from live
recordings and raw streams.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def is_cut_short(path: Path) -> bool:
    """Return whether AVI, MP4 or Matroska says that it is longer than its file.

    Files of other kinds, and live recordings that were never closed, do not say.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return any(end > size for end in _ends(file))
    except (OSError, IndexError, struct.error):
        return False


def _ends(file: BinaryIO) -> Iterator[int]:
    """Yield where each part of the file at the top level ends by its own account, in bytes."""
    head = file.read(12)
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        yield from _riff(file)
    elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp"):
        yield from _boxes(file)
    elif head[:4] == _EBML:
        yield from _segment(file)


def _riff(file: BinaryIO) -> Iterator[int]:
    """AVI 1.0, and OpenDML's further RIFF chunks: a mark, then the length behind it."""
    position = 0
    while len(head := _at(file, position, 8)) == 8 and head[:4] == b"RIFF":
        (length,) = struct.unpack("<I", head[4:])
        if length == 0:  # never closed
            return
        yield (position := position + 8 + length)
        position += length % 2


def _boxes(file: BinaryIO) -> Iterator[int]:
    """ISO/IEC 14496-12, 4.2: the length of a box with its head, then its kind."""
    position = 0
    while len(head := _at(file, position, 8)) == 8 and head[4:].isalnum():
        (length,) = struct.unpack(">I", head[:4])
        if length == 1:
            (length,) = struct.unpack(">Q", _at(file, position + 8, 8))
        if length < 8:  # 0: it ends with the file
            return
        yield (position := position + length)


def _segment(file: BinaryIO) -> Iterator[int]:
    """RFC 8794: the length of an element is as many bytes as its first bit set tells."""
    position, length = _element(file, 4)
    if length is None or _at(file, position + length, 4) != _SEGMENT:
        return
    position, length = _element(file, position + length + 4)
    if length is not None:
        yield position + length


def _element(file: BinaryIO, position: int) -> tuple[int, int | None]:
    """Return where the content of an element begins and its length, None if not known (live)."""
    first = _at(file, position, 1)[0]
    width = 9 - first.bit_length()
    value = int.from_bytes(_at(file, position, width), "big") & ((1 << 7 * width) - 1)
    return position + width, None if value == (1 << 7 * width) - 1 else value


def _at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)
