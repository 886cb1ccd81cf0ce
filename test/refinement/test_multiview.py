"""The window solutions of GTSAM and SciPy against a dense NumPy solver, and their promises."""

from __future__ import annotations

import numpy as np
import pytest

from d2_ros.config import RefinementConfig, parameters
from d2_ros.refinement.frame import refine_frame
from d2_ros.refinement.multiview import refine_graph
from d2_ros.refinement.problem import EDGE_FLOOR, SETTLED, Problem, kernel_widths, unsettled
from d2_ros.refinement.solvers import SOLVERS
from d2_ros.refinement.sparse import refine_graph as refine_sparse
from d2_ros.tracks.graph import Edges

CONFIG = RefinementConfig()


def chain_of_views(tracks=40, views=6, noise=0.05, wrong=0.0, seed=0, affine_noise=0.05):
    """Tracks seen in all views, all pairs measured; `pixels` start off by D2-Net's 1.5 px."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(20, 300, (views, tracks, 2))
    start = truth + rng.normal(0, 1.5, truth.shape)
    start[0] = truth[0]  # the root is where its track is, by definition
    track, first, second = [], [], []
    for a in range(views):
        for b in range(a + 1, views):
            track += range(1, tracks + 1)
            first += [a * tracks + t for t in range(tracks)]
            second += [b * tracks + t for t in range(tracks)]
    first, second = np.array(first), np.array(second)
    affine = np.eye(2) + rng.normal(0, affine_noise, (len(first), 2, 2))
    flat, flat_start = truth.reshape(-1, 2), start.reshape(-1, 2)
    centre = flat_start[first]
    # Exact transform: takes truth to truth, measured at the centre as it stood.
    pixels = flat[second] + np.einsum("eij,ej->ei", affine, centre - flat[first])
    pixels += rng.normal(0, noise, pixels.shape)
    bad = rng.random(len(first)) < wrong
    pixels[bad] += rng.uniform(-8, 8, (bad.sum(), 2))
    covariance = np.tile(noise**2 * np.eye(2), (len(first), 1, 1))
    edges = Edges(
        np.array(track), first // tracks, second // tracks, centre, pixels, affine, covariance
    )
    held = np.arange(views * tracks) < tracks
    return flat, flat_start, held, first, second, edges


def numpy_solver(pixels, held, first, second, edges, config):
    """The same cost by dense reweighted least squares: every pass lagged affine, then IRLS."""
    count = len(pixels)
    information = np.linalg.inv(edges.covariance + EDGE_FLOOR**2 * np.eye(2))
    solution = pixels.copy()
    for kernel in kernel_widths(config):
        shift = (
            edges.pixels
            + np.einsum("eij,ej->ei", edges.affine, solution[first] - edges.centre)
            - solution[first]
        )
        for _ in range(60):
            residual = solution[second] - solution[first] - shift
            squared = np.einsum("ei,eij,ej->e", residual, information, residual)
            weight = 1 / (1 + squared * (EDGE_FLOOR / kernel) ** 2)
            normal = np.zeros((count, 2, count, 2))
            right = np.zeros((count, 2))
            for e, (i, j) in enumerate(zip(first, second, strict=True)):
                block = weight[e] * information[e]
                normal[i, :, i] += block
                normal[j, :, j] += block
                normal[i, :, j] -= block
                normal[j, :, i] -= block
                right[j] += block @ shift[e]
                right[i] -= block @ shift[e]
            for n in range(count):
                sigma = 1e-4 if held[n] else config.prior_sigma
                normal[n, :, n] += np.eye(2) / sigma**2
                right[n] += pixels[n] / sigma**2
            solved = np.linalg.solve(normal.reshape(2 * count, -1), right.ravel())
            solution = solved.reshape(-1, 2)
    return solution


@pytest.mark.parametrize("wrong", [0.0, 0.2])
def test_equals_a_numpy_robust_solver(wrong):
    _, start, held, first, second, edges = chain_of_views(tracks=8, views=4, wrong=wrong)
    ours = refine_graph(Problem(start, held, first, second, edges), CONFIG)
    oracle = numpy_solver(start, held, first, second, edges, CONFIG)
    assert np.abs(ours - oracle).max() < 0.01


@pytest.mark.parametrize("wrong", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("passes", [1, 3])
def test_sparse_equals_gtsam(wrong, passes):
    config = RefinementConfig(passes=passes)
    _, start, held, first, second, edges = chain_of_views(wrong=wrong)
    ours = refine_sparse(Problem(start, held, first, second, edges), config)
    theirs = refine_graph(Problem(start, held, first, second, edges), config)
    assert np.abs(ours - theirs).max() < 1e-3
    assert np.abs(ours - start)[~held].max() > 1


@pytest.mark.parametrize("solve", [refine_graph, refine_sparse])
def test_settled_tracks_stay_and_cost_the_others_nothing(solve):
    truth, start, held, first, second, edges = chain_of_views(noise=0.02, affine_noise=0.0)
    whole = solve(Problem(start, held, first, second, edges), CONFIG)
    again = solve(Problem(whole, held, first, second, edges), CONFIG)
    assert np.abs(again - whole).max() < 2 * SETTLED
    moved = whole.copy()
    woken = np.arange(len(truth)) % 40 < 5
    moved[woken & ~held] += 0.5
    mixed = solve(Problem(moved, held, first, second, edges), CONFIG)
    np.testing.assert_allclose(mixed[woken], whole[woken], atol=0.02)
    np.testing.assert_allclose(mixed[~woken], whole[~woken], atol=2 * SETTLED)
    calm = np.abs(again - whole).max(1) == 0
    assert calm[~woken].mean() > 0.8
    assert (mixed[calm & ~woken] == whole[calm & ~woken]).all()


def test_edges_of_settled_tracks_are_left_out():
    _, start, held, first, second, edges = chain_of_views(noise=0.0)
    problem = Problem(start, held, first, second, edges)
    kernel, prior = CONFIG.kernel_start, CONFIG.prior_sigma
    assert len(unsettled(problem, start, kernel, prior)) == len(edges)
    solved = refine_graph(problem, CONFIG)
    settled = Problem(solved, held, first, second, edges)
    assert len(unsettled(settled, solved, CONFIG.kernel_end, prior)) < 0.05 * len(edges)
    solved[55] += 0.1  # one observation of track 16
    woken = unsettled(settled, solved, CONFIG.kernel_end, prior)
    assert (edges.track[woken] == 16).sum() == (edges.track == 16).sum()


def test_every_choice_of_the_parameter_is_a_solver():
    (solver,) = (p for p in parameters() if p.name == "refinement.solver")
    assert set(solver.choices) == set(SOLVERS)


def test_sparse_leaves_observations_without_edges_and_whole_graphs_without_any():
    _, start, held, first, second, edges = chain_of_views(tracks=5, views=3)
    rows = (first != 7) & (second != 7)
    some = refine_sparse(
        Problem(start, held, first[rows], second[rows], edges.select(rows)), CONFIG
    )
    np.testing.assert_array_equal(some[7], start[7])
    none = np.zeros(len(edges), bool)
    same = refine_sparse(
        Problem(start, held, first[none], second[none], edges.select(none)), CONFIG
    )
    np.testing.assert_array_equal(same, start)


def test_recovers_the_truth_and_holds_the_root():
    truth, start, held, first, second, edges = chain_of_views()
    solution = refine_graph(Problem(start, held, first, second, edges), CONFIG)
    assert np.abs(solution[held] - truth[held]).max() < 1e-3
    error = np.linalg.norm(solution - truth, axis=1)[~held]
    assert np.median(error) < 0.06
    assert error.max() < 0.3


def test_thirty_percent_wrong_edges():
    truth, start, held, first, second, edges = chain_of_views(wrong=0.3)
    solution = refine_graph(Problem(start, held, first, second, edges), CONFIG)
    error = np.linalg.norm(solution - truth, axis=1)[~held]
    assert np.median(error) < 0.06
    assert np.percentile(error, 95) < 0.2


def test_observations_without_edges_stay():
    _, start, held, first, second, edges = chain_of_views(tracks=5, views=3)
    lonely = 7
    rows = (first != lonely) & (second != lonely)
    solution = refine_graph(
        Problem(start, held, first[rows], second[rows], edges.select(rows)), CONFIG
    )
    np.testing.assert_array_equal(solution[lonely], start[lonely])


@pytest.mark.parametrize("wrong", [0.0, 0.25])
def test_per_frame_step_equals_gtsam(wrong):
    """With all keyframes held, the window solver and the vectorised frame step agree."""
    rng = np.random.default_rng(5)
    keypoints, views = 60, 6
    truth = rng.uniform(0, 300, (keypoints, 2))
    owner = np.repeat(np.arange(keypoints), views)
    predicted = truth[owner] + rng.normal(0, 0.05, (len(owner), 2))
    bad = rng.random(len(owner)) < wrong
    predicted[bad] += rng.uniform(-6, 6, (bad.sum(), 2))
    scale = rng.uniform(0.02, 0.2, len(owner)) ** 2
    covariance = scale[:, None, None] * np.array([[1.0, 0.3], [0.3, 0.6]])
    refined = refine_frame(owner, predicted, covariance, keypoints, CONFIG)
    # The same as a graph: one held neighbour per edge, transform = plain shift.
    neighbour = keypoints + np.arange(len(owner))
    start = np.concatenate([refined.pixels + 0.1, np.zeros((len(owner), 2))])
    held = np.arange(len(start)) >= keypoints
    edges = Edges(
        owner + 1, np.zeros(len(owner), int), np.ones(len(owner), int),
        np.zeros((len(owner), 2)), predicted, np.tile(np.eye(2), (len(owner), 1, 1)), covariance,
    )  # fmt: skip
    # One narrow pass from nearby: the same minimum, without the prior's pull.
    weak = RefinementConfig(kernel_start=0.25, passes=1, prior_sigma=1000.0)
    solution = refine_graph(Problem(start, held, neighbour, owner, edges), weak)[:keypoints]
    assert np.abs(solution - refined.pixels).max() < 0.01
