"""Features of a recorded bag, decoded by what their messages say of their own layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError
from d2_ros.records import FEATURES

_POINT_FIELD_TYPES = ("", "i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")


def read_features(bag: Path, topic: str) -> list[tuple[int, NDArray[np.void]]]:
    """Decode a recorded ``features`` topic.

    Parameters
    ----------
    bag
        A rosbag2 folder or file.
    topic
        Such as ``/d2_frontend/camera/features``.

    Returns
    -------
    ``(stamp in ns, rows of records.FEATURES)`` in the order of recording.

    Raises
    ------
    D2RosError
        If the bag cannot be read, has no such topic, or a field is missing.
    """
    from d2_ros.sources.bagfiles import Bag  # rosbags takes a while to load
    from d2_ros.sources.messages import stamp_of
    from d2_ros.sources.opening import find_bag

    if not (files := find_bag(bag)):
        raise D2RosError(f"{bag} is no bag; give a .mcap file or a rosbag2 folder")
    content = Bag(files)
    if topic not in content.topics:
        raise D2RosError(f"bag {bag} has no topic {topic}; it has {', '.join(content.topics)}")
    return [(stamp_of(message), _rows(message)) for _, message in content.messages([topic])]


def _rows(message: Any) -> NDArray[np.void]:
    """Decode a PointCloud2 by its own fields into rows of records.FEATURES."""
    order = ">" if message.is_bigendian else "<"
    layout = np.dtype(
        {
            "names": [item.name for item in message.fields],
            "formats": [order + _POINT_FIELD_TYPES[item.datatype] for item in message.fields],
            "offsets": [item.offset for item in message.fields],
            "itemsize": message.point_step,
        }
    )
    names = FEATURES.names or ()
    if missing := set(names) - set(layout.names or ()):
        raise D2RosError(f"the features topic has no field {', '.join(sorted(missing))}")
    count = message.height * message.width
    decoded = np.frombuffer(message.data.tobytes(), layout, count)
    rows = np.empty(count, FEATURES)
    for name in names:
        rows[name] = decoded[name]
    return rows
