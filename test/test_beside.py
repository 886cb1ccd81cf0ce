"""The network and the solver beside the frames: what joins when, and what frames wait for."""

from __future__ import annotations

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from d2_ros.config import Config, with_values
from d2_ros.errors import D2RosError
from d2_ros.evaluation.accuracy import accuracy_figures, track_errors
from d2_ros.features.extractor import Extractor
from d2_ros.frontend import FrontEnd
from d2_ros.refinement.solvers import InlineSolver, solve
from d2_ros.sources.synthetic import open_synthetic
from d2_ros.workers import IN_TURN, InlineExecutor, Workers

SEQUENCE = "size=320x240,frames=40"  # its first 14 have neither blur nor another exposure
CONFIG = with_values(
    Config(),
    {
        "features.extract": "keyframes",
        "features.max_keypoints": 300,
        "window.size": 3,
        "window.min_parallax": 2.0,  # a keyframe every third frame or so
    },
)


@pytest.fixture(scope="module")
def frames():
    return list(islice(open_synthetic(SEQUENCE), 14))


@pytest.fixture(scope="module")
def extractor():
    return Extractor(CONFIG)


def run(frames, extractor, config=CONFIG, workers=IN_TURN):
    frontend = FrontEnd(config, extractor, workers)
    return [frontend.process(frame.image, frame.stamp, frame.camera) for frame in frames]


class OnCall(Executor):
    """Runs what it is given when it is told to."""

    def __init__(self):
        self.waiting = []

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.waiting.append((future, fn, args))
        return future

    @property
    def asked(self):
        """What the network has been asked for; edges to be measured are not."""
        return [fn for _, fn, _ in self.waiting if "Extraction" in fn.__qualname__]

    def work(self):
        for future, fn, args in self.waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(fn(*args))
        self.waiting.clear()


class SolverOnCall(OnCall):
    def submit(self, problem, config):
        return super().submit(solve, problem, config)


def test_what_was_seen_late_joins_where_it_has_been_followed_to(frames, extractor):
    late = with_values(CONFIG, {"features.delay": 3})
    results = {
        name: run(frames, extractor, config) for name, config in (("now", CONFIG), ("late", late))
    }
    keyframes = {n: [i for i, r in enumerate(rs) if r.is_keyframe] for n, rs in results.items()}
    assert keyframes["now"][0] == 0
    assert keyframes["late"][0] == 3
    truth = open_synthetic(SEQUENCE)
    figures = {
        name: accuracy_figures(track_errors([(r.stamp, r.features) for r in rows], truth))
        for name, rows in results.items()
    }
    assert figures["late"]["median_error_px"] < 1.2 * figures["now"]["median_error_px"]
    joined = results["late"][keyframes["late"][1]]
    assert len(joined.features) == CONFIG.features.max_keypoints
    assert (joined.features["score"] > 0).mean() > 0.4  # the network's own, carried over
    assert len(joined.descriptors) == len(joined.features)
    assert (joined.features["track_id"] > 0).mean() > 0.9


def test_the_same_delay_gives_the_same_bytes(frames, extractor):
    late = with_values(CONFIG, {"features.delay": 2})
    one, other = (run(frames[:8], extractor, late) for _ in range(2))
    for ours, theirs in zip(one, other, strict=True):
        assert ours.features.tobytes() == theirs.features.tobytes()
        assert ours.matches.tobytes() == theirs.matches.tobytes()
        assert (ours.tracks is None) == (theirs.tracks is None)


def test_frames_go_on_while_the_network_is_at_work(frames, extractor):
    network = OnCall()
    frontend = FrontEnd(CONFIG, extractor, Workers(InlineExecutor(), InlineSolver(), True))
    frontend.process(frames[0].image, frames[0].stamp, frames[0].camera)
    frontend._workers = replace(frontend._workers, network=network)
    frontend._extraction._workers = frontend._workers
    results = []
    for frame in frames[1:9]:
        results.append(frontend.process(frame.image, frame.stamp, frame.camera))
        assert len(network.asked) <= 1  # never two at once
    assert all(result.followed and len(result.features) > 30 for result in results)
    assert len(network.asked) == 1
    network.work()
    joined = frontend.process(frames[9].image, frames[9].stamp, frames[9].camera)
    assert joined.is_keyframe
    before = set(results[-1].features["track_id"].tolist())
    kept = before & set(joined.features["track_id"].tolist())
    assert len(kept) > 0.8 * len(before)  # tracks that were followed meanwhile live on


