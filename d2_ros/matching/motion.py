"""Local affine motion between two images, from the verified matches around each place."""

from __future__ import annotations

import numpy as np
from numba import float64, types
from numpy.typing import NDArray

from d2_ros.machine_code import machine_code
from d2_ros.matching.warps import Warps

_NEIGHBOURS = 12
_MATCH_SIGMA = 2.0  # px, how well D2-Net places a keypoint
_AFFINE_SIGMA = 0.15  # how far the local affine part strays from the pair's
_MIN_MATCHES = 6
_STEPS = 3  # of reweighting

_Doubles = NDArray[np.float64]


def predict(places: _Doubles, pixels_from: _Doubles, pixels_to: _Doubles) -> Warps | None:
    """Predict where `places` of one image lie in another, and the local affine motion.

    A robust affine least-squares fit to the nearest matches of every place, drawn weakly to
    the affine motion of the whole pair.

    Parameters
    ----------
    places
        ``(Q, 2)`` px.
    pixels_from, pixels_to
        ``(M, 2)`` verified matches, px.

    Returns
    -------
    Warps of the Q places, or None where there are too few matches to say.
    """
    if len(pixels_from) < _MIN_MATCHES:
        return None
    columns = (np.ascontiguousarray(column, np.float64) for column in (pixels_from, pixels_to))
    solutions = np.empty((len(places), 3, 2))
    _predict(np.ascontiguousarray(places, np.float64), *columns, solutions)
    return Warps(solutions[:, 0], solutions[:, 1:].transpose(0, 2, 1))


@machine_code()
def _fit(
    offset: _Doubles, target: _Doubles, count: int, prior: _Doubles, information: _Doubles,
    solution: _Doubles,
) -> None:  # fmt: skip
    """Cauchy-weighted fit ``target = [1, offset] @ solution`` near `prior`, both ``(3, 2)``."""
    for row in range(3):
        solution[row, 0], solution[row, 1] = prior[row, 0], prior[row, 1]
    for _ in range(_STEPS):
        # Normal equations: sums of w, w x, w y, w x x, w x y, w y y, and the right sides.
        n, nx, ny, xx, xy, yy = information[0], 0.0, 0.0, information[1], 0.0, information[2]
        u0, v0 = information[0] * prior[0, 0], information[0] * prior[0, 1]
        ux, vx = information[1] * prior[1, 0], information[1] * prior[1, 1]
        uy, vy = information[2] * prior[2, 0], information[2] * prior[2, 1]
        for m in range(count):
            x, y, u, v = offset[m, 0], offset[m, 1], target[m, 0], target[m, 1]
            du = solution[0, 0] + x * solution[1, 0] + y * solution[2, 0] - u
            dv = solution[0, 1] + x * solution[1, 1] + y * solution[2, 1] - v
            weight = 1 / (_MATCH_SIGMA**2 + du * du + dv * dv)
            n, nx, ny = n + weight, nx + weight * x, ny + weight * y
            xx, xy, yy = xx + weight * x * x, xy + weight * x * y, yy + weight * y * y
            u0, ux, uy = u0 + weight * u, ux + weight * x * u, uy + weight * y * u
            v0, vx, vy = v0 + weight * v, vx + weight * x * v, vy + weight * y * v
        # Without the first unknown (Schur complement), then Cramer's rule.
        a, b, d = xx - nx * nx / n, xy - nx * ny / n, yy - ny * ny / n
        size = a * d - b * b
        ux, uy, vx, vy = ux - nx * u0 / n, uy - ny * u0 / n, vx - nx * v0 / n, vy - ny * v0 / n
        solution[1, 0], solution[1, 1] = (d * ux - b * uy) / size, (d * vx - b * vy) / size
        solution[2, 0], solution[2, 1] = (a * uy - b * ux) / size, (a * vy - b * vx) / size
        solution[0, 0] = (u0 - nx * solution[1, 0] - ny * solution[2, 0]) / n
        solution[0, 1] = (v0 - nx * solution[1, 1] - ny * solution[2, 1]) / n


@machine_code()
def _nearest(source: _Doubles, x: float, y: float, rows: NDArray[np.int64], far: _Doubles) -> int:
    """Rows of the nearest places, nearest first, and their squared distances; their number."""
    count = 0
    for m in range(len(source)):
        dx, dy = source[m, 0] - x, source[m, 1] - y
        distance = dx * dx + dy * dy
        if count == len(rows) and distance >= far[count - 1]:
            continue
        place = min(count, len(rows) - 1)
        while place > 0 and far[place - 1] > distance:
            rows[place], far[place] = rows[place - 1], far[place - 1]
            place -= 1
        rows[place], far[place] = m, distance
        count = min(count + 1, len(rows))
    return count


@machine_code(types.void(*[float64[:, ::1]] * 3, float64[:, :, ::1]))
def _predict(places: _Doubles, source: _Doubles, target: _Doubles, solutions: _Doubles) -> None:
    count = len(source)
    centre, mean = np.zeros(2), np.zeros(2)
    for m in range(count):
        for axis in range(2):
            centre[axis] += source[m, axis] / count
            mean[axis] += target[m, axis] / count
    prior, whole, information = np.zeros((3, 2)), np.empty((3, 2)), np.empty(3)
    offset = np.empty((count, 2))
    for m in range(count):
        offset[m, 0], offset[m, 1] = source[m, 0] - centre[0], source[m, 1] - centre[1]
    prior[0, 0], prior[0, 1], prior[1, 0], prior[2, 1] = mean[0], mean[1], 1, 1
    information[0], information[1], information[2] = 0, 1e-6, 1e-6
    _fit(offset, target, count, prior, information, whole)
    information[0] = 1e-2 / _AFFINE_SIGMA**2
    information[1] = information[2] = 1 / _AFFINE_SIGMA**2
    rows, far = np.empty(_NEIGHBOURS, np.int64), np.empty(_NEIGHBOURS)
    near = np.empty((_NEIGHBOURS, 2))
    for q in range(len(places)):
        x, y = places[q, 0], places[q, 1]
        found = _nearest(source, x, y, rows, far)
        for m in range(found):
            offset[m, 0], offset[m, 1] = source[rows[m], 0] - x, source[rows[m], 1] - y
            near[m, 0], near[m, 1] = target[rows[m], 0], target[rows[m], 1]
        for axis in range(2):
            prior[1, axis], prior[2, axis] = whole[1, axis], whole[2, axis]
            prior[0, axis] = (
                whole[0, axis] + (x - centre[0]) * whole[1, axis] + (y - centre[1]) * whole[2, axis]
            )
        _fit(offset, near, found, prior, information, solutions[q])
