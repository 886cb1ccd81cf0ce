"""Difficulties that the multi-view paper names, each with and without its remedy.

Every test solves the same graph twice, the second time with the remedy switched off, and shows
that the result is then clearly worse. Errors are distances from the truth, px.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from d2_ros.config import RefinementConfig
from d2_ros.refinement.frame import refine_frame
from d2_ros.refinement.multiview import refine_graph
from d2_ros.refinement.problem import Problem
from d2_ros.tracks.graph import Edges

CONFIG = RefinementConfig()
TRACKS, VIEWS = 40, 6


def window(seed=0, start_error=1.5, noise=0.05):
    """All pairs of views measured: truth, start, held, first, second and the edges."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(20, 300, (VIEWS * TRACKS, 2))
    held = np.arange(len(truth)) < TRACKS
    start = truth + rng.normal(0, start_error, truth.shape) * ~held[:, None]
    first, second = (
        (views[:, None] * TRACKS + np.arange(TRACKS)).ravel()
        for views in np.array(np.triu_indices(VIEWS, 1))
    )
    count = len(first)
    edges = Edges(
        track=1 + first % TRACKS,
        stamp_from=first // TRACKS,
        stamp_to=second // TRACKS,
        centre=truth[first],
        pixels=truth[second] + rng.normal(0, noise, (count, 2)),
        affine=np.eye(2) + rng.normal(0, 0.05, (count, 2, 2)),
        covariance=np.tile(noise**2 * np.eye(2), (count, 1, 1)),
    )
    return truth, start, held, first, second, edges


def errors(truth, start, held, first, second, edges, config=CONFIG):
    solution = refine_graph(Problem(start, held, first, second, edges), config)
    return np.linalg.norm(solution - truth, axis=1)[~held]


@pytest.mark.parametrize("seed", range(2))
def test_incorrect_matches_need_the_robust_kernel(seed):
    """30 % of the edges are off by up to 8 px per axis."""
    truth, start, held, first, second, edges = window(seed)
    rng = np.random.default_rng(100 + seed)
    wrong = rng.random(len(first)) < 0.3
    pixels = edges.pixels + rng.uniform(-8, 8, (len(first), 2)) * wrong[:, None]
    graph = (truth, start, held, first, second, replace(edges, pixels=pixels))
    annealed = errors(*graph)
    assert np.median(annealed) < 0.06
    assert np.percentile(annealed, 95) < 0.2
    for width, times in ((100.0, 10), (4.0, 3)):  # squares; the paper's 0.25 of 16 px
        fixed = replace(CONFIG, kernel_start=width, kernel_end=width)
        assert np.median(errors(*graph, fixed)) > times * np.median(annealed)


def test_inaccurate_transformations_need_their_covariances():
    """Half of the transforms have a wrong affine part and say so along its direction."""
    truth, start, held, first, second, edges = window(1)
    rng = np.random.default_rng(1)
    bad = rng.random(len(first)) < 0.5
    angle = rng.uniform(0, 2 * np.pi, len(first))
    along = np.column_stack([np.cos(angle), np.sin(angle)])
    # 0.25 of the affine part is wrong, measured 2 px beside the keypoint: 0.5 px.
    shift = rng.normal(0, 0.25 * 2, len(first)) * bad
    spread = (0.5 * bad)[:, None, None] ** 2 * along[:, :, None] * along[:, None]
    edges = replace(
        edges,
        pixels=edges.pixels + shift[:, None] * along,
        covariance=edges.covariance + spread,
    )
    weighted = errors(truth, start, held, first, second, edges)
    equal = replace(edges, covariance=np.tile(edges.covariance.mean(0), (len(first), 1, 1)))
    unweighted = errors(truth, start, held, first, second, equal)
    assert np.median(weighted) < 0.05
    assert np.median(unweighted) > 1.5 * np.median(weighted)
    assert np.percentile(unweighted, 90) > 1.5 * np.percentile(weighted, 90)


def test_affine_parts_need_their_renewal():
    """A transform measured 4 px from where the solution ends is renewed in every pass."""
    truth, start, held, first, second, edges = window(2, start_error=3.0)
    rng = np.random.default_rng(2)
    affine = np.eye(2) + rng.normal(0, 0.2, edges.affine.shape)
    centre = edges.centre + rng.normal(0, 4, edges.centre.shape)
    pixels = edges.pixels + np.einsum("eij,ej->ei", affine, centre - edges.centre)
    graph = (truth, start, held, first, second)
    edges = replace(edges, affine=affine, centre=centre, pixels=pixels)
    once = replace(CONFIG, passes=1, kernel_start=CONFIG.kernel_end)
    assert np.median(errors(*graph, edges)) < 0.06
    assert np.median(errors(*graph, edges, once)) > 1.5 * np.median(errors(*graph, edges))


