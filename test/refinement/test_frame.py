"""Per-frame robust means."""

from __future__ import annotations

import numpy as np

from d2_ros.config import RefinementConfig
from d2_ros.refinement.frame import (
    ISOTROPIC,
    OUTLYING,
    SIGMA_SCALE,
    refine_frame,
    sure_enough,
)
from d2_ros.refinement.problem import kernel_widths

CONFIG = RefinementConfig()
SMALL = 0.05**2 * np.eye(2)


def test_one_edge_is_taken_as_it_is():
    refined = refine_frame(np.array([1]), np.array([[3.0, 4.0]]), SMALL[None], 3, CONFIG)
    np.testing.assert_allclose(refined.pixels[1], [3, 4])
    rounder = SMALL + ISOTROPIC**2 * 0.05**2 * np.eye(2)
    np.testing.assert_allclose(refined.covariance[1], SIGMA_SCALE**2 * rounder)
    assert np.isnan(refined.pixels[[0, 2]]).all()


def test_a_wrong_edge_hardly_pulls():
    predicted = np.array([[0.0, 0], [0.02, 0], [0, 0.02], [5.0, 5.0]])
    refined = refine_frame(np.zeros(4, int), predicted, np.tile(SMALL, (4, 1, 1)), 1, CONFIG)
    assert np.abs(refined.pixels).max() < 0.03  # the plain mean is at 1.25
    assert refined.weight[3] < 0.05 < 0.9 < refined.weight[:3].min()


def test_uncertain_edges_count_less_in_their_uncertain_direction():
    along_x = np.diag([1.0, 0.01])
    along_y = np.diag([0.01, 1.0])
    refined = refine_frame(
        np.zeros(2, int),
        np.array([[0.5, 0.0], [0.0, 0.5]]),
        np.stack([along_x, along_y]),
        1,
        CONFIG,
    )
    assert np.abs(refined.pixels).max() < 0.03


def test_the_larger_camp_wins_not_the_middle():
    predicted = np.array([[0.0, 0], [0.03, 0], [4.0, 0], [4.0, 0.03], [4.02, 0]])
    refined = refine_frame(np.zeros(5, int), predicted, np.tile(SMALL, (5, 1, 1)), 1, CONFIG)
    assert abs(refined.pixels[0, 0] - 4.0) < 0.05


def test_edges_that_disagree_say_so_in_the_covariance():
    together = np.array([[0.0, 0], [0.01, 0], [0, 0.01]])
    apart = np.array([[0.0, 0], [0.2, 0], [-0.2, 0]])
    owner, edges = np.zeros(3, int), np.tile(SMALL, (3, 1, 1))
    calm, torn = (
        refine_frame(owner, predicted, edges, 1, CONFIG).covariance[0]
        for predicted in (together, apart)
    )
    assert torn[0, 0] > 3 * calm[0, 0]  # along the disagreement ...
    assert torn[1, 1] < torn[0, 0] / 3  # ... more than across it


def test_no_ellipse_is_thinner_than_its_length_allows():
    thin = np.diag([1.0, 1e-4])
    covariance = refine_frame(np.zeros(1, int), np.zeros((1, 2)), thin[None], 1, CONFIG).covariance
    assert covariance[0, 1, 1] > ISOTROPIC**2 * 0.8 * covariance[0, 0, 0]


def test_no_edges_refine_nothing():
    refined = refine_frame(np.empty(0, int), np.empty((0, 2)), np.empty((0, 2, 2)), 4, CONFIG)
    assert np.isnan(refined.pixels).all()
    assert len(refined.weight) == 0


def test_kernel_is_annealed_from_wide_to_narrow():
    widths = kernel_widths(CONFIG)
    assert widths[0] == CONFIG.kernel_start
    assert np.isclose(widths[-1], CONFIG.kernel_end)
    assert (np.diff(widths) < 0).all()


def ellipses(*sigmas):
    return np.stack([np.diag([sigma**2, (0.4 * sigma) ** 2]) for sigma in sigmas])


def test_a_keypoint_is_too_uncertain_beside_sure_ones():
    limit = CONFIG.max_sigma
    found = sure_enough(ellipses(0.1, 0.1, 0.1, 0.99 * limit, 1.01 * limit), CONFIG)
    assert found.tolist() == [True, True, True, True, False]


def test_where_all_are_uncertain_none_is_suspect():
    typical = 2 * CONFIG.max_sigma
    sigmas = (typical, typical, typical, 0.99 * OUTLYING * typical, 1.01 * OUTLYING * typical)
    assert sure_enough(ellipses(*sigmas), CONFIG).tolist() == [True, True, True, True, False]


def test_what_has_no_covariance_is_not_sure():
    covariance = ellipses(0.1, 0.1)
    covariance[1] = np.nan
    assert sure_enough(covariance, CONFIG).tolist() == [True, False]
    assert sure_enough(np.empty((0, 2, 2)), CONFIG).tolist() == []
