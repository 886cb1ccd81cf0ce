"""The order in which a mapper is told what comes on several topics."""

from __future__ import annotations

from d2_ros.mapper.inbox import Inbox


def sent(inbox, *messages):
    """What comes out, as (topic, stamp, has stereo)."""
    ready = [item for topic, stamp in messages for item in inbox.put(topic, stamp, stamp)]
    return [(item.topic[0], item.stamp, item.stereo is not None) for item in ready]


def test_tracks_wait_for_the_features_of_their_frame():
    order = [("tracks", 1), ("features", 1), ("tracks", 3), ("features", 2), ("features", 3)]
    told = sent(Inbox(stereo=False), *order)
    assert [entry[:2] for entry in told] == [("f", 1), ("t", 1), ("f", 2), ("f", 3), ("t", 3)]


def test_features_wait_for_the_right_camera_whichever_comes_first():
    for order in (("features", "stereo"), ("stereo", "features")):
        inbox = Inbox(stereo=True)
        told = [sent(inbox, (topic, at)) for at in (1, 2) for topic in order]
        assert told == [[], [("f", 1, True)], [], [("f", 2, True)]]


def test_a_frame_without_a_partner_goes_on_when_a_later_one_has_its_own():
    inbox = Inbox(stereo=True)
    assert sent(inbox, ("features", 1), ("tracks", 1), ("features", 2)) == []
    assert sent(inbox, ("stereo", 2)) == [("f", 1, False), ("t", 1, False), ("f", 2, True)]


def test_a_right_camera_that_is_silent_holds_up_ten_frames_and_no_more():
    inbox = Inbox(stereo=True)
    told = sent(inbox, *(("features", at) for at in range(30)))
    assert told == [("f", at, False) for at in range(20)]
    assert [item.stamp for item in inbox.flush()] == list(range(20, 30))


def test_what_waits_when_time_jumps_back_is_dropped_but_for_frames():
    inbox = Inbox(stereo=True)
    sent(inbox, ("features", 100), ("tracks", 200), ("stereo", 300))
    assert sent(inbox, ("features", 50)) == []
    assert sent(inbox, ("stereo", 50)) == [("f", 50, True)]


def test_loops_wait_for_the_tracks_that_tell_of_their_keyframe():
    inbox = Inbox(stereo=False)
    assert sent(inbox, ("features", 1), ("loops", 1), ("features", 2)) == [
        ("f", 1, False),
        ("f", 2, False),
    ]
    told = sent(inbox, ("tracks", 2), ("loops", 2))  # a later window tells of it as well
    assert [entry[:2] for entry in told] == [("t", 2), ("l", 1), ("l", 2)]
    assert sent(inbox, ("loops", 5)) == []
    assert [item.topic for item in inbox.flush()] == ["loops"]


def test_loops_that_wait_are_bounded_and_end_with_their_run():
    inbox = Inbox(stereo=False)
    assert sent(inbox, ("features", 50), *(("loops", at) for at in range(51, 80))) == [
        ("f", 50, False)
    ]
    assert len(list(inbox.flush())) == 10
    assert sent(inbox, ("loops", 51), ("features", 1)) == [("l", 51, False), ("f", 1, False)]
