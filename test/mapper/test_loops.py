"""Places that are known again put the map right, and what is false does not."""

from __future__ import annotations

import numpy as np
import pytest
from scene import CAMERA, Ring, tracks

from d2_ros.mapper import loops

FRAMES = 400  # a lap has 314


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def go_round(mapper, ring, told=(), frames=FRAMES, change=None):
    """Send frames, and rows of `loops` behind keyframe `now`, for each (now, rows) of `told`."""
    told = dict(told)
    for number in range(frames):
        stamp, rows = ring.stamp(number), ring.features(number)
        rows = rows if change is None else change(number, rows)
        mapper.add_features(stamp, rows, CAMERA)
        if number % 4 == 0:
            mapper.add_tracks(stamp, tracks(stamp, rows), CAMERA)
        if number in told:
            mapper.add_loops(stamp, told[number], CAMERA)


def error(trajectory, ring):
    """Absolute error after a similarity of all."""
    stamps, poses = trajectory.poses()
    true = np.stack(
        [ring.pose((s - ring.stamp(0)) // (ring.stamp(1) - ring.stamp(0))) for s in stamps]
    )
    a, b = (p[:, :3, 3] - p[:, :3, 3].mean(0) for p in (true, poses))
    left, spread, right = np.linalg.svd(a.T @ b)
    sign = np.diag([1, 1, np.sign(np.linalg.det(left @ right))])
    scale = np.trace(np.diag(spread) @ sign) / (b**2).sum()
    return rms(np.linalg.norm(a - scale * b @ (left @ sign @ right).T, axis=1))


def errors(make_mapper, told, seed=0, **values):
    mapper, ring = make_mapper(loops=True), Ring(sigma=0.5, seed=seed)
    go_round(mapper, ring, told, **values)
    return mapper, error(mapper.trajectory, ring), error(mapper.adjusted().trajectory, ring)


RIGHT = tuple((now, now - 312) for now in (364, 380, 396))


@pytest.mark.parametrize("seed", [0, 1])
def test_loops_of_a_lap_take_half_of_its_error(make_mapper, seed):
    ring = Ring(seed=seed)
    told = [(now, ring.loop(now, then)) for now, then in RIGHT]
    mapper, before, after = errors(make_mapper, told, seed)
    assert (len(mapper.loops.graph.loops), mapper.loops.graph.refused) == (3, 0)
    assert after < before / 2


def test_odometry_never_jumps(make_mapper):
    ring, plain, corrected = Ring(), make_mapper(), make_mapper(loops=True)
    told = [(now, ring.loop(now, then)) for now, then in RIGHT]
    go_round(plain, Ring(sigma=0.5))
    go_round(corrected, Ring(sigma=0.5), told)
    assert corrected.loops.graph.loops
    for ours, theirs in zip(corrected.trajectory.poses(), plain.trajectory.poses(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_false_loop_changes_nothing_and_right_ones_still_count(make_mapper):
    """Another part of the ring, which looks exactly like this one: sure of a wrong pose."""
    ring = Ring()
    false = ring.loop(302, 300)  # as if what 380 sees were what 302 saw
    false["keyframe_sec"], false["keyframe_nanosec"] = divmod(ring.stamp(300), 10**9)
    false["index"] = np.arange(len(false)) % 60
    told = [(364, ring.loop(364, 52)), (380, false), (396, ring.loop(396, 84))]
    mapper, before, after = errors(make_mapper, told)
    assert [(loop.now - loop.then) // 10**8 for loop in mapper.loops.graph.loops] == [312, 312]
    assert mapper.loops.graph.refused == 1
    assert after < before / 2
    alone, before, after = errors(make_mapper, told[1:2])
    assert (alone.loops.graph.loops, alone.loops.graph.refused) == ([], 1)
    assert after == before


def test_two_segments_are_joined_by_a_loop(make_mapper):
    """A covered camera: scale and place of the second segment are a guess until it comes round."""
    ring = Ring()

    def covered(number, rows):
        if 200 <= number < 230:
            return rows[:0]
        rows["track_id"] += 100_000 * (number >= 230)
        return rows

    told = [(now, ring.loop(now, then)) for now, then in RIGHT]
    mapper, before, after = errors(make_mapper, told, change=covered)
    assert mapper.counts.segments == 2
    assert len(mapper.loops.graph.loops) == 3
    assert after < before / 5
    assert after < 0.05  # of a way of 6.3 a lap


def test_landmarks_are_put_right_with_the_keyframes_that_saw_them(make_mapper):
    ring, mapper = Ring(), make_mapper(loops=True)
    go_round(mapper, Ring(sigma=0.5), [(now, ring.loop(now, then)) for now, then in RIGHT])
    odom, whole = mapper.landmarks, mapper.adjusted().landmarks
    np.testing.assert_array_equal(odom.ids, whole.ids)
    assert np.linalg.norm(odom.places - whole.places, axis=1).max() > 0.01
    # A point that was seen in both laps has two landmarks, which come nearer to one another.
    apart = []
    for marks in (odom, whole):
        points = (marks.ids - 1) % Ring.COUNT
        again = np.flatnonzero(np.diff(np.sort(points)) == 0)
        order = np.argsort(points, kind="stable")
        gaps = marks.places[order[again]] - marks.places[order[again + 1]]
        apart.append(np.median(np.linalg.norm(gaps, axis=1)))
    assert len(again) > 50
    assert apart[1] < apart[0] / 2


def test_what_no_map_knows_is_refused_and_counted(make_mapper):
    ring, mapper = Ring(), make_mapper(loops=True)
    go_round(mapper, ring, frames=100)
    rows = ring.loop(96, 60)
    yesterday = rows.copy()
    yesterday["session"] = 1
    assert not mapper.add_loops(ring.stamp(96), yesterday, CAMERA)  # another run's: passed over
    assert mapper.loops.graph.refused == 0
    assert not mapper.add_loops(ring.stamp(97), rows, CAMERA)  # of no keyframe
    assert not mapper.add_loops(ring.stamp(5000), rows, CAMERA)
    assert not mapper.add_loops(ring.stamp(96), rows[:5], CAMERA)
    rows["keyframe_index"] = 10_000
    assert not mapper.add_loops(ring.stamp(96), rows, CAMERA)
    assert mapper.loops.graph.refused == 4
    assert not mapper.add_loops(ring.stamp(96), rows[:0], CAMERA)


def test_a_new_run_forgets_the_loops(make_mapper):
    ring, mapper = Ring(), make_mapper(loops=True)
    go_round(mapper, ring, [(now, ring.loop(now, then)) for now, then in RIGHT])
    assert mapper.loops.graph.loops
    mapper.reset()
    assert not mapper.loops.graph.loops
    assert not mapper.add_loops(ring.stamp(364), ring.loop(364, 52), CAMERA)


def test_who_saw_a_track_last_is_remembered_of_the_newest(monkeypatch):
    monkeypatch.setattr(loops, "_MOST_TRACKS", 1000)
    seen, last = loops.Seen(), {}
    for stamp in range(1, 200):
        ids = np.arange(stamp * 40, stamp * 40 + 100, dtype=np.uint32)
        seen.add(stamp, ids)
        last |= dict.fromkeys(ids.tolist(), stamp)
        assert len(seen._last) <= 2000
    newest = np.array(sorted(last))[-1000:]
    np.testing.assert_array_equal(seen.last(newest), [last[track] for track in newest])
    assert seen.last(np.array([1, 50, 10**6])).tolist() == [0, 0, 0]


def test_what_is_remembered_of_keyframes_is_bounded(monkeypatch):
    monkeypatch.setattr(loops, "_MOST_KEYFRAMES", 5)
    seen = loops.Seen()
    for stamp in range(9):
        seen.add(stamp, np.array([3, 0, 7], np.uint32))
    assert seen.tracks(8, np.array([0, 2, 3], np.uint32)).tolist() == [3, 7, 0]
    assert seen.tracks(3, np.array([0], np.uint32)).tolist() == [0]
