"""Sorting images into synchronised groups: what holds for any course of images."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2_ros.node.groups import DEPTH, Drop, Groups
from d2_ros.timing import CLOCK_JUMP

TOLERANCE = 10
CAMERAS = ("left", "right", "rear")


def run(course: list[tuple[str, int]], cameras: tuple[str, ...] = CAMERAS) -> tuple[list, list]:
    """Groups (camera -> stamp) and drops of a course of (camera, stamp)."""
    groups: Groups[int] = Groups(cameras, TOLERANCE)
    found, dropped = [], []
    for camera, stamp in course:
        group, drops = groups.put(camera, stamp, stamp)
        found += [group] if group else []
        dropped += drops
        assert all(groups.waits(name) <= DEPTH for name in cameras)
    dropped += [Drop(camera, "stopped", 0) for camera in groups.close()]
    return found, dropped


anything = st.lists(
    st.tuples(
        st.sampled_from(CAMERAS),
        st.one_of(st.integers(0, 60), st.integers(CLOCK_JUMP + 100, CLOCK_JUMP + 160)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(anything, st.integers(1, 3))
def test_every_image_is_in_one_group_or_dropped_and_groups_hold_the_tolerance(
    course: list[tuple[str, int]], count: int
) -> None:
    cameras = CAMERAS[:count]
    course = [(camera, stamp) for camera, stamp in course if camera in cameras]
    found, dropped = run(course, cameras)
    assert count * len(found) + len(dropped) == len(course)
    for camera in cameras:
        came = sum(name == camera for name, _ in course)
        assert came == len(found) + sum(drop.camera == camera for drop in dropped)
    for group in found:
        assert set(group) == set(cameras)
        assert max(group.values()) - min(group.values()) <= TOLERANCE
    if max((stamp for _, stamp in course), default=0) < CLOCK_JUMP:  # no jumps back
        for before, after in pairwise(found):
            assert all(after[camera] > before[camera] for camera in cameras)


@st.composite
def synchronised(draw: st.DrawFn) -> list[list[tuple[str, int]]]:
    """Images of every camera in order, each with a jitter within the tolerance, some lost.

    Then time jumps back, and the same once more.
    """
    streams: list[list[tuple[str, int]]] = []
    for camera in CAMERAS:
        stream = []
        for start in (LAP, 0):
            frames = draw(st.sets(st.integers(0, 12), min_size=1))
            for frame in sorted(frames):
                jitter = draw(st.integers(0, TOLERANCE))
                stream.append((camera, start + 100 * frame + jitter))
        streams.append(stream)
    return streams


LAP = 5 * CLOCK_JUMP


@settings(max_examples=500, deadline=None)
@given(synchronised(), st.randoms(use_true_random=False))
def test_with_back_pressure_every_complete_group_is_found_in_order(
    streams: list[list[tuple[str, int]]], random: Random
) -> None:
    groups: Groups[int] = Groups(CAMERAS, TOLERANCE)
    numbers = set.intersection(*({stamp // 100 for _, stamp in stream} for stream in streams))
    first = sorted(number for number in numbers if number >= LAP // 100)
    second = sorted(number for number in numbers if number < LAP // 100)
    found = []
    while True:
        free = [stream for stream in streams if stream and not groups.waits(stream[0][0])]
        if not free:
            break
        camera, stamp = random.choice(free).pop(0)
        group, drops = groups.put(camera, stamp, stamp)
        assert all(drop.cause == "unmatched" and drop.missing for drop in drops)
        found += [group] if group else []
    assert [group["left"] // 100 for group in found] == first + second
    assert not all(streams)  # only cameras that have ended hold others up


def test_cameras_whose_images_come_a_frame_apart_meet() -> None:
    course = [("left", 0), ("left", 100), ("right", 1), ("left", 200), ("right", 101)]
    assert run(course, ("left", "right"))[0] == [
        {"left": 0, "right": 1},
        {"left": 100, "right": 101},
    ]


def test_an_image_goes_as_soon_as_its_partner_cannot_come_any_more() -> None:
    found, dropped = run([("left", 0), ("right", 11), ("left", 21)], ("left", "right"))
    assert found == [{"left": 21, "right": 11}]
    assert dropped == [Drop("left", "unmatched", 0, ("right",))]


def test_of_a_camera_whose_partner_is_silent_the_newest_images_wait() -> None:
    found, dropped = run([("left", 100 * n) for n in range(5)], ("left", "right"))
    assert found == []
    assert [drop.stamp for drop in dropped if drop.cause == "unmatched"] == [0, 100, 200]
    assert {drop.missing for drop in dropped[:3]} == {("right",)}


def test_a_camera_that_lags_behind_a_jump_joins_when_its_time_is_near_again() -> None:
    late = 2 * CLOCK_JUMP
    course = [("left", late), ("right", late), ("left", 0), ("right", late + 100)]
    end = [("left", late + 150), ("right", late + 151)]  # as after a long silence
    found, dropped = run([*course, *end], ("left", "right"))
    assert found == [{"left": late, "right": late}, {"left": late + 150, "right": late + 151}]
    assert [(drop.camera, drop.stamp) for drop in dropped] == [("right", late + 100), ("left", 0)]


@pytest.mark.parametrize("back", [1, 0])
def test_a_stamp_that_is_not_later_is_out_of_order(back: int) -> None:
    _, dropped = run([("left", 5), ("left", 5 - back), ("right", 6)], ("left", "right"))
    assert dropped == [Drop("left", "out_of_order", 5 - back)]


def test_after_a_jump_back_all_begin_anew() -> None:
    late = 2 * CLOCK_JUMP
    end = [("left", late), ("right", late + 1), ("left", late + 100)]
    found, dropped = run([*end, ("right", 3), ("left", 4)], ("left", "right"))
    assert found == [{"left": late, "right": late + 1}, {"left": 4, "right": 3}]
    assert dropped == [Drop("left", "unmatched", late + 100, ("right",))]


def test_after_the_end_everything_is_stopped() -> None:
    groups: Groups[int] = Groups(CAMERAS, TOLERANCE)
    groups.put("left", 1, 1)
    assert groups.close() == ["left"]
    assert groups.put("right", 1, 1) == (None, [Drop("right", "stopped", 1)])
