"""The rules of the estimators, over any course of tracks."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2_ros.camera import Camera
from d2_ros.records import FEATURES, STEREO
from d2_ros.sources.messages import stamp_of, vins_cloud
from d2_ros.vins import CHANNELS, GRID, VinsPoints, VinsTracks

CAMERA = Camera(640, 480, [[400, 0, 319.5], [0, 400, 239.5], [0, 0, 1]], [])
OTHER = Camera(640, 480, [[380, 0, 310], [0, 385, 250], [0, 0, 1]], [-0.2, 0.05, 0, 0, 0])


def frame(tracks, seed=0, lengths=None, camera=CAMERA):
    """Features at random places, one per entry of `tracks` (0: no track)."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(len(tracks), FEATURES)
    rows["u"] = rng.uniform(-0.5, camera.width - 0.5, len(tracks))
    rows["v"] = rng.uniform(-0.5, camera.height - 0.5, len(tracks))
    rows["x"], rows["y"], rows["z"] = camera.bearings(np.column_stack([rows["u"], rows["v"]])).T
    rows["track_id"] = tracks
    rows["track_length"] = 1 if lengths is None else lengths
    return rows


def seen_right(rows, seed, share=0.6):
    """What the right camera sees of features: `share` of them, at random places."""
    rng = np.random.default_rng(seed)
    seen = np.flatnonzero(rng.random(len(rows)) < share)
    right = np.zeros(len(seen), STEREO)
    pixels = rng.uniform(50, 430, (len(seen), 2)).astype(np.float32)
    right["index"] = seen
    right["u"], right["v"] = pixels.T
    right["x"], right["y"], right["z"] = OTHER.bearings(pixels).T
    return right


def ids_of(content):
    return content.channels[0].astype(int)


steps = st.lists(
    st.tuples(
        st.sets(st.integers(1, 40)),  # tracks seen
        st.integers(1, 10**10),  # ns since the last frame
        st.sampled_from(["frame"] * 8 + ["reset", "uncalibrated"]),
    ),
    max_size=20,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["fusion", "mono"]), st.sampled_from([1, 8, 300]), steps)
def test_every_rule_holds_over_any_course_of_tracks(estimator, layout, limit, course):
    adapter, reader, stamp = VinsTracks(layout, limit), estimator(layout, CAMERA), 10**9
    for number, (tracks, pause, event) in enumerate(course):
        stamp += pause
        if event == "reset":
            adapter.reset()
            reader.restart()
            stamp = 10**9
        camera = None if event == "uncalibrated" else CAMERA
        content = adapter.update(stamp, frame(sorted(tracks), number), camera)
        if camera is None:
            assert content is None
            continue
        message = vins_cloud(stamp, "optical", content)
        assert stamp_of(message) == stamp
        assert len(message.points) == min(len(tracks), limit)
        reader.feature_callback(message)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["fusion", "mono"]), st.sampled_from([1, 8, 300]), steps)
def test_every_rule_holds_for_a_stereo_pair_too(estimator, layout, limit, course):
    adapter = VinsTracks(layout, limit, cameras=2)
    reader, stamp = estimator(layout, CAMERA, right=OTHER), 10**9
    for number, (tracks, pause, event) in enumerate(course):
        stamp += pause
        if event == "reset":
            adapter.reset()
            reader.restart()
            stamp = 10**9
        rows = frame(sorted(tracks), number)
        right = None if event == "uncalibrated" else seen_right(rows, number)  # of the right camera
        before, kept = reader.pairs, len(tracks) <= limit
        message = vins_cloud(stamp, "optical", adapter.update(stamp, rows, CAMERA, right))
        reader.feature_callback(message)
        count = 0 if right is None else int(np.isfinite(right["x"]).sum())
        assert reader.pairs - before <= count
        assert reader.pairs - before == count or not kept
        assert len(message.points) == min(len(tracks), limit) + reader.pairs - before


@settings(max_examples=50, deadline=None)
@given(steps)
def test_the_left_rows_are_those_of_a_single_camera(course):
    single, pair, stamp = VinsTracks("fusion"), VinsTracks("fusion", cameras=2), 0
    for number, (tracks, pause, _) in enumerate(course):
        stamp += pause
        rows = frame(sorted(tracks), number)
        alone = single.update(stamp, rows, CAMERA)
        both = pair.update(stamp, rows, CAMERA, seen_right(rows, number))
        count = len(alone.points)
        assert both.points[:count].tobytes() == alone.points.tobytes()
        np.testing.assert_array_equal(both.channels[:, :count], alone.channels)
        assert (both.channels[1, count:] == 1).all()


@settings(max_examples=50, deadline=None)
@given(steps)
def test_an_id_goes_on_exactly_where_the_track_was_in_the_last_message(course):
    adapter, stamp, last = VinsTracks("fusion"), 0, {}
    for number, (tracks, pause, _) in enumerate(course):
        stamp += pause
        ordered = np.array(sorted(tracks), np.int64)
        rows = frame(ordered, number)
        content = adapter.update(stamp, rows, CAMERA)
        place = [int(np.flatnonzero(rows["u"] == u)[0]) for u in content.channels[2]]
        now = dict(zip(ordered[place].tolist(), ids_of(content).tolist(), strict=True))
        for track, number_sent in now.items():
            assert (last.get(track) == number_sent) == (track in last)
        last = now


def test_keypoints_without_a_track_or_a_bearing_are_not_sent():
    rows = frame([0, 5, 6, 7])
    rows["x"][2], rows["y"][3] = np.nan, np.inf
    content = VinsTracks("mono").update(1, rows, CAMERA)
    assert len(content.points) == 1
    assert content.channels[1, 0] == rows["u"][1]


