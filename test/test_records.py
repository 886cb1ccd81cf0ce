"""The rows of the topics, byte for byte as docs/topics.md and other programs have them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2_ros.records import FEATURES, MATCHES, TRACKS, FrameResult, split_stamp

FLOAT, INT, UINT, BYTE = "<f4", "<i4", "<u4", "|u1"
FEATURES_LAYOUT = [
    (FLOAT, "x y z u v u_detected v_detected sigma_uu sigma_uv sigma_vv score"),
    (UINT, "track_id track_length"),
    (BYTE, "refined"),
]
MATCHES_LAYOUT = [
    (UINT, "index"),
    (INT, "keyframe_sec"),
    (UINT, "keyframe_nanosec keyframe_index"),
    (FLOAT, "u v keyframe_u keyframe_v similarity"),
    (BYTE, "inlier"),
]
TRACKS_LAYOUT = [
    (UINT, "track_id"),
    (INT, "sec"),
    (UINT, "nanosec index"),
    (FLOAT, "x y z u v sigma_uu sigma_uv sigma_vv"),
]


@pytest.mark.parametrize(
    ("record", "size", "layout"),
    [(FEATURES, 53, FEATURES_LAYOUT), (MATCHES, 37, MATCHES_LAYOUT), (TRACKS, 48, TRACKS_LAYOUT)],
    ids=["features", "matches", "tracks"],
)
def test_fields_follow_each_other_in_order_type_and_without_gaps(record, size, layout):
    expected = [(name, kind) for kind, names in layout for name in names.split()]
    assert [(name, record[name].str) for name in record.names] == expected
    offset = 0
    for name in record.names:
        assert record.fields[name][1] == offset
        offset += record[name].itemsize
    assert record.itemsize == offset == size


@given(st.integers(-(2**31) * 10**9, (2**31) * 10**9 - 1))
def test_stamps_split_into_the_fields_of_a_ros_time(stamp):
    sec, nanosec = split_stamp(stamp)
    assert sec * 10**9 + nanosec == stamp
    assert 0 <= nanosec < 10**9
    assert -(2**31) <= sec < 2**31


def test_stamps_may_be_numpy_integers():
    assert split_stamp(np.int64(1403715273262142976)) == (1403715273, 262142976)


def result(**changes):
    parts = {
        "stamp": 5,
        "is_keyframe": True,
        "features": np.zeros(3, FEATURES),
        "matches": np.zeros(2, MATCHES),
        "tracks": np.zeros(4, TRACKS),
        "descriptors": np.zeros((3, 512), np.float32),
    }
    return FrameResult(**parts | changes)


def test_a_result_holds_rows_of_the_right_kind():
    assert len(result().features) == 3
    assert result(tracks=None).tracks is None


@pytest.mark.parametrize(
    "changes",
    [
        {"features": np.zeros(3, MATCHES)},
        {"matches": np.zeros(3, FEATURES)},
        {"tracks": np.zeros(3, FEATURES)},
        {"features": np.zeros((3, 5), np.float32)},
        {"descriptors": np.zeros((2, 512), np.float32)},
    ],
)
def test_a_result_refuses_rows_of_the_wrong_kind(changes):
    with pytest.raises(ValueError, match="must have"):
        result(**changes)
