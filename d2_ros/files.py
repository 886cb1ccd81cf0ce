"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from d2_ros.errors import D2RosError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a file beside `path` to write, which then takes its place, even after a loss of power.

    If anything fails it is gone, and what was there before stays. A link stays a link.

    Raises
    ------
    OSError
        If it cannot take that place.
    """
    target = Path(os.path.realpath(path))
    scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield scratch
        with scratch.open("rb") as written:
            os.fsync(written.fileno())
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a file; one that was there before stays whole until the new one is.

    Raises
    ------
    D2RosError
        If it cannot be written.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or /dev/stdout
            path.write_bytes(content)
            return
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        with replacing(path) as scratch:
            scratch.write_bytes(content)
    except OSError as error:
        raise D2RosError(f"cannot write {path}: {error.strerror}; choose another place") from None
