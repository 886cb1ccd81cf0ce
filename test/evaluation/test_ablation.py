"""Window graphs by every scheme, on graphs whose truth is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from d2_ros.evaluation.ablation import Recorder, ablation_figures, place
from d2_ros.evaluation.graphs import WindowGraph, record, two_view
from d2_ros.evaluation.paper import KERNEL, UNIT, refine_as_published, roots_by_similarity
from d2_ros.tracks.graph import Edges
from d2_ros.tracks.keyframe import Keyframe
from d2_ros.tracks.observations import Observations
from d2_ros.tracks.view import View

VIEWS, TRACKS = 6, 60


class Shifting:
    """Every point moves by (3, 1) px per frame."""

    stamps = range(10, 10 + VIEWS)

    def surface(self, frame, pixels):
        return np.column_stack([pixels - [3.0 * frame, frame], np.zeros(len(pixels))]), np.zeros(
            len(pixels), int
        )

    def project(self, points, planes, frame):
        return points[:, :2] + [3.0 * frame, frame], np.ones(len(points), bool)


def graph(noise=0.05, wrong=0.0, seed=0):
    """All pairs of views measured; detections off by 1.5 px, `pixels` true."""
    random = np.random.default_rng(seed)
    view = np.repeat(np.arange(VIEWS), TRACKS)
    start = np.tile(random.uniform(50, 300, (TRACKS, 2)), (VIEWS, 1))
    true = start + view[:, None] * [3.0, 1.0]
    first, second = (
        (pair[:, None] * TRACKS + np.arange(TRACKS)).ravel()
        for pair in np.array(np.triu_indices(VIEWS, 1))
    )
    affine = np.eye(2) + random.normal(0, 0.03, (len(first), 2, 2))
    pixels = true[second] + random.normal(0, noise, (len(first), 2))
    bad = random.random(len(first)) < wrong
    pixels[bad] += random.uniform(-8, 8, (bad.sum(), 2))
    edges = Edges(
        1 + first % TRACKS, 10 + first // TRACKS, 10 + second // TRACKS, true[first], pixels,
        affine, np.tile(noise**2 * np.eye(2), (len(first), 1, 1)),
    )  # fmt: skip
    detected = true + random.normal(0, 1.5, true.shape)
    detected[:TRACKS] = true[:TRACKS]
    similarity = np.where(first < TRACKS, 0.95, 0.8)  # the first views are the roots
    tracks = np.tile(np.arange(1, TRACKS + 1), VIEWS)
    return WindowGraph(10 + view, tracks, detected, true, first, second, edges, similarity), true


def plain_solution(recorded, seed_places):
    """The paper's cost of one track after another, by SciPy's own minimiser."""
    from scipy.optimize import minimize

    held = roots_by_similarity(recorded)
    places = recorded.detected.copy()
    for track in range(1, 4):
        rows = np.flatnonzero((recorded.track == track) & ~held)
        mine = np.flatnonzero(recorded.edges.track == track)
        edges = recorded.edges.select(mine)
        first, second = recorded.first[mine], recorded.second[mine]

        def cost(flat, rows=rows, edges=edges, first=first, second=second, mine=mine):
            trial = places.copy()
            trial[rows] = flat.reshape(-1, 2)
            offset = trial[first] - edges.centre
            there = edges.pixels + np.einsum("eij,ej->ei", edges.affine, offset)
            squared = ((trial[second] - there) ** 2).sum(1) / UNIT**2
            return (recorded.similarity[mine] * KERNEL**2 * np.log1p(squared / KERNEL**2)).sum()

        found = minimize(cost, seed_places[rows].ravel(), method="BFGS", options={"gtol": 1e-10})
        places[rows] = found.x.reshape(-1, 2)
    return places


def test_the_papers_scheme_is_the_minimum_of_its_cost():
    recorded, _ = graph(wrong=0.2)
    ours = refine_as_published(recorded)
    oracle = plain_solution(recorded, ours + 0.2)
    rows = recorded.track < 4
    assert np.abs(ours - oracle)[rows].max() < 0.01
    held = roots_by_similarity(recorded)
    np.testing.assert_array_equal(np.flatnonzero(held), np.arange(TRACKS))
    np.testing.assert_array_equal(ours[held], recorded.detected[held])
    assert np.abs(ours - recorded.detected).max() <= UNIT


def test_without_wrong_edges_the_papers_scheme_finds_the_truth():
    recorded, true = graph()
    error = np.linalg.norm(refine_as_published(recorded) - true, axis=1)
    assert np.median(error[TRACKS:]) < 0.06


def test_two_view_takes_the_oldest_and_else_the_newest():
    recorded, true = graph(noise=0.05)
    exact = recorded.edges.pixels[recorded.first < TRACKS]
    np.testing.assert_allclose(two_view(recorded)[TRACKS:], exact)
    # Without the last view's edges to the first one: from the newest keyframe before it.
    last = (VIEWS - 1) * TRACKS
    rows = np.flatnonzero((recorded.second < last) | (recorded.first >= TRACKS))
    part = WindowGraph(
        recorded.stamp, recorded.track, recorded.detected, recorded.pixels, recorded.first[rows],
        recorded.second[rows], recorded.edges.select(rows), recorded.similarity[rows],
    )  # fmt: skip
    chain = two_view(part)[last:]
    edge = (part.second >= last) & (part.first >= last - TRACKS)
    offset = exact[-2 * TRACKS : -TRACKS] - part.edges.centre[edge]
    there = part.edges.pixels[edge] + np.einsum("eij,ej->ei", part.edges.affine[edge], offset)
    np.testing.assert_allclose(chain, there)
    longer = two_view(part, newest=True)[last:]
    spread = [np.linalg.norm(p - true[last:], axis=1).mean() for p in (chain, longer)]
    assert spread[1] > 1.3 * spread[0]  # five links instead of two


def test_figures_of_every_scheme_on_the_same_observations():
    figures = ablation_figures([graph(wrong=0.3, seed=k)[0] for k in range(2)], Shifting())
    schemes = ("detected", "two_view", "two_view_newest", "multi_view", "multi_view_paper")
    assert list(figures) == [f"ablation.{name}" for name in schemes]
    assert {named["observations"] for named in figures.values()} == {2 * (VIEWS - 1) * TRACKS}
    medians = [figures[f"ablation.{name}"]["median_error_px"] for name in schemes]
    assert medians[3] < 1e-9  # `pixels` are true here
    assert medians[4] < 0.6 * medians[0]
    # A wrong alignment is final where nothing else is asked.
    p90 = figures["ablation.two_view"]["p90_error_px"]
    assert p90 > 3 * figures["ablation.multi_view_paper"]["p90_error_px"]
    assert ablation_figures([], Shifting()) == {}


def test_graphs_are_recorded_as_the_window_stands():
    random = np.random.default_rng(0)
    descriptors = torch.nn.functional.normalize(torch.rand(3, 512), dim=1)
    places = random.uniform(0, 100, (2, 3, 2))
    edge = Edges(
        np.array([7, 9]), np.array([1, 5]), np.array([2, 2]), np.zeros((2, 2)), np.zeros((2, 2)),
        np.tile(np.eye(2), (2, 1, 1)), np.tile(np.eye(2), (2, 1, 1)),
    )  # fmt: skip

    def keyframe(stamp, tracks, number, edges):
        squares = np.tile(np.eye(2), (len(tracks), 1, 1))
        obs = Observations(
            places[number], places[number], squares, squares, squares, np.array(tracks),
            np.zeros(len(tracks), np.float32), descriptors, torch.arange(len(tracks)),
        )  # fmt: skip
        view = View(stamp, None, (), None, np.empty((0, 0), np.float32))
        return Keyframe(view, obs, None, edges)

    none = edge.select(np.zeros(2, bool))
    window = (keyframe(1, [0, 7, 3], 0, none), keyframe(2, [7, 0, 9], 1, edge))
    frontend = SimpleNamespace(
        config=None, window=window, process=lambda *a: SimpleNamespace(is_keyframe=a[1] == 2)
    )
    recorder = Recorder(frontend)
    recorder.process(None, 1)
    recorder.process(None, 2)
    (recorded,) = recorder.graphs
    assert len(record(window).edges) == 1  # the other leads to a keyframe that has gone
    assert recorded.track.tolist() == [7, 3, 7, 9]
    assert (recorded.first.tolist(), recorded.second.tolist()) == ([0], [2])
    assert recorded.similarity[0] == pytest.approx(float(descriptors[1] @ descriptors[0]))
    np.testing.assert_array_equal(recorded.pixels[2], places[1, 0])
    assert recorded.roots.tolist() == [0, 1, 0, 3]


def test_a_graph_checks_itself():
    recorded, _ = graph()
    columns = {name: getattr(recorded, name) for name in WindowGraph.__dataclass_fields__}
    with pytest.raises(ValueError, match="later"):
        WindowGraph(**{**columns, "first": recorded.second, "second": recorded.first})
    with pytest.raises(ValueError, match="one track"):
        WindowGraph(**{**columns, "second": recorded.second + 1 - TRACKS})
    assert set(place(recorded)) >= {"two_view", "multi_view_paper"}
