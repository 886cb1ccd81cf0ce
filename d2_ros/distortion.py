"""Lens models, unbent: distorted image plane -> direction, where a model can be inverted at all.

A polynomial that was fitted within the image turns back somewhere outside of what it was fitted
to. Beyond that turning point one pixel stands for several directions, and solvers find any of
them, or a place on the opposite side of the axis. Nothing is returned there.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]

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
        solve = self._solve_angle if self.model == "equidistant" else self._solve_plane
        with np.errstate(all="ignore"):  # beyond the turning point anything may come out
            x, y, error, slope = solve(*places.T)
            angle = np.arctan(np.hypot(x, y))
            lost = ~((slope > 0) & (angle < self.limit))
        x[lost] = y[lost] = error[lost] = np.nan
        return np.column_stack([x, y]), error

    def sees(self, directions: _Floats) -> NDArray[np.bool_]:
        """Which ``(N, 2)`` directions (x, y) at depth 1 lie before the turning point."""
        return np.arctan(np.linalg.norm(directions, axis=1)) < self.limit

    def _start(self, distance: _Floats) -> _Floats:
        return np.interp(distance, self.distance, self.angle)

    def _solve_angle(self, u: _Floats, v: _Floats) -> tuple[_Floats, ...]:
        """Newton's method on the angle: x and y at depth 1, error and slope there."""
        k1, k2, k3, k4 = self.coefficients
        distance = np.hypot(u, v)
        angle = self._start(distance)
        for step in range(_STEPS + 1):
            s = angle * angle
            gap = angle * (1 + s * (k1 + s * (k2 + s * (k3 + s * k4)))) - distance
            slope = 1 + s * (3 * k1 + s * (5 * k2 + s * (7 * k3 + s * 9 * k4)))
            if step == _STEPS or _converged(gap):
                break
            angle = angle - gap / slope
        slope[angle >= np.pi / 2] = 0  # whose tangent would lie on the other side of the axis
        straight = np.where(distance > 0, np.tan(angle) / distance, 1.0)
        return u * straight, v * straight, np.abs(gap), slope

    def _solve_plane(self, u: _Floats, v: _Floats) -> tuple[_Floats, ...]:
        """Newton's method on the plane, likewise; the slope is the determinant of the Jacobian."""
        k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4, *tilt = np.pad(
            self.coefficients, (0, 14 - len(self.coefficients))
        )
        if any(tilt):
            u, v = _upright(u, v, *tilt)
        distance = np.hypot(u, v)
        straight = np.where(distance > 0, np.tan(self._start(distance)) / distance, 1.0)
        x, y = u * straight, v * straight
        for step in range(_STEPS + 1):
            xx, xy, yy = x * x, x * y, y * y
            r = xx + yy
            below = 1 + r * (k4 + r * (k5 + r * k6))
            radial = (1 + r * (k1 + r * (k2 + r * k3))) / below
            growth = k1 + r * (2 * k2 + r * 3 * k3) - radial * (k4 + r * (2 * k5 + r * 3 * k6))
            growth = 2 * growth / below
            gap_u = x * radial + 2 * p1 * xy + p2 * (r + 2 * xx) + r * (s1 + r * s2) - u
            gap_v = y * radial + p1 * (r + 2 * yy) + 2 * p2 * xy + r * (s3 + r * s4) - v
            shared = xy * growth + 2 * p1 * x + 2 * p2 * y
            prism_u, prism_v = 2 * s1 + 4 * s2 * r, 2 * s3 + 4 * s4 * r
            ux = radial + xx * growth + 2 * p1 * y + 6 * p2 * x + x * prism_u
            uy, vx = shared + y * prism_u, shared + x * prism_v
            vy = radial + yy * growth + 6 * p1 * y + 2 * p2 * x + y * prism_v
            slope = ux * vy - uy * vx
            error = np.hypot(gap_u, gap_v)
            if step == _STEPS or _converged(error):
                break
            x = x - (vy * gap_u - uy * gap_v) / slope
            y = y - (ux * gap_v - vx * gap_u) / slope
        return x, y, error, slope


def _converged(error: _Floats) -> bool:
    """Whether all have arrived but those that have left the region and never will."""
    return not (np.abs(error) > _CONVERGED).any()


def _upright(u: _Floats, v: _Floats, x: float, y: float) -> tuple[_Floats, _Floats]:
    """Undo the tilt of the sensor, as OpenCV defines it (Scheimpflug), by angles about x and y."""
    turn = cv2.Rodrigues(np.array([0, -y, 0.0]))[0] @ cv2.Rodrigues(np.array([-x, 0.0, 0]))[0]
    flatten = np.diag([turn[2, 2], turn[2, 2], 1.0])
    flatten[:2, 2] = -turn[:2, 2]
    rays = np.linalg.inv(flatten @ turn) @ [u, v, np.ones_like(u)]
    return rays[0] / rays[2], rays[1] / rays[2]


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
