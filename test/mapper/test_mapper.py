"""The mapper against a scene whose truth is exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from d2_ros.camera import Camera
from d2_ros.mapper.observations import view_of

SECOND = 1_000_000_000


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def test_the_trajectory_is_right_up_to_scale(make_scene, make_mapper, send, judge):
    scene, mapper = make_scene(), make_mapper()
    send(mapper, scene)
    assert mapper.state == "tracking"
    assert len(mapper.trajectory) == scene.frames
    assert (mapper.counts.segments, mapper.counts.lost) == (1, 0)
    # 3.6 units of way, points 4 to 12 away, 0.2 px of 500: 0.4 mrad an observation
    assert rms(judge(mapper, scene)) < 0.004


def test_landmarks_lie_where_the_points_do_and_know_how_well(make_scene, make_mapper, send, judge):
    scene, mapper = make_scene(), make_mapper()
    send(mapper, scene)
    _, poses = mapper.trajectory.poses()
    scale = np.linalg.norm(scene.poses[-1, :3, 3]) / np.linalg.norm(poses[-1, :3, 3])
    first = scene.poses[0]
    true = (scene.points[mapper.landmarks.ids - 1] - first[:3, 3]) @ first[:3, :3] / scale
    off = mapper.landmarks.places - true
    assert len(off) > 200
    assert np.median(np.linalg.norm(off, axis=1)) * scale < 0.05
    chi2 = np.einsum("ni,nij,nj->n", off, np.linalg.inv(mapper.landmarks.covariances), off)
    # 2.37 if the poses were exact and every sigma known
    assert 0.3 < np.median(chi2) < 8


def test_observations_count_by_their_own_covariance(make_scene, make_mapper, send, judge):
    """Half of the coordinates ten times worse: knowing which saves most of the error."""

    def equal(number, rows):
        rows["sigma_uu"] = rows["sigma_vv"] = 1.0
        return rows

    ratios = []
    for seed in range(3):
        spread = {"seed": seed, "sigmas": (0.15, 1.5)}
        own, same = make_mapper(), make_mapper()
        send(own, make_scene(**spread))
        send(same, make_scene(**spread), change=equal)
        ratios.append(
            rms(judge(own, make_scene(**spread))) / rms(judge(same, make_scene(**spread)))
        )
    assert max(ratios) < 0.7


def test_the_direction_of_a_covariance_counts(make_scene, make_mapper, send, judge, camera):
    """Edges: certain across, uncertain along. A covariance that is as large but round is worse."""

    def turned(number, rows):
        # sigma 0.15 and 1.5 px at an angle of its own per track
        angle = rows["track_id"] * 2.4
        cosine, sine = np.cos(angle), np.sin(angle)
        draw = np.random.default_rng(number).normal(size=(len(rows), 2)) * [1.5, 0.15]
        rows["u"] += cosine * draw[:, 0] - sine * draw[:, 1]
        rows["v"] += sine * draw[:, 0] + cosine * draw[:, 1]
        rows["x"], rows["y"], _ = camera.bearings(np.column_stack([rows["u"], rows["v"]])).T
        rows["sigma_uu"] = 2.25 * cosine**2 + 0.0225 * sine**2
        rows["sigma_vv"] = 2.25 * sine**2 + 0.0225 * cosine**2
        rows["sigma_uv"] = (2.25 - 0.0225) * cosine * sine
        return rows

    def round_(number, rows):
        rows = turned(number, rows)
        rows["sigma_uu"] = rows["sigma_vv"] = 1.14
        rows["sigma_uv"] = 0.0
        return rows

    own, same = make_mapper(), make_mapper()
    exact = {"sigmas": (0.001,)}
    send(own, make_scene(**exact), change=turned)
    send(same, make_scene(**exact), change=round_)
    assert rms(judge(own, make_scene())) < 0.6 * rms(judge(same, make_scene()))


def test_a_tenth_of_the_matches_may_be_wrong(make_scene, make_mapper, send, judge):
    scene, mapper = make_scene(wrong=0.1), make_mapper()
    send(mapper, scene)
    assert len(mapper.trajectory) == scene.frames
    assert rms(judge(mapper, scene)) < 0.01


def test_no_map_begins_with_a_camera_that_only_turns(make_scene, make_mapper, send):
    scene, mapper = make_scene(frames=20), make_mapper()
    for number in range(20):
        scene.poses[number, :3, 3] = 0
        scene.poses[number, :3, :3] = Rotation.from_rotvec([0, 0.02 * number, 0]).as_matrix()
    answers = send(mapper, scene)
    assert mapper.state == "starting"
    assert not any(answer is not None for answer in answers)
    assert mapper.counts.segments == 0


def test_a_map_begins_once_a_camera_that_stood_moves(make_scene, make_mapper, send, judge):
    scene, mapper = make_scene(frames=60), make_mapper()
    scene.poses = np.concatenate([np.repeat(scene.poses[:1], 20, axis=0), scene.poses[:40]])
    send(mapper, scene)
    assert mapper.counts.segments == 1
    assert rms(judge(mapper, scene)) < 0.006


def test_a_camera_that_stands_again_stays_where_it_is(make_scene, make_mapper, send, judge):
    scene, mapper = make_scene(frames=60), make_mapper()
    scene.poses = np.concatenate([scene.poses[:40], np.repeat(scene.poses[39:40], 20, axis=0)])
    send(mapper, scene)
    assert rms(judge(mapper, scene)) < 0.006
    assert mapper.counts.lost == 0


def test_lost_tracks_begin_a_new_segment_where_the_motion_leads(
    make_scene, make_mapper, send, judge
):
    """As after a reset of the front-end: every id is new from one frame to the next."""

    def renewed(number, rows):
        rows["track_id"] += 1000 * (number >= 20)
        return rows

    scene, mapper = make_scene(), make_mapper()
    send(mapper, scene, change=renewed)
    assert mapper.counts.segments == 2
    assert mapper.counts.lost > 0
    assert mapper.state == "tracking"
    assert len(mapper.trajectory) >= scene.frames - 1
    assert rms(judge(mapper, scene, range(20))) < 0.006  # each by itself as good as before
    assert rms(judge(mapper, scene, range(20, 40))) < 0.006
    assert rms(judge(mapper, scene)) < 0.2  # joined by the motion alone, 3.6 units of way


def test_a_frame_without_tracks_is_lost_and_the_next_is_found(make_scene, make_mapper, send):
    def blind(number, rows):
        return rows[:0] if number in (17, 18, 19) else rows

    mapper = make_mapper()
    answers = send(mapper, make_scene(), change=blind)
    assert [n for n, answer in enumerate(answers) if n > 12 and answer is None] == [17, 18, 19]
    assert (mapper.counts.segments, mapper.counts.lost) == (1, 3)


def test_a_gap_of_five_seconds_is_bridged_by_the_landmarks(make_scene, make_mapper, send, judge):
    scene, mapper = make_scene(frames=80), make_mapper()
    # 5 s without a message, in which the camera has hardly moved
    scene.poses = np.concatenate([scene.poses[:30], np.repeat(scene.poses[30:31], 50, axis=0)])
    numbers = [*range(30), 79]
    answers = send(mapper, scene, numbers)
    assert answers[-1] is not None
    assert mapper.counts.segments == 1


def test_time_that_jumps_back_begins_anew(make_scene, make_mapper, send, judge):
    mapper, scene = make_mapper(), make_scene(first_id=10_000, begin=50 * SECOND, seed=1)
    send(mapper, make_scene())
    send(mapper, scene)
    assert mapper.counts.restarts == 1
    stamps, _ = mapper.trajectory.poses()
    assert stamps[0] == scene.stamp(0)
    assert rms(judge(mapper, scene)) < 0.006


def test_a_frame_that_is_merely_late_is_passed_over(make_scene, make_mapper, send):
    scene, mapper = make_scene(), make_mapper()
    send(mapper, scene)
    assert send(mapper, scene, [38]) == [None]
    assert (mapper.counts.out_of_order, mapper.counts.restarts) == (1, 0)
    assert mapper.state == "tracking"


def test_tracks_may_come_before_or_long_after_their_features(
    make_scene, make_mapper, judge, camera, tracks_of
):
    """The node sends `tracks` first in a replay, and a few frames later live."""
    for delay in (0, 2):
        scene, mapper = make_scene(), make_mapper()
        waiting = []
        for number in range(scene.frames):
            stamp, rows = scene.stamp(number), scene.features(number)
            if number % 4 == 0:
                waiting.append((number + delay, stamp, tracks_of(stamp, rows)))
            while waiting and waiting[0][0] <= number:
                _, at, told = waiting.pop(0)
                mapper.add_tracks(at, told, camera)
            mapper.add_features(stamp, rows, camera)
        assert len(mapper.trajectory) >= scene.frames - 4, delay
        assert rms(judge(mapper, scene)) < 0.006, delay


def test_a_mapper_that_starts_late_begins_with_the_window_it_is_told(
    make_scene, make_mapper, camera, tracks_of
):
    scene, mapper = make_scene(), make_mapper()
    window = np.concatenate(
        [tracks_of(scene.stamp(n), scene.features(n)) for n in (0, 4, 8, 12, 16, 20)]
    )
    assert mapper.add_tracks(scene.stamp(20), window, camera)
    assert sorted(mapper.trajectory.keyframes) == [scene.stamp(n) for n in (0, 4, 8, 12, 16, 20)]


def test_what_tracks_say_supersedes_what_was_said_before(
    make_scene, make_mapper, send, judge, camera, tracks_of
):
    """Keyframes at first 3 px off, then told anew without the error."""
    scene, mapper, right = make_scene(), make_mapper(), []

    def off(number, rows):
        right.append((scene.stamp(number), rows.copy()))
        rows["x"] += 3 / 500 * np.sin(rows["track_id"] * 1.7 + number)
        return rows

    send(mapper, scene, change=off)
    before = rms(judge(mapper, scene))
    window = np.concatenate([tracks_of(stamp, rows) for stamp, rows in right[::4][-8:]])
    last = scene.stamp(scene.frames)
    fresh = tracks_of(last, right[-1][1])
    mapper.add_tracks(last, np.concatenate([window, fresh]), camera)
    keyframes = [stamp for stamp, _ in right[::4]]
    numbers = [number for number in range(scene.frames) if scene.stamp(number) in keyframes][-4:]
    scene.frames, scene.poses = 41, np.concatenate([scene.poses, scene.poses[-1:]])
    assert rms(judge(mapper, scene, numbers)) < before / 3


def test_rows_that_say_nothing_are_left_out(make_scene, make_mapper, send, judge):
    def spoiled(number, rows):
        rows["x"][::7] = np.nan
        rows["sigma_uu"][1::7] = np.nan
        rows["track_id"][2::7] = 0
        rows["sigma_uv"][3::7] = 1e6  # no covariance
        rows["track_id"][4::7] = rows["track_id"][5]  # twice in one frame
        return rows

    scene, mapper = make_scene(count=1500), make_mapper()
    send(mapper, scene, change=spoiled)
    assert len(mapper.trajectory) == scene.frames
    assert rms(judge(mapper, scene)) < 0.006


def test_poses_stay_orthonormal_over_many_frames(make_scene, make_mapper, send):
    # Errors of 1e-16 tripled with every frame: predicted from two poses, each made of others.
    mapper = make_mapper()
    send(mapper, make_scene(frames=80), every=1)
    _, poses = mapper.trajectory.poses()
    turns = poses[:, :3, :3]
    assert np.abs(turns @ turns.swapaxes(1, 2) - np.eye(3)).max() < 1e-12


def test_what_it_remembers_does_not_grow_with_time(make_scene, make_mapper, send):
    scene, mapper = make_scene(), make_mapper(keep_landmarks=300)
    send(mapper, scene)
    assert len(mapper.landmarks) <= 300
    assert len(mapper._window) <= mapper.config.window
    assert len(mapper._recent) <= 100


@pytest.mark.parametrize("count", [0, 3])
def test_next_to_nothing_is_no_map_and_no_error(make_scene, make_mapper, send, count):
    mapper = make_mapper()
    send(mapper, make_scene(count=count))
    assert mapper.state == "starting"


def test_a_stereo_pair_gives_metres(make_scene, make_mapper, send, judge):
    scene, mapper = make_scene(), make_mapper()
    answers = send(mapper, scene, stereo=True)
    assert all(answer is not None for answer in answers[1:])  # a map from the first keyframe on
    assert len(mapper.trajectory) == scene.frames
    assert (mapper.counts.segments, mapper.counts.lost) == (1, 0)
    assert rms(judge(mapper, scene, metric=True)) < 0.006  # 3.6 m of way


@pytest.mark.slow
def test_right_observations_count_by_their_own_covariance(make_scene, make_mapper, send, judge):
    """Right places ten times worse than the left ones: knowing it saves most of the error."""
    found = {2.0: 0.0, 0.2: 0.0}
    for seed in range(3):
        for told in found:
            scene, mapper = make_scene(seed=seed), make_mapper()
            exact = scene.right

            def blurred(number, rows, exact=exact, scene=scene, told=told):
                right = exact(number, rows)
                right.rows["u"] += scene.rng.normal(size=len(right.rows)) * 2.0
                right.rows["v"] += scene.rng.normal(size=len(right.rows)) * 2.0
                right.rows["sigma_uu"] = right.rows["sigma_vv"] = told**2
                return right

            scene.right = blurred
            send(mapper, scene, stereo=True)
            found[told] += rms(judge(mapper, scene, metric=True))
    assert found[2.0] < 0.7 * found[0.2]


def test_a_right_place_has_the_error_of_the_left_one_and_of_the_step_to_it(make_scene, camera):
    scene = make_scene()
    pinhole = Camera(camera.width, camera.height, camera.matrix, np.zeros(5))
    rows = scene.features(0)
    right = replace(scene.right(0, rows), camera=pinhole)
    rows["x"], rows["y"], _ = pinhole.bearings(np.column_stack([rows["u"], rows["v"]])).T
    rows["sigma_uu"], rows["sigma_uv"], rows["sigma_vv"] = 0.09, 0.02, 0.04
    right.rows["sigma_uu"], right.rows["sigma_uv"], right.rows["sigma_vv"] = 0.01, -0.01, 0.03
    view = view_of(0, rows, pinhole, 0.1, right.relative_to(rows))
    inner = np.linalg.inv(view.roots.swapaxes(1, 2) @ view.roots)
    focal = pinhole.focal
    left_px, right_px = ([[0.10, 0.02], [0.02, 0.05]], [[0.11, 0.01], [0.01, 0.08]])
    for eye, expected in enumerate([left_px, right_px]):
        found = inner[view.eyes == eye] * focal**2
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=1e-3)


def test_where_tracks_move_a_left_place_the_right_one_moves_along(
    make_scene, make_mapper, judge, camera, tracks_of
):
    """The right place was measured from the left one, wherever that was at the time."""
    scene, mapper = make_scene(sigmas=(0.001,)), make_mapper()
    for number in range(scene.frames):
        stamp, exact = scene.stamp(number), scene.features(number)
        rows, right = exact.copy(), scene.right(number, exact)
        off = 3 * np.sin(rows["track_id"] * 1.7 + number)
        rows["u"] += off
        right.rows["u"] += off[right.rows["index"]]
        rows["x"], rows["y"], _ = camera.bearings(np.column_stack([rows["u"], rows["v"]])).T
        mapper.add_features(stamp, rows, camera, right)
        if number % 4 == 0:
            mapper.add_tracks(stamp, tracks_of(stamp, exact), camera)
    keyframes = range(0, scene.frames, 4)
    assert rms(judge(mapper, scene, keyframes, metric=True)) < 0.0005


def test_a_stereo_pair_that_lost_its_tracks_begins_with_the_next_keyframe(
    make_scene, make_mapper, send, judge
):
    def renewed(number, rows):
        rows["track_id"] += 1000 * (number >= 20)
        return rows

    scene, mapper = make_scene(), make_mapper()
    exact = scene.right

    def known(number, rows):
        rows = rows.copy()
        rows["track_id"] -= 1000 * (number >= 20)
        return exact(number, rows)

    scene.right = known
    send(mapper, scene, change=renewed, stereo=True)
    assert mapper.counts.segments == 2
    assert len(mapper.trajectory) >= scene.frames - 1
    assert rms(judge(mapper, scene, range(20, 40), metric=True)) < 0.006
    assert rms(judge(mapper, scene, metric=True)) < 0.1


def test_right_rows_of_features_that_are_not_there_are_left_out(make_scene, make_mapper, send):
    scene, mapper = make_scene(), make_mapper()
    exact = scene.right

    def spoiled(number, rows):
        right = exact(number, rows)
        right.rows["index"][::5] = 4_000_000_000
        return right

    scene.right = spoiled
    send(mapper, scene, stereo=True)
    assert len(mapper.trajectory) == scene.frames