def test_where_nothing_can_be_followed_the_networks_answer_is_carried_to_the_present(
    frames, extractor
):
    """At the start and after a jump; meanwhile frames say that there is nothing."""
    elsewhere = list(islice(open_synthetic(SEQUENCE), 33, 39))
    shift = frames[6].stamp - elsewhere[0].stamp
    jumped = [replace(frame, stamp=frame.stamp + shift) for frame in elsewhere]
    network = OnCall()
    frontend = FrontEnd(CONFIG, extractor, Workers(network, InlineSolver(), True))
    results = []
    for number, frame in enumerate([*frames[:6], *jumped]):
        if number in (3, 9):  # what was asked for at 0, and at 6, is there
            network.work()
        results.append(frontend.process(frame.image, frame.stamp, frame.camera))
        assert len(network.asked) <= 1
    empty = [number for number, result in enumerate(results) if len(result.features) == 0]
    assert empty == [0, 1, 2, 6, 7, 8]
    for number in (3, 9):
        assert results[number].is_keyframe
        assert len(results[number].features) > 150
    truth = open_synthetic(SEQUENCE)
    own = [(r.stamp - (0 if n < 6 else shift), r.features) for n, r in enumerate(results)]
    for part in (own[3:6], own[9:12]):
        figures = accuracy_figures(track_errors(part, truth))
        assert figures["observations"] > 200
        assert figures["median_error_px"] < 0.1


def test_where_answers_come_too_late_frames_wait_for_every_second(frames, extractor):
    """A camera too fast for the network: some frames with features, instead of none."""
    far = [
        replace(frame, image=np.rot90(frame.image, 2 * (number % 2)), camera=None)
        for number, frame in enumerate(frames[:5])
    ]
    results = []
    with ThreadPoolExecutor(1) as network:
        frontend = FrontEnd(CONFIG, extractor, Workers(network, InlineSolver(), True))
        for frame in far:
            results.append(frontend.process(frame.image, frame.stamp))
            if frontend._extraction._looking is not None:
                frontend._extraction._looking.answer.result()
    for number, result in enumerate(results):
        assert result.followed == (number % 2 == 0)
        assert len(result.features) == 0 if result.followed else len(result.features) > 100


def test_images_of_another_size_drop_what_the_network_says_of_the_last_ones(frames, extractor):
    smaller = [replace(frame, image=frame.image[:160, :240], camera=None) for frame in frames[2:4]]
    network = OnCall()
    frontend = FrontEnd(CONFIG, extractor, Workers(network, InlineSolver(), True))
    for frame in frames[:2]:
        assert len(frontend.process(frame.image, frame.stamp).features) == 0
    frontend.process(smaller[0].image, smaller[0].stamp)
    network.work()
    joined = frontend.process(smaller[1].image, smaller[1].stamp)
    assert joined.is_keyframe
    assert joined.features["u"].max() < 240


def test_every_frame_waits_where_every_frame_is_for_the_network(frames, extractor):
    config = with_values(CONFIG, {"features.extract": "every_frame"})
    with ThreadPoolExecutor(1) as network:
        beside = run(frames[:3], extractor, config, Workers(network, InlineSolver(), True))
    for ours, theirs in zip(beside, run(frames[:3], extractor, config), strict=True):
        assert ours.features.tobytes() == theirs.features.tobytes()


def test_frames_go_on_while_a_window_is_solved(frames, extractor):
    """Each window is told at its own stamp, solved or, when the next keyframe enters, as it is."""
    solver = SolverOnCall()
    frontend = FrontEnd(CONFIG, extractor, Workers(InlineExecutor(), solver, True))
    told, keyframes = [], []
    for number, frame in enumerate(frames):
        result = frontend.process(frame.image, frame.stamp, frame.camera)
        keyframes += [frame.stamp] if result.is_keyframe else []
        if result.tracks is not None:
            told.append(result.tracks_stamp)
            newest = result.tracks["sec"].astype(np.int64) * 10**9 + result.tracks["nanosec"]
            assert newest.max() == result.tracks_stamp <= frame.stamp
        assert len(solver.waiting) <= 1
        if number >= 8:
            solver.work()
    assert len(keyframes) >= 3
    assert told == keyframes[: len(told)]
    assert len(told) >= len(keyframes) - 1


def test_a_solver_that_fails_leaves_the_window_as_it_stands(frames, extractor):
    class Broken:
        def submit(self, problem, config):
            future = Future()
            future.set_exception(D2RosError("the solver's process has ended"))
            return future

    broken = run(frames[:6], extractor, workers=Workers(InlineExecutor(), Broken(), True))
    whole = run(frames[:6], extractor)
    for ours, theirs in zip(broken, whole, strict=True):
        assert (ours.tracks is None) == (theirs.tracks is None)
    assert len(broken[-1].features) > 0.9 * len(whole[-1].features)


def test_what_the_network_says_of_before_a_reset_is_forgotten(frames, extractor):
    network = OnCall()
    frontend = FrontEnd(CONFIG, extractor, Workers(InlineExecutor(), InlineSolver(), True))
    frontend.process(frames[0].image, frames[0].stamp, frames[0].camera)
    frontend._workers = replace(frontend._workers, network=network)
    frontend._extraction._workers = frontend._workers
    for frame in frames[1:10]:
        frontend.process(frame.image, frame.stamp, frame.camera)
    assert network.waiting
    network.work()
    frontend.reset()
    frontend._workers = frontend._extraction._workers = IN_TURN
    again = frontend.process(frames[10].image, frames[10].stamp, frames[10].camera)
    assert again.is_keyframe
    assert (again.features["track_length"] <= 1).all()
