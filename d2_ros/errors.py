"""The one exception type that means "the input is bad", as opposed to a bug."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class D2RosError(Exception):
    """Bad input, said in one sentence that names the thing, its value and the remedy.

    The command line prints the sentence and exits with code 2; the node logs it, counts
    it in its diagnostics and keeps running.
    """


@contextmanager
def optional_import(remedy: str) -> Iterator[None]:
    """Import an optional dependency within; raises a D2RosError that says `remedy` without it."""
    try:
        yield
    except ImportError:
        raise D2RosError(remedy) from None
