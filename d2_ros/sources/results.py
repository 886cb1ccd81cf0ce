"""What the front-end has said, from a bag of its topics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera, right_of
from d2_ros.errors import D2RosError
from d2_ros.records import FEATURES, LOOPS, STEREO, TRACKS
from d2_ros.sources.bagfiles import Bag
from d2_ros.sources.bags import camera_of, mount_of
from d2_ros.sources.messages import stamp_of
from d2_ros.sources.opening import find_bag
from d2_ros.sources.outputs import rows_of

LAYOUTS = {"features": FEATURES, "tracks": TRACKS, "stereo": STEREO, "loops": LOOPS}
"""Topic of a camera -> the rows of its messages."""


@dataclass(frozen=True)
class Told:
    """One message of the front-end.

    Attributes
    ----------
    topic
        A key of :data:`LAYOUTS`.
    stamp
        Of its header, integer nanoseconds.
    rows
        As the topic's layout has them.
    camera
        The newest calibration, of ``stereo`` the right camera's; None before the first one, and
        where it is zero.
    T_left_right
        ``(4, 4)`` where the right camera is, of ``stereo``; None where camera_info does not say it.
    """

    topic: str
    stamp: int
    rows: NDArray[np.void]
    camera: Camera | None
    T_left_right: NDArray[np.float64] | None = None


class Results:
    """The messages of one camera in a bag, in the order of recording.

    Parameters
    ----------
    path
        What ``d2-ros replay`` wrote, or a recording of the node's topics.
    node, camera
        Whose topics they are: ``<node>/<camera>/features`` and ``/<camera>/camera_info``.
    right
        Name of the right camera of a stereo pair: ``/<right>/camera_info``; None for one camera.

    Attributes
    ----------
    stereo
        Whether the bag holds that pair's ``stereo``.
    loops
        Whether it tells of places that were known again.

    Raises
    ------
    D2RosError
        If it is no bag, or without one of these topics; while iterating, at the end of a bag that
        is damaged and for a message that is no row of the topic.
    """

    def __init__(
        self,
        path: Path,
        node: str = "/d2_frontend",
        camera: str = "camera",
        right: str | None = None,
    ) -> None:
        files = find_bag(path) if path.exists() else []
        if not files:
            raise D2RosError(f"{path} is not a bag; give what d2-ros replay has written")
        self._bag = Bag(files)
        self._topics = {f"{node.rstrip('/')}/{camera}/{topic}": topic for topic in LAYOUTS}
        self._info = f"/{camera.strip('/')}/camera_info"
        self._right_info = f"/{(right or '').strip('/')}/camera_info"
        stereo, loops = (f"{node.rstrip('/')}/{camera}/{topic}" for topic in ("stereo", "loops"))
        held = {topic for topic, (_, count) in self._bag.topics.items() if count}
        self.stereo = right is not None and {stereo, self._right_info} <= held
        if not self.stereo:
            del self._topics[stereo]
        self.loops = loops in held
        if not self.loops:
            del self._topics[loops]
        missing = sorted({*self._topics, self._info} - held)
        if missing:
            raise D2RosError(
                f"bag {path} has no {' and no '.join(missing)}; it holds "
                f"{', '.join(sorted(held)) or 'nothing'}: name the node with --node and the camera "
                "with --camera, or make a bag with d2-ros replay"
            )

    def __len__(self) -> int:
        """Return the number of messages with rows."""
        return sum(self._bag.topics[topic][1] for topic in self._topics)

    def __iter__(self) -> Iterator[Told]:
        """Yield the messages."""
        infos = {self._info, self._right_info} if self.stereo else {self._info}
        newest: dict[str, Any] = {}
        for topic, message in self._bag.messages([*self._topics, *sorted(infos)]):
            if topic in infos:
                newest[topic] = camera_of(message, 0, 0), mount_of(message, False)
                continue
            name = self._topics[topic]
            rows = rows_of(message, LAYOUTS[name], topic)
            camera, mount = newest.get(self._info, (None, None))
            T_left_right = None
            if name == "stereo":
                camera, right = newest.get(self._right_info, (None, None))
                T_left_right = right_of(mount, right)
            yield Told(name, stamp_of(message), rows, camera, T_left_right)