def test_a_frame_without_tracks_is_an_empty_message_with_all_channels():
    content = VinsTracks("fusion").update(1, frame([0, 0]), CAMERA)
    assert content.points.shape == (0, 3)
    assert content.channels.shape == (9, 0)
    assert content.names == CHANNELS["fusion"]


def test_of_many_tracks_the_longest_in_each_part_of_the_image_are_sent():
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 100, 2000)
    rows = frame(np.arange(1, 2001), 3, lengths)
    content = VinsTracks("fusion").update(1, rows, CAMERA)
    assert len(content.points) == 300

    def cells(u, v):
        return (np.clip(v // 80, 0, 5) * GRID + np.clip(u // 80, 0, 7)).astype(int)

    everywhere, sent = cells(rows["u"], rows["v"]), cells(*content.channels[2:4])
    counts = np.bincount(sent)[np.unique(everywhere)]
    assert counts.min() >= counts.max() - 1 >= 5
    for cell in np.unique(everywhere):
        chosen = np.isin(rows["u"], content.channels[2][sent == cell])
        others = rows["track_length"][(everywhere == cell) & ~chosen]
        assert rows["track_length"][chosen].min() >= others.max()


def test_tracks_of_the_last_message_stay_where_new_ones_crowd_in():
    adapter = VinsTracks("mono", limit=20)
    first = ids_of(adapter.update(1, frame(np.arange(1, 21)), CAMERA))
    both = np.concatenate([frame(np.arange(1, 21)), frame(np.arange(100, 400), 1)])
    both["v"] = both["u"] = 100  # in one cell
    both["track_length"][20:] = 1000
    assert sorted(ids_of(adapter.update(2, both, CAMERA))) == sorted(first)


def test_ids_start_over_below_the_limit_and_pass_by_those_in_use():
    adapter, held = VinsTracks("mono", limit=4, id_limit=10), None
    seen = []
    for number in range(1, 60):  # track 1 stays, three others are new in each frame
        tracks = [1, *range(10 * number, 10 * number + 3)]
        rows = frame(tracks, number)
        content = adapter.update(number, rows, CAMERA)
        ids = dict(zip(content.channels[1].tolist(), ids_of(content).tolist(), strict=True))
        mine = ids[rows["u"][0].item()]
        assert held in (None, mine)
        assert len(set(ids.values())) == 4
        held = mine
        seen.append(set(ids.values()) - {mine})
    assert set().union(*seen) == set(range(1, 10)) - {held}
    assert not any(before & after for before, after in pairwise(seen))


def test_the_largest_id_survives_its_journey_as_float32():
    adapter = VinsTracks("fusion")
    adapter._next_id = 2**24 - 3
    content = adapter.update(1, frame([1, 2, 3, 4]), CAMERA)
    assert sorted(ids_of(content)) == [1, 2**24 - 3, 2**24 - 2, 2**24 - 1]


def test_vins_mono_ids_of_two_cameras_stay_below_the_limit_as_well():
    adapter = VinsTracks("mono", cameras=2)
    adapter._next_id = 2**23 - 2
    rows = frame([1, 2, 3])
    content = adapter.update(1, rows, CAMERA, seen_right(rows, 0, share=1.0))
    left = [2 * (2**23 - 2), 2 * (2**23 - 1), 2]
    assert sorted(ids_of(content)) == sorted([*left, *(number + 1 for number in left)])


def test_time_that_stands_still_or_goes_back_needs_a_reset():
    adapter = VinsTracks("fusion")
    adapter.update(5, frame([1]), CAMERA)
    for stamp in (5, 4):
        with pytest.raises(ValueError, match="not later"):
            adapter.update(stamp, frame([1]), CAMERA)
    adapter.reset()
    assert ids_of(adapter.update(4, frame([1]), CAMERA)) == [2]


def test_points_that_break_the_contract_cannot_be_made():
    ones = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="one value per point"):
        VinsPoints(ones, np.zeros((9, 1), np.float32), CHANNELS["fusion"])
    with pytest.raises(ValueError, match="z = 1"):
        VinsPoints(2 * ones, np.zeros((5, 2), np.float32), CHANNELS["mono"])


def test_the_reader_of_these_tests_sees_broken_rules(estimator):
    def message(stamp, ids, **changes):
        values = {name: np.zeros(len(ids), np.float32) for name in CHANNELS["mono"]}
        values["id"] = np.array(ids, np.float32)
        values.update(changes)
        header = SimpleNamespace(stamp=SimpleNamespace(sec=stamp, nanosec=0))
        points = [SimpleNamespace(x=0.0, y=0.0, z=1.0) for _ in ids]
        channels = [SimpleNamespace(values=value) for value in values.values()]
        return SimpleNamespace(header=header, points=points, channels=channels)

    def feed(*messages):
        reader = estimator("mono")
        for item in messages:
            reader.feature_callback(item)

    feed(message(1, [1, 2]), message(2, [2]), message(3, [2, 3]))
    with pytest.raises(AssertionError):  # the right camera's observation, id 1, stands alone
        estimator("mono", cameras=2).feature_callback(message(1, [3]))
    for wrong in (
        [message(1, [1]), message(1, [1])],
        [message(1, [1]), message(2, []), message(3, [1])],
        [message(1, [1, 1])],
        [message(1, [2**24])],
        [message(1, [1], velocity_x=np.ones(1))],
        [message(1, [1], u=np.zeros(0))],
    ):
        with pytest.raises(AssertionError):
            feed(*wrong)
