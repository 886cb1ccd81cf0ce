"""Lens models, unbent: distorted image plane -> direction, where a model can be inverted at all.

A polynomial that was fitted within the image turns back somewhere outside of what it was fitted
to. Beyond that turning point one pixel stands for several directions, and solvers find any of
them, or a place on the opposite side of the axis. Nothing is returned there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numba import float64, types
from numpy.typing import NDArray

from d2_ros.machine_code import machine_code

_Floats = NDArray[np.float64]
_TABLE, _COLUMN = float64[:, ::1], float64[::1]

_KNOTS = 1024
_ZOOMS = 2  # closer looks at where it turns, each within two knots of the last
_STEPS = 8  # of Newton; two or three do, except close to the turning point
_CONVERGED = 1e-11  # of unit focal length


@dataclass(frozen=True)
class Lens:
    """The part of a lens model around the optical axis that can be inverted.

    Attributes
    ----------
    model, coefficients
        Of the camera; plumb_bob is rational_polynomial with fewer coefficients.
    angle, distance
        ``(K,)`` increasing: angles from the axis, rad, and the distances from it on an image plane
        of unit focal length, without the tangential part.
    limit
        rad: no direction farther from the axis has a place; pi / 2 where the model never turns.
    """

    model: str
    coefficients: _Floats
    angle: _Floats
    distance: _Floats
    limit: float

    @classmethod
    def of(cls, model: str, coefficients: _Floats) -> Lens:
        """Find where the model turns back."""
        angle: _Floats = np.linspace(0, np.pi / 2, _KNOTS, endpoint=False, dtype=np.float64)
        angle, distance, limit = _rising(model, coefficients, angle)
        for _ in range(_ZOOMS if limit < np.pi / 2 else 0):
            begin = max(len(angle) - 2, 0)
            end = np.linspace(angle[begin], limit, _KNOTS)
            angle, distance, limit = _rising(
                model, coefficients, np.concatenate([angle[:begin], end])
            )
        return cls(model, coefficients, angle, distance, limit)

    def unbend(self, places: _Floats) -> tuple[_Floats, _Floats]:
        """Find the directions that are seen at places.

        Parameters
        ----------
        places
            ``(N, 2)`` on the distorted image plane of unit focal length.

        Returns
        -------
        directions
            ``(N, 2)`` (x, y) at depth 1; NaN where there is none, or none less than 90 degrees off
            the axis, which (x, y, 1) cannot say.
        error
            ``(N,)`` by how much the model misses the place at that direction, unit focal length.
        """
        if self.model != "equidistant" and not self.coefficients.any():
            return places, np.zeros(len(places))
        equidistant = self.model == "equidistant"
        coefficients = np.zeros(4 if equidistant else 14)
        coefficients[: len(self.coefficients)] = self.coefficients
        places = np.ascontiguousarray(places)
        if not equidistant and coefficients[12:].any():
            places = _upright(places, *coefficients[12:].tolist())
        found, error = np.empty_like(places), np.empty(len(places))
        slope, distance = np.empty_like(error), np.hypot(places[:, 0], places[:, 1])
        start = np.interp(distance, self.distance, self.angle)
        solve = _solve_angles if equidistant else _solve_places
        solve(places, distance, start, coefficients, found, error, slope)
        angle = np.arctan(np.hypot(found[:, 0], found[:, 1]))
        lost = ~((slope > 0) & (angle < self.limit))
        found[lost], error[lost] = np.nan, np.nan
        return found, error

    def sees(self, directions: _Floats) -> NDArray[np.bool_]:
        """Which ``(N, 2)`` directions (x, y) at depth 1 lie before the turning point."""
        return np.arctan(np.linalg.norm(directions, axis=1)) < self.limit


@machine_code(types.void(_TABLE, _COLUMN, _COLUMN, _COLUMN, _TABLE, _COLUMN, _COLUMN))
def _solve_angles(
    places: _Floats, distance: _Floats, start: _Floats, coefficients: _Floats,
    found: _Floats, error: _Floats, slope: _Floats,
) -> None:  # fmt: skip
    """Newton's method on the angle: x and y at depth 1, error and slope there."""
    k1, k2, k3, k4 = coefficients[0], coefficients[1], coefficients[2], coefficients[3]
    for n in range(len(places)):
        angle, gap, growth = start[n], np.inf, 0.0
        for step in range(_STEPS + 1):
            s = angle * angle
            gap = angle * (1 + s * (k1 + s * (k2 + s * (k3 + s * k4)))) - distance[n]
            growth = 1 + s * (3 * k1 + s * (5 * k2 + s * (7 * k3 + s * 9 * k4)))
            if step == _STEPS or not abs(gap) > _CONVERGED:
                break
            angle -= gap / growth
        straight = math.tan(angle) / distance[n] if distance[n] > 0 else 1.0
        found[n, 0], found[n, 1] = places[n, 0] * straight, places[n, 1] * straight
        # Beyond 90 degrees, and where Newton was thrown to the opposite side of the axis, the
        # tangent is that of another direction.
        error[n], slope[n] = abs(gap), growth if 0 <= angle < np.pi / 2 else 0.0


