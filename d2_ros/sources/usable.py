"""The frames of a source that can be used; those that cannot are left out and told of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from d2_ros.sources.base import Frame, UnusableFrame


def usable(source: Iterable[Frame], refuse: Callable[[UnusableFrame], object]) -> Iterator[Frame]:
    """Yield the usable frames of `source`, and call `refuse` in the place of every other one.

    Raises
    ------
    D2RosError
        Where the source is damaged, after all frames that could be had.
    """
    frames = iter(source)
    while True:
        try:
            frame = next(frames)
        except StopIteration:
            return
        except UnusableFrame as error:
            refuse(error)
        else:
            yield frame
