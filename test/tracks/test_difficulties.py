"""Repeated structures and very large graphs, with and without what keeps them in order.

The scene is one row of look-alikes (windows of a facade, tiles of a floor) that slides by. A
match joins a feature to its true partner, or, in some frames, to the look-alike next to it.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from d2_ros.tracks.graph import assign_tracks

FEATURES, VIEWS, WINDOW = 80, 12, 7


def claims(frame, rng, wrong):
    """Matches of a frame with the keyframes before it: frame's feature, keyframe and its feature.

    Every feature finds its true partner in most keyframes, and the one next to it in the rest.
    """
    columns = []
    for view in range(max(0, frame - WINDOW), frame):
        index = np.arange(FEATURES)
        other = index + np.where(rng.random(FEATURES) < wrong, rng.choice([-1, 1], FEATURES), 0)
        known = (other >= 0) & (other < FEATURES)
        similarity = np.where(other == index, 0.9, 0.85) + rng.normal(0, 0.03, FEATURES)
        columns.append(np.column_stack([index, np.full(FEATURES, view), other, similarity])[known])
    return np.concatenate([mutual(found) for found in columns])


def mutual(found):
    """Of the matches with one feature of a keyframe only the most similar."""
    order = np.lexsort([-found[:, 3], found[:, 2]])
    return found[order[np.unique(found[order, 2], return_index=True)[1]]]


def run(wrong, seed=0):
    """Tracks of every view ``(VIEWS, FEATURES)``, assigned frame by frame, and all matches."""
    rng = np.random.default_rng(seed)
    tracks = np.zeros((VIEWS, FEATURES), np.int64)
    tracks[0] = np.arange(1, FEATURES + 1)
    matches = []
    for frame in range(1, VIEWS):
        found = claims(frame, rng, wrong)
        index, view, other = found[:, :3].astype(int).T
        tracks[frame] = assign_tracks(index, tracks[view, other], found[:, 3], FEATURES)
        fresh = tracks[frame] == 0
        tracks[frame, fresh] = tracks.max() + 1 + np.arange(fresh.sum())
        matches.append(np.column_stack([frame * FEATURES + index, view * FEATURES + other]))
    return tracks, np.concatenate(matches)


def purity(labels):
    """Share of the observations that are of their component's commonest feature."""
    feature = np.tile(np.arange(FEATURES), VIEWS)
    _, component = np.unique(labels.ravel(), return_inverse=True)
    table = np.zeros((component.max() + 1, FEATURES), int)
    np.add.at(table, (component, feature), 1)
    return table.max(axis=1).sum() / table.sum()


def components(matches):
    """The match graph as it is, uncut."""
    nodes = VIEWS * FEATURES
    graph = coo_array((np.ones(len(matches)), matches.T), shape=(nodes, nodes))
    return connected_components(graph, directed=False)[1].reshape(VIEWS, FEATURES)


@pytest.mark.parametrize("seed", range(3))
def test_a_repetitive_facade_does_not_grow_together(seed):
    """Without the cut by similarity the whole facade is one component."""
    tracks, matches = run(wrong=0.2, seed=seed)
    whole = components(matches)
    assert np.bincount(whole.ravel()).max() > 10 * VIEWS
    assert purity(whole) < 0.25
    # With it, a component has at most one node per view, and hardly any is of two features.
    assert np.bincount(tracks.ravel()).max() <= VIEWS
    for view in tracks:
        assert len(np.unique(view)) == FEATURES
    assert purity(tracks) > 0.98
    assert np.median(np.bincount(tracks.ravel())[1:]) == VIEWS


def without_exclusion(index, track, weight):
    """What :func:`assign_tracks` does, but for 'one keypoint per frame and track'."""
    claimed = np.zeros((FEATURES, FEATURES + 1))
    np.add.at(claimed, (index, track), weight)
    return np.where(claimed.any(axis=1), claimed.argmax(axis=1), 0)


@pytest.mark.parametrize("seed", range(3))
def test_a_tiled_floor_needs_one_keypoint_per_frame_and_track(seed):
    """Every third tile is new: its keypoint matches the tracks of the tiles next to it.

    They match themselves as well, in 70 of 100 keyframes: there the new one has no match.
    """
    rng = np.random.default_rng(seed)
    found = claims(WINDOW, rng, wrong=0.0)
    found = found[rng.random(len(found)) < 0.7]
    new = found[:, 0] % 3 == 0
    found[new, 2] += rng.choice([-1, 1], new.sum())
    found[new, 3] -= 0.1  # alike, but not the same
    found = np.concatenate([mutual(found[found[:, 1] == view]) for view in range(WINDOW)])
    found = found[(found[:, 2] >= 0) & (found[:, 2] < FEATURES)]
    index, _, other = found[:, :3].astype(int).T
    track, weight = other + 1, found[:, 3]
    own = np.arange(1, FEATURES + 1)
    once = assign_tracks(index, track, weight, FEATURES)
    assert np.mean((once > 0) & (once != own)) < 0.03
    assert len(np.unique(once[once > 0])) == (once > 0).sum()
    twice = without_exclusion(index, track, weight)
    assert np.mean((twice > 0) & (twice != own)) > 0.2
    assert len(np.unique(twice[twice > 0])) < (twice > 0).sum()