@machine_code(types.void(_TABLE, _COLUMN, _COLUMN, _COLUMN, _TABLE, _COLUMN, _COLUMN))
def _solve_places(
    places: _Floats, distance: _Floats, start: _Floats, coefficients: _Floats,
    found: _Floats, error: _Floats, slope: _Floats,
) -> None:  # fmt: skip
    """Newton's method on the plane, likewise; the slope is the determinant of the Jacobian."""
    k1, k2, p1, p2 = coefficients[0], coefficients[1], coefficients[2], coefficients[3]
    k3, k4, k5, k6 = coefficients[4], coefficients[5], coefficients[6], coefficients[7]
    s1, s2, s3, s4 = coefficients[8], coefficients[9], coefficients[10], coefficients[11]
    for n in range(len(places)):
        straight = math.tan(start[n]) / distance[n] if distance[n] > 0 else 1.0
        x, y = places[n, 0] * straight, places[n, 1] * straight
        miss, size = np.inf, 0.0
        for step in range(_STEPS + 1):
            r = x * x + y * y
            below = 1 + r * (k4 + r * (k5 + r * k6))
            radial = (1 + r * (k1 + r * (k2 + r * k3))) / below
            growth = k1 + r * (2 * k2 + r * 3 * k3) - radial * (k4 + r * (2 * k5 + r * 3 * k6))
            growth *= 2 / below
            tangential_u = 2 * p1 * x * y + p2 * (r + 2 * x * x)
            tangential_v = p1 * (r + 2 * y * y) + 2 * p2 * x * y
            u = x * radial + tangential_u + r * (s1 + r * s2) - places[n, 0]
            v = y * radial + tangential_v + r * (s3 + r * s4) - places[n, 1]
            shared = x * y * growth + 2 * p1 * x + 2 * p2 * y
            prism_u, prism_v = 2 * s1 + 4 * s2 * r, 2 * s3 + 4 * s4 * r
            ux = radial + x * x * growth + 2 * p1 * y + 6 * p2 * x + x * prism_u
            uy, vx = shared + y * prism_u, shared + x * prism_v
            vy = radial + y * y * growth + 6 * p1 * y + 2 * p2 * x + y * prism_v
            miss, size = math.hypot(u, v), ux * vy - uy * vx
            if step == _STEPS or not miss > _CONVERGED:
                break
            x -= (vy * u - uy * v) / size
            y -= (ux * v - vx * u) / size
        found[n, 0], found[n, 1], error[n], slope[n] = x, y, miss, size


def _upright(places: _Floats, x: float, y: float) -> _Floats:
    """Undo the tilt of the sensor, as OpenCV defines it (Scheimpflug), by angles about x and y."""
    turn = cv2.Rodrigues(np.array([0, -y, 0.0]))[0] @ cv2.Rodrigues(np.array([-x, 0.0, 0]))[0]
    flatten = np.diag([turn[2, 2], turn[2, 2], 1.0])
    flatten[:2, 2] = -turn[:2, 2]
    rays = np.column_stack([places, np.ones(len(places))]) @ np.linalg.inv(flatten @ turn).T
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(rays[:, :2] / rays[:, 2:])


def _rising(model: str, coefficients: _Floats, angle: _Floats) -> tuple[_Floats, _Floats, float]:
    """Angles and distances up to where these stop growing, and the angle after the last."""
    with np.errstate(all="ignore"):  # what overflows has turned
        distance = _radial(model, coefficients, angle)
        falls = ~(np.diff(distance) > 0)
    if not falls.any():
        return angle, distance, np.pi / 2
    last = int(np.argmax(falls))
    return angle[: last + 1], distance[: last + 1], float(angle[last + 1])


def _radial(model: str, coefficients: _Floats, angle: _Floats) -> _Floats:
    """Distance from the axis on the image plane of unit focal length, tangential part left out."""
    if model == "equidistant":
        k = coefficients
        square = angle**2
        factor = 1 + square * (k[0] + square * (k[1] + square * (k[2] + square * k[3])))
        return np.asarray(angle * factor)
    k1, k2, _, _, k3, k4, k5, k6 = np.concatenate([coefficients, np.zeros(8)])[:8]
    straight = np.tan(angle)
    square = straight**2
    factor = 1 + square * (k1 + square * (k2 + square * k3))
    return np.asarray(straight * factor / (1 + square * (k4 + square * (k5 + square * k6))))