def follow(frames, reach, interval=10, size=7, tracks=40, noise=0.05, seed=0):
    """Follow static points for `frames` frames; every `interval`-th one becomes a keyframe.

    A frame is linked to the newest `reach` keyframes of a window of `size`, which every keyframe
    refines. Returns the errors ``(frames, tracks)`` relative to the first frame.
    """
    rng = np.random.default_rng(seed)
    window = [(0, np.zeros((tracks, 2)), [])]  # frame, places, edges: (frame from, measured)
    error = np.zeros((frames, tracks))
    square = noise**2 * np.eye(2)
    for frame in range(1, frames):
        linked = window[-reach:]
        # What an alignment measures is a shift: it repeats where the keyframe's place is wrong.
        links = [(when, rng.normal(0, noise, (tracks, 2))) for when, _, _ in linked]
        predicted = np.concatenate(
            [place + shift for (_, place, _), (_, shift) in zip(linked, links, strict=True)]
        )
        owner = np.tile(np.arange(tracks), len(linked))
        refined = refine_frame(
            owner, predicted, np.tile(square, (len(owner), 1, 1)), tracks, CONFIG
        )
        error[frame] = np.linalg.norm(refined.pixels, axis=1)
        if frame % interval == 0:
            window = [*window, (frame, refined.pixels, links)][-size:]
            window = solve(window, square) if reach > 1 else window  # a chain contradicts nothing
    return error


def solve(window, square):
    """The window, refined; the oldest keyframe is held."""
    tracks = len(window[0][1])
    place_of = {frame: number for number, (frame, _, _) in enumerate(window)}
    first, second, shift, stamps = [], [], [], []
    for number, (frame, _, links) in enumerate(window):
        for when, measured in links:
            if when in place_of:
                first.append(place_of[when] * tracks + np.arange(tracks))
                second.append(number * tracks + np.arange(tracks))
                shift.append(measured)
                stamps.append(np.tile([when, frame], (tracks, 1)))
    pixels = np.concatenate([place for _, place, _ in window])
    first, second, stamps = (np.concatenate(part) for part in (first, second, stamps))
    ones = np.ones((len(first), 1, 1))
    edges = Edges(
        first % tracks + 1, stamps[:, 0], stamps[:, 1], np.zeros((len(first), 2)),
        np.concatenate(shift), ones * np.eye(2), ones * square,
    )  # fmt: skip
    held = np.arange(len(pixels)) < tracks
    solution = refine_graph(Problem(pixels, held, first, second, edges), CONFIG)
    places = np.split(solution, len(window))
    return [(frame, p, links) for (frame, _, links), p in zip(window, places, strict=True)]


def test_drift_needs_edges_to_every_keyframe():
    """200 frames: linked to the whole window, or only to the newest keyframe, or frame to frame."""
    drift = {
        name: np.sqrt((follow(200, **how)[-50:] ** 2).mean())
        for name, how in {
            "window": {"reach": 7},
            "keyframe": {"reach": 1},
            "frame": {"reach": 1, "interval": 1},
        }.items()
    }
    assert drift["window"] < 0.15
    assert drift["keyframe"] > 1.5 * drift["window"]
    assert drift["frame"] > 4 * drift["window"]


def test_the_root_is_in_reach_while_it_is_in_the_window():
    """Until the window has let go of the first keyframe, errors do not grow with time."""
    error = follow(65, reach=7)
    early, late = error[1:10].mean(), error[-5:].mean()
    assert late < 1.2 * early
    chained = follow(65, reach=1)
    assert chained[-5:].mean() > 1.8 * late


@pytest.mark.parametrize("wrong", [0.0, 0.2])
def test_the_choice_of_the_root_only_shifts_the_track(wrong):
    """Holding the best measured observation instead of the oldest changes no relative place."""
    truth, start, held, first, second, edges = window(4, start_error=0.5)
    rng = np.random.default_rng(4)
    bad = rng.random((len(first), 1)) < wrong
    pixels = edges.pixels + rng.uniform(-5, 5, (len(first), 2)) * bad
    edges = replace(edges, affine=np.tile(np.eye(2), (len(first), 1, 1)), pixels=pixels)
    weak = replace(CONFIG, prior_sigma=1e3)
    oldest = refine_graph(Problem(start, held, first, second, edges), weak) - truth
    other = (
        refine_graph(Problem(start, np.roll(held, 3 * TRACKS), first, second, edges), weak) - truth
    )
    relative = [
        (places.reshape(VIEWS, TRACKS, 2) - places[:TRACKS]).reshape(-1, 2)
        for places in (oldest, other)
    ]
    assert np.abs(relative[0] - relative[1]).max() < 0.01
    published = [np.linalg.norm(places[:TRACKS], axis=1) for places in (oldest, other)]
    assert published[0].max() < 1e-3  # what was published of the oldest stays true
    assert np.median(published[1]) > 0.3
