"""The memory's search, its bounds, and what it forgets."""

import time

import numpy as np
import pytest

from d2_ros.errors import D2RosError
from d2_ros.places.memory import PlaceMemory


def vectors(count, size=16, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_search_is_exact(blank):
    rows = vectors(500)
    memory = PlaceMemory([blank(row) for row in rows])
    for query in vectors(20, seed=1):
        assert memory.nearest(query, 5).tolist() == np.argsort(-(rows @ query))[:5].tolist()


def test_what_is_excluded_is_not_found(blank):
    rows = vectors(30)
    memory = PlaceMemory([blank(row) for row in rows])
    excluded = np.arange(30) < 17
    assert set(memory.nearest(rows[3], 30, excluded)) == set(range(17, 30))
    assert not len(memory.nearest(rows[3], 5, np.ones(30, bool)))
    assert not len(PlaceMemory().nearest(rows[3], 5))


def test_the_older_of_the_two_most_alike_is_forgotten(blank):
    memory = PlaceMemory(capacity=3)
    for stamp, vlad in enumerate([[1, 0, 0], [0, 1, 0], [0.1, 1, 0]]):
        assert memory.add(blank(vlad, stamp)) is None
    gone = memory.add(blank([0, 0, 1], 3))
    assert gone.stamp == 1
    assert [place.stamp for place in memory.places] == [0, 2, 3]
    assert memory.nearest(np.float32([0, 0, 1]), 1).tolist() == [2]


def test_a_full_memory_forgets_what_a_slow_search_of_all_pairs_says(blank):
    rows = vectors(120, size=6)
    memory, kept = PlaceMemory(capacity=40), []
    for stamp, row in enumerate(rows):
        gone = memory.add(blank(row, stamp))
        kept.append(stamp)
        if len(kept) > 40:
            alike = rows[kept] @ rows[kept].T - 9 * np.eye(len(kept))
            expected = kept.pop(int(np.unravel_index(alike.argmax(), alike.shape)[0]))
            assert gone.stamp == expected
    assert [place.stamp for place in memory.places] == kept


@pytest.mark.parametrize("capacity", [1, 2])
def test_even_the_smallest_memory_stays_within_its_bound(blank, capacity):
    memory = PlaceMemory(capacity=capacity)
    for stamp, row in enumerate(vectors(6)):
        memory.add(blank(row, stamp))
    assert len(memory) == capacity
    assert memory[capacity - 1].stamp == 5


def test_a_capacity_that_does_not_hold_the_places_is_refused(blank):
    with pytest.raises(D2RosError, match="2 places cannot have a capacity of 1"):
        PlaceMemory([blank([1, 0]), blank([0, 1])], capacity=1)


def test_ten_thousand_places_are_searched_within_20_ms(blank):
    memory = PlaceMemory([blank(row) for row in vectors(10_000, 256)])
    excluded = np.arange(10_000) > 9_800
    spent = []
    for query in vectors(15, 256, seed=1):
        begin = time.thread_time()  # other processes must not fail this test
        memory.nearest(query, 5, excluded)
        spent.append(time.thread_time() - begin)
    assert np.median(spent) <= 0.020
