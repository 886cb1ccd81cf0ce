"""Which revisits are told: each defence against a false one, and once only."""

from dataclasses import replace

import numpy as np
import pytest

from d2_ros.config import Config
from d2_ros.places.memory import PlaceMemory
from d2_ros.places.recognition import Recognition, RecognitionSettings, look_up

CONFIG = Config()
USUAL = RecognitionSettings(candidates=2)


@pytest.fixture
def lap(make_world):
    """A run that stands at one place, goes away for a minute and comes back."""
    here, away = make_world(0), make_world(1)
    stops = [(here, 0, 0.0), (here, 2, 0.2), (away, 30, 0.0), (away, 32, 0.2), (away, 34, 0.4)]
    stops += [(here, 60, 0.1), (here, 62, 0.3), (here, 64, 0.4)]
    return [world.place(stamp, (along, 0, 0))[0] for world, stamp, along in stops]


def run(places, settings):
    recognition = Recognition(PlaceMemory(), CONFIG, settings)
    told = []
    for place in places:
        found = recognition.look(place)
        recognition.memory.add(place)
        if found is not None:
            told.append((found.place.stamp // 10**9, found.known.stamp // 10**9))
    return told


def test_a_lap_is_closed_once_by_its_second_keyframe(lap):
    (told,) = run(lap, USUAL)
    assert told[0] == 62
    assert told[1] in (0, 2)


def test_without_the_exclusion_every_neighbour_would_be_a_revisit(lap):
    told = run(lap, replace(USUAL, exclusion_s=0.0))
    assert (34, 32) in told or (34, 30) in told
    assert len(told) > 1


def test_a_place_that_is_known_for_one_keyframe_only_is_not_told(lap):
    assert run(lap[:6], USUAL) == []  # the seventh tells, above
    # Known twice, but not the same neighbourhood: what looks alike is here and there.
    assert run(lap, replace(USUAL, neighbour_s=1.0)) == []


def test_few_inliers_are_not_enough(lap):
    assert run(lap, replace(USUAL, min_inliers=1000)) == []


def test_another_session_is_no_recent_keyframe(lap, make_world):
    memory = PlaceMemory(lap[:2])
    today = make_world(0).place(1, (0.1, 0, 0), session=1)[0]
    yesterday = make_world(0).place(1, (0.1, 0, 0), session=0)[0]
    found = look_up(today, memory, CONFIG, USUAL)
    assert [item.known.session for item in found] == [0, 0]
    assert found[0].inliers >= found[1].inliers > 100
    assert look_up(yesterday, memory, CONFIG, USUAL) == []


def test_an_empty_memory_knows_nothing(lap):
    assert look_up(lap[0], PlaceMemory(), CONFIG, USUAL) == []


def test_a_look_at_ten_thousand_places_is_not_slowed_by_their_number(blank, lap):
    rows = np.random.default_rng(0).standard_normal((10_000, 256))
    memory = PlaceMemory([blank(row, 10**9 * n, 5) for n, row in enumerate(rows)])
    assert look_up(lap[0], memory, CONFIG, USUAL) == []
