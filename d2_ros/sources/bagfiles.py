"""Messages of a bag of any format and number of files; of a damaged one, all that can be had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from heapq import merge
from pathlib import Path
from typing import Any, TypeVar

from d2_ros.errors import D2RosError
from d2_ros.sources.bagfolders import named_files, recordings, storage_files
from d2_ros.sources.bagreaders import BagFile, Scratch, open_file
from d2_ros.sources.bagscan import Stored

Item = TypeVar("Item")


class Bag:
    """Topics and messages of a bag; messages may be asked for again and again.

    Parameters
    ----------
    paths
        A rosbag2 folder, or bag files. Those that a recorder has split are read one after the
        other, as the folder's ``metadata.yaml`` or their names tell; others at the same time.

    Raises
    ------
    D2RosError
        If no message can be had from them.
    """

    topics: dict[str, tuple[str, int]]
    """Topic -> (message type such as ``sensor_msgs/msg/Image``, number of messages). Of a topic
    with messages of several types, the most frequent one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._faults: list[D2RosError] = []
        self._scratch = Scratch()
        opened = [self._open(files) for files in self._files(paths)]
        self._recordings = [files for files in opened if files]
        counts: Counter[tuple[str, str]] = Counter()
        for file in (file for files in opened for file in files):
            counts.update(file.counts)
        self.topics = {}
        for (topic, kind), count in sorted(counts.items(), key=lambda item: item[1]):
            self.topics[topic] = kind, count
        if not self.topics:
            self.check()

    def check(self) -> None:
        """Raise what was found on opening, if anything: files that are gone or without a message.

        :meth:`stored` does so at its end.
        """
        if self._faults:
            raise _joined(self._faults)

    def _files(self, paths: Sequence[Path]) -> list[list[Path]]:
        folders = [path for path in paths if path.is_dir()]
        files = [path for path in paths if not path.is_dir()]
        split = recordings(files)
        for folder in folders:
            named, gone = named_files(folder)
            if gone:
                self._faults.append(
                    D2RosError(
                        f"bag {folder} lacks {', '.join(gone)}, which its metadata.yaml names; "
                        "put back what was moved, or make do with the rest by `ros2 bag reindex`"
                    )
                )
            split += [named] if named or gone else recordings(storage_files(folder))
        if not any(split) and not self._faults:
            raise D2RosError(
                f"bag {paths[0]} holds no .mcap or .db3 file and no metadata.yaml that names one; "
                "give the folder that a recorder has written"
            )
        return split

    def _open(self, paths: Sequence[Path]) -> list[BagFile]:
        files = []
        for path in paths:
            try:
                files.append(open_file(path, self._scratch))
            except D2RosError as error:
                self._faults.append(error)
        return files

    def stored(self, topics: Collection[str]) -> Iterator[Stored]:
        """Yield the messages on these topics, not decoded yet, in the order of recording.

        Raises
        ------
        D2RosError
            At the end, if files are damaged or gone; it names all of them.
        """
        faults = self._faults.copy()
        parts = [_joint(files, topics, faults) for files in self._recordings]
        for item in merge(*parts, key=lambda item: item.time):
            if self.topics.get(item.topic, ("", 0))[0] == item.kind:
                yield item
        if faults:
            raise _joined(faults)

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, Any]]:
        """Yield (topic, message) in the order of recording.

        Raises
        ------
        UnusableFrame
            In place of a message that cannot be decoded; the next one may be asked for.
        D2RosError
            At the end, if files are damaged or gone; it names all of them.
        """
        # Unlike a generator, map goes on with the next item after an error.
        return map(_decoded, self.stored(topics))


def _decoded(item: Stored) -> tuple[str, Any]:
    return item.topic, item.message()


def _joint(
    files: Sequence[BagFile], topics: Collection[str], faults: list[D2RosError]
) -> Iterator[Stored]:
    """Yield the messages of one file after the other, going on behind a damaged one."""
    for file in files:
        try:
            yield from file.stored(topics)
        except D2RosError as error:
            faults.append(error)


def _joined(faults: Sequence[D2RosError]) -> D2RosError:
    if len(faults) == 1:
        return faults[0]
    return D2RosError(f"{len(faults)} faults: " + "; ".join(str(fault) for fault in faults))


def until_damage(items: Iterator[Item]) -> Iterator[Item]:
    """Yield what can be read, for callers whose own reading of the frames tells of the damage."""
    with suppress(D2RosError):
        yield from items
