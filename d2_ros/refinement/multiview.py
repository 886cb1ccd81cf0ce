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
from d2_ros.refinement.problem import EDGE_FLOOR, Problem, kernel_widths, unsettled

ITERATIONS = 20  # robust weights need a few more than plain least squares
RELATIVE_TOLERANCE = 1e-4
ABSOLUTE_TOLERANCE = 1e-3


def refine_graph(problem: Problem, config: RefinementConfig) -> NDArray[np.float64]:
    """Move all observations of the window's tracks into agreement.

    Returns
    -------
    ``(N, 2)`` refined positions; observations without an edge stay where they are.
    """
    pixels, held = problem.pixels, problem.held
    solution = pixels.copy()
    if len(problem.edges) == 0:
        return solution
    prior = gtsam.noiseModel.Isotropic.Sigma(2, config.prior_sigma)
    settings = gtsam.GaussNewtonParams()
    settings.setMaxIterations(ITERATIONS)
    settings.setRelativeErrorTol(RELATIVE_TOLERANCE)
    settings.setAbsoluteErrorTol(ABSOLUTE_TOLERANCE)
    settings.setLinearSolverType("SEQUENTIAL_CHOLESKY")  # many small tracks: no cliques to gain by
    for kernel in kernel_widths(config):
        rows = unsettled(problem, solution, kernel, config.prior_sigma)
        if len(rows) == 0:
            continue
        first, second, edges = problem.first[rows], problem.second[rows], problem.edges.select(rows)
        free = np.unique(np.concatenate([first, second]))
        free = free[~held[free]]
        graph, values = gtsam.NonlinearFactorGraph(), gtsam.Values()
        for node in free.tolist():
            values.insert(node, solution[node])
            graph.add(gtsam.PriorFactorPoint2(node, pixels[node], prior))
        # The affine part is lagged: fixed at the last pass's solution, renewed each pass.
        offset = solution[first] - edges.centre
        shift = edges.pixels + np.einsum("eij,ej->ei", edges.affine, offset) - solution[first]
        cauchy = gtsam.noiseModel.mEstimator.Cauchy.Create(kernel / EDGE_FLOOR)
        covariance = problem.covariance[rows]
        for a, b, by, spread in zip(
            first.tolist(), second.tolist(), shift, covariance, strict=True
        ):
            gaussian = gtsam.noiseModel.Gaussian.Covariance(spread)
            noise = gtsam.noiseModel.Robust.Create(cauchy, gaussian)
            # A held observation is no unknown: its edges say where their other ends are.
            if held[a]:
                graph.add(gtsam.PriorFactorPoint2(b, solution[a] + by, noise))
            elif held[b]:
                graph.add(gtsam.PriorFactorPoint2(a, solution[b] - by, noise))
            else:
                graph.add(gtsam.BetweenFactorPoint2(a, b, by, noise))
        values = gtsam.GaussNewtonOptimizer(graph, values, settings).optimize()
        for node in free.tolist():
            solution[node] = values.atPoint2(node)
    return solution
