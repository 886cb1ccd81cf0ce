"""The whole of a map smoothed at the end, against a scene whose truth is exact."""

from __future__ import annotations

import numpy as np
import pytest
from inertia import CALIBRATION, samples

KEEP = 1000


@pytest.fixture
def long_scene(make_scene):
    """Return a scene of twelve seconds, with points all along the way."""

    def make(**values):
        scene = make_scene(frames=120, count=900, **values)
        scene.points[:, 0] = scene.rng.uniform(-4, 15, len(scene.points))
        scene.points[:, 2] += 0.2 * np.maximum(scene.points[:, 0], 0)
        return scene

    return make


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def adjusted_errors(mapper, scene, judge, **values):
    live, whole = judge(mapper, scene, **values), mapper.adjusted()
    mapper.trajectory, mapper.landmarks = whole.trajectory, whole.landmarks
    return rms(live), rms(judge(mapper, scene, **values))


def test_all_keyframes_together_are_better_than_one_after_the_other(
    long_scene, make_mapper, send, judge
):
    """A live window takes its older keyframes for certain: 30 keyframes, of which 6 move."""
    live, whole = [], []
    for seed in range(3):
        scene, mapper = long_scene(seed=seed), make_mapper(keep_keyframes=KEEP)
        send(mapper, scene)
        errors = adjusted_errors(mapper, scene, judge)
        live.append(errors[0])
        whole.append(errors[1])
    assert np.mean(whole) < 0.85 * np.mean(live)  # 0.75 was seen
    assert max(whole) < 0.0015  # 11 units of way


def test_landmarks_move_along(long_scene, make_mapper, send):
    scene, mapper = long_scene(), make_mapper(keep_keyframes=KEEP)
    send(mapper, scene)
    whole = mapper.adjusted()
    _, poses = whole.trajectory.poses()
    scale = np.linalg.norm(scene.poses[-1, :3, 3]) / np.linalg.norm(poses[-1, :3, 3])
    true = (scene.points[whole.landmarks.ids - 1] - scene.poses[0, :3, 3]) @ scene.poses[0, :3, :3]
    off = np.linalg.norm(whole.landmarks.places - true / scale, axis=1) * scale
    assert len(off) > 400
    assert np.median(off) < 0.03


def test_the_live_map_stays_as_it_is(long_scene, make_mapper, send):
    scene, mapper, other = long_scene(), make_mapper(keep_keyframes=KEEP), make_mapper()
    send(mapper, scene, range(60))
    send(other, long_scene(), range(60))
    mapper.adjusted()
    send(mapper, scene, range(60, 120))
    send(other, long_scene(), range(120))  # draws its noise in the same order
    for ours, theirs in zip(mapper.trajectory.poses(), other.trajectory.poses(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(mapper.landmarks.places, other.landmarks.places)


def test_where_nothing_is_kept_the_map_is_the_live_one(long_scene, make_mapper, send):
    mapper = make_mapper()
    send(mapper, long_scene())
    whole = mapper.adjusted()
    assert whole.trajectory is mapper.trajectory
    assert not mapper._window.left


def test_keyframes_that_are_not_kept_hold_the_others(long_scene, make_mapper, send):
    scene, mapper = long_scene(), make_mapper(keep_keyframes=8)
    send(mapper, scene)
    assert len(mapper._window.left) == 8
    live, whole = mapper.trajectory.keyframes, mapper.adjusted().trajectory.keyframes
    moved = [np.abs(live[stamp] - whole[stamp]).max() > 1e-5 for stamp in live]
    # 30 keyframes: 24 kept, of which the first ten hold as much as the live window's did
    assert moved == [False] * 16 + [True] * 14


def test_segments_are_smoothed_each_by_itself(make_scene, make_mapper, send, judge):
    mapper = make_mapper(keep_keyframes=KEEP, coast=1.0)
    first = make_scene(frames=80, count=1200)
    send(mapper, first, range(40))
    second = make_scene(frames=80, count=1200, first_id=10_001)
    send(mapper, second, range(40, 80))
    assert mapper.counts.segments == 2
    before = {k: v.copy() for k, v in mapper.trajectory.keyframes.items()}
    whole = mapper.adjusted().trajectory.keyframes
    moved = [stamp for stamp in before if not np.array_equal(before[stamp], whole[stamp])]
    assert min(moved) < first.stamp(40) <= max(moved)


def test_segments_that_are_kept_are_bounded(make_scene, make_mapper, send):
    mapper = make_mapper(keep_keyframes=20)
    for part in range(5):
        scene = make_scene(begin=(100 + 10 * part) * 10**9, first_id=1 + 1000 * part)
        send(mapper, scene)
    assert mapper.counts.segments == 5
    assert sum(len(w.left) + len(w) for w in mapper._before) <= 20


def test_metres_of_a_pair_stay(long_scene, make_mapper, send, judge):
    scene, mapper = long_scene(), make_mapper(keep_keyframes=KEEP)
    send(mapper, scene, stereo=True)
    live, whole = adjusted_errors(mapper, scene, judge, metric=True)
    assert whole < live
    assert whole < 0.01


def test_metres_of_an_imu_stay(long_scene, make_mapper, send, judge):
    scene, mapper = long_scene(), make_mapper(CALIBRATION, keep_keyframes=KEEP)
    times = np.arange(-0.1, 12.1, 1 / 200)
    told = samples(lambda time: type(scene).pose(scene, 10 * time), times, (0.0, 1.0, 0.0))
    for time, sample in zip(times, told, strict=True):
        mapper.add_imu(scene.begin + round(time * 1e9), sample)
    send(mapper, scene)
    assert mapper.metric
    live, whole = adjusted_errors(mapper, scene, judge, metric=True)
    assert whole < 1.2 * live
    assert whole < 0.05
