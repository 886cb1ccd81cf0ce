"""Track invariants under random match graphs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2_ros.tracks.graph import Edges, assign_tracks, join, no_edges

CLAIMS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 6), st.floats(0.1, 1.0)), max_size=60)


def columns(claims):
    index, track, weight = zip(*claims, strict=True) if claims else ((), (), ())
    return np.array(index, np.int64), np.array(track, np.int64), np.array(weight, np.float64)


@settings(max_examples=200, deadline=None)
@given(CLAIMS)
def test_one_keypoint_per_track_and_one_track_per_keypoint(claims):
    index, track, weight = columns(claims)
    assigned = assign_tracks(index, track, weight, 10)
    used = assigned[assigned > 0]
    assert len(np.unique(used)) == len(used)
    claimed = set(zip(index.tolist(), track.tolist(), strict=True))
    assert all((i, t) in claimed for i, t in enumerate(assigned.tolist()) if t)


@settings(max_examples=200, deadline=None)
@given(CLAIMS)
def test_only_a_stronger_claim_cuts_a_claim(claims):
    """A pair that was not assigned lost one of its ends to a pair at least as strong."""
    index, track, weight = columns(claims)
    assigned = assign_tracks(index, track, weight, 10)
    strength: dict[tuple[int, int], float] = {}
    for i, t, w in zip(index.tolist(), track.tolist(), weight.tolist(), strict=True):
        if t:
            strength[i, t] = strength.get((i, t), 0.0) + w
    for (i, t), own in strength.items():
        if assigned[i] == t:
            continue
        rivals = [(i, int(assigned[i]))] if assigned[i] else []
        rivals += [(int(j), t) for j in np.flatnonzero(assigned == t)]
        assert any(strength[rival] >= own - 1e-12 for rival in rivals)


def test_agreeing_keyframes_outvote_one_strong_match():
    index, track = np.array([0, 0, 0]), np.array([1, 1, 2])
    assert assign_tracks(index, track, np.array([0.5, 0.5, 0.9]), 1).tolist() == [1]


def edge(start, end):
    return Edges(
        np.array([1]), np.array([start]), np.array([end]),
        np.zeros((1, 2)), np.zeros((1, 2)), np.eye(2)[None], np.eye(2)[None],
    )  # fmt: skip


def test_an_edge_joins_two_frames():
    with pytest.raises(ValueError, match="two different frames"):
        edge(5, 5)


def test_join_keeps_order():
    assert len(join([])) == len(no_edges()) == 0
    both = join([edge(1, 2), no_edges(), edge(3, 4)])
    assert both.stamp_from.tolist() == [1, 3]
    assert both.select(np.array([False, True])).stamp_to.tolist() == [4]
