"""Features in a bag are read back by the layout that the messages state."""

import numpy as np
import pytest

from d2_ros.errors import D2RosError
from d2_ros.evaluation.decoding import read_features
from d2_ros.records import FEATURES
from d2_ros.sources.messages import cloud
from d2_ros.sources.writer import BagWriter

TOPIC = "/d2_frontend/camera/features"
STAMP = 1_700_000_000_050_000_000


def random_rows(count):
    rng = np.random.default_rng(count)
    rows = np.zeros(count, FEATURES)
    for name in FEATURES.names:
        rows[name] = rng.uniform(0, 200, count)
    return rows


def write(path, messages):
    with BagWriter(path) as bag:
        for message in messages:
            bag.write(TOPIC, message)
    return path


def test_rows_come_back(tmp_path):
    sent = [random_rows(5), random_rows(0), random_rows(3)]
    messages = [cloud(STAMP + index, "camera", rows) for index, rows in enumerate(sent)]
    got = read_features(write(tmp_path / "bag.mcap", messages), TOPIC)
    assert [stamp for stamp, _ in got] == [STAMP, STAMP + 1, STAMP + 2]
    for rows, (_, decoded) in zip(sent, got, strict=True):
        assert decoded.dtype == FEATURES
        assert (decoded == rows).all()


def test_the_layout_is_the_messages_own(tmp_path):
    """Other order, padding and byte order."""
    names = FEATURES.names[::-1]
    other = np.dtype(
        {
            "names": names,
            "formats": [FEATURES[name].newbyteorder(">") for name in names],
            "offsets": [8 * index for index in range(len(names))],
            "itemsize": 8 * len(names) + 4,
        }
    )
    rows = random_rows(4)
    moved = np.zeros(4, other)
    for name in names:
        moved[name] = rows[name]
    message = cloud(STAMP, "camera", rows)
    for item in message.fields:
        item.offset = other.fields[item.name][1]
    message.is_bigendian, message.point_step = True, other.itemsize
    message.data = np.frombuffer(moved.tobytes(), np.uint8)
    ((_, decoded),) = read_features(write(tmp_path / "bag.mcap", [message]), TOPIC)
    assert (decoded == rows).all()


def test_a_missing_field_is_named(tmp_path):
    message = cloud(STAMP, "camera", random_rows(4))
    message.fields = message.fields[:-1]
    with pytest.raises(D2RosError, match="refined"):
        read_features(write(tmp_path / "bag.mcap", [message]), TOPIC)


def test_a_missing_topic_or_bag_is_named(tmp_path):
    bag = write(tmp_path / "bag.mcap", [cloud(STAMP, "camera", random_rows(1))])
    with pytest.raises(D2RosError, match="/other"):
        read_features(bag, "/other")
    with pytest.raises(D2RosError, match="no bag"):
        read_features(tmp_path / "nothing", TOPIC)
