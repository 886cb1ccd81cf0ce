"""Multi-view refinement of a match graph, with GTSAM.

After Dusmanu, Schonberger and Pollefeys, "Multi-View Optimization of Local Feature
Geometry" (ECCV 2020): minimise ``sum rho(|x_j - T_ij(x_i)|)`` over the match graph. Differences:
every edge is weighted by its measured covariance, the kernel is annealed from wide to narrow
(cold narrow kernels lock on to wrong edges), and the oldest observation of a track is held,
so that what has been published about it stays true.
"""

from __future__ import annotations

import gtsam
import numpy as np
from numpy.typing import NDArray

from d2_ros.config import RefinementConfig
from d2_ros.refinement.problem import EDGE_FLOOR, Problem, kernel_widths

HOLD_SIGMA = 1e-4  # px
ITERATIONS = 20  # robust weights need a few more than plain least squares
RELATIVE_TOLERANCE = 1e-4
ABSOLUTE_TOLERANCE = 1e-3


def refine_graph(problem: Problem, config: RefinementConfig) -> NDArray[np.float64]:
    """Move all observations of the window's tracks into agreement.

    Returns
    -------
    ``(N, 2)`` refined positions; observations without an edge stay where they are.
    """
    pixels, held, edges = problem.pixels, problem.held, problem.edges
    first, second = problem.first, problem.second
    if len(edges) == 0:
        return pixels.copy()
    prior = gtsam.noiseModel.Isotropic.Sigma(2, config.prior_sigma)
    hold = gtsam.noiseModel.Isotropic.Sigma(2, HOLD_SIGMA)
    gaussian = [
        gtsam.noiseModel.Gaussian.Covariance(covariance)
        for covariance in edges.covariance + EDGE_FLOOR**2 * np.eye(2)
    ]
    used = np.unique(np.concatenate([first, second]))
    solution = pixels.copy()
    settings = gtsam.GaussNewtonParams()
    settings.setMaxIterations(ITERATIONS)
    settings.setRelativeErrorTol(RELATIVE_TOLERANCE)
    settings.setAbsoluteErrorTol(ABSOLUTE_TOLERANCE)
    for kernel in kernel_widths(config):
        cauchy = gtsam.noiseModel.mEstimator.Cauchy.Create(kernel / EDGE_FLOOR)
        graph = gtsam.NonlinearFactorGraph()
        values = gtsam.Values()
        for node in used:
            values.insert(int(node), solution[node])
            graph.add(
                gtsam.PriorFactorPoint2(int(node), pixels[node], hold if held[node] else prior)
            )
        # The affine part is lagged: fixed at the last pass's solution, renewed each pass.
        offset = solution[first] - edges.centre
        shift = edges.pixels + np.einsum("eij,ej->ei", edges.affine, offset) - solution[first]
        for row in range(len(edges)):
            noise = gtsam.noiseModel.Robust.Create(cauchy, gaussian[row])
            graph.add(
                gtsam.BetweenFactorPoint2(int(first[row]), int(second[row]), shift[row], noise)
            )
        values = gtsam.GaussNewtonOptimizer(graph, values, settings).optimize()
        for node in used:
            solution[node] = values.atPoint2(int(node))
    return solution
