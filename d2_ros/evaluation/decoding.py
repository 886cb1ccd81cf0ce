"""Features of a recorded bag, decoded by what their messages say of their own layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError
from d2_ros.records import FEATURES


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
    from d2_ros.sources.outputs import rows_of

    if not (files := find_bag(bag)):
        raise D2RosError(f"{bag} is no bag; give a .mcap file or a rosbag2 folder")
    content = Bag(files)
    if topic not in content.topics:
        raise D2RosError(f"bag {bag} has no topic {topic}; it has {', '.join(content.topics)}")
    return [
        (stamp_of(message), rows_of(message, FEATURES, topic))
        for _, message in content.messages([topic])
    ]
