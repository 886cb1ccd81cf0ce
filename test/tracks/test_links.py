"""Links of a frame: invariants under random matches and tracks."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from d2_ros.matching.neighbours import Matches, no_matches
from d2_ros.tracks.links import link_tracks


def scene(seed, keyframe, observations):
    """A frame of 12 keypoints and 3 keyframes of 10, with random tracks and mutual matches."""
    rng = np.random.default_rng(seed)

    def some_tracks(count):
        tracks = np.zeros(count, np.int64)
        used = rng.permutation(count)[: rng.integers(0, count)]
        tracks[used] = rng.permutation(np.arange(1, 16))[: len(used)]
        return tracks

    window = [keyframe(some_tracks(10), stamp=n + 1) for n in range(3)]
    columns = []
    for number in range(3):
        count = rng.integers(0, 10)
        index, other = rng.permutation(12)[:count], rng.permutation(10)[:count]
        columns.append((np.sort(index), np.full(count, number), other))
    index, keyframe_of, rows = (np.concatenate(c) for c in zip(*columns, strict=True))
    matches = Matches(index, keyframe_of, rows, np.ones(len(index), np.float32))
    return matches, observations(some_tracks(12)), window


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_invariants(keyframe, observations, seed):
    matches, obs, window = scene(seed, keyframe, observations)
    tracks, links = obs.tracks, link_tracks(matches, obs, window)
    found = links.matches
    pairs = np.column_stack([found.keyframe, found.index])
    others = np.column_stack([found.keyframe, found.keyframe_index])
    assert len(np.unique(pairs, axis=0)) == len(pairs)  # a keypoint once per keyframe
    assert len(np.unique(others, axis=0)) == len(others)
    tentative = set(zip(matches.keyframe, matches.index, matches.keyframe_index, strict=True))
    for row in range(len(found)):
        number, i, j = found.keyframe[row], found.index[row], found.keyframe_index[row]
        same = tracks[i] > 0 and window[number].obs.tracks[j] == tracks[i]
        assert links.tracked[row] == same
        assert links.mutual[row] == ((number, i, j) in tentative)
        assert same or links.mutual[row]
    # Every track membership is there, whether matched or not.
    for number, view in enumerate(window):
        shared = np.intersect1d(tracks[tracks > 0], view.obs.tracks[view.obs.tracks > 0])
        assert (links.tracked & (found.keyframe == number)).sum() == len(shared)


def test_restrict_renumbers_and_drops_what_only_a_lost_track_made(keyframe, observations):
    tracks = np.array([0, 4, 5])
    window = [keyframe([5, 4, 0])]
    matches = Matches(np.array([0]), np.array([0]), np.array([2]), np.ones(1, np.float32))
    links = link_tracks(matches, observations(tracks), window)
    assert len(links.matches) == 3
    lost = np.array([0, 0, 5])  # track 4 was lost in alignment
    inlier = np.ones(3, bool)
    rest, inlier = links.restrict(np.array([0, 2]), lost, inlier)
    assert rest.matches.index.tolist() == [1, 0]  # rows 2 and 0, renumbered
    assert rest.tracked.tolist() == [True, False]
    assert len(inlier) == 2


def test_a_predicted_place_that_nothing_has_measured_supports_no_link(keyframe, observations):
    tracks = np.array([0, 4, 5])
    window = [keyframe([5, 4, 0])]
    matches = Matches(np.array([0, 2]), np.zeros(2, int), np.array([2, 0]), np.ones(2, np.float32))
    links = link_tracks(matches, observations(tracks), window)
    supported = links.measured(np.array([0, 0, 0]))  # both tracks have failed to align
    assert links.matches.index[~supported].tolist() == [1]  # the other one is a mutual match too
    assert links.measured(tracks).all()


def test_without_keyframes_there_are_no_links(observations):
    links = link_tracks(no_matches(), observations([0, 0, 0]), [])
    assert len(links.matches) == 0
