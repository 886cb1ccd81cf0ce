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

_KNOTS = 2048
_STEPS = 20  # Newton's; two or three do, except close to the turning point
_CONVERGED = 1e-12  # of unit focal length

_AXES = slice(3, 5)
"""Columns of OpenCV's derivatives that hold those by the translation along x and y: at depth 1,
those by the direction itself."""


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
        angle, step = np.linspace(0, np.pi / 2, _KNOTS, endpoint=False, retstep=True)
        with np.errstate(all="ignore"):  # what overflows has turned
            distance = _radial(model, coefficients, angle)
            rises = np.diff(distance) > 0
        last = int(np.argmin(np.append(rises, False)))
        # The point lies between two knots; which side a solution is on, its derivative tells.
        limit = np.pi / 2 if last == _KNOTS - 1 else float(angle[last] + step)
        return cls(model, coefficients, angle[: last + 1], distance[: last + 1], limit)

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
        with np.errstate(all="ignore"):  # beyond the turning point anything may come out
            distance = np.linalg.norm(places, axis=1)
            angle = np.interp(distance, self.distance, self.angle)
            if self.model == "equidistant":
                angle, error, slope = self._angle(distance, angle)
            straight = np.tan(angle) / distance
            found = places * np.where(distance > 0, straight, 1.0)[:, None]
            if self.model != "equidistant":
                found, error, slope = self._newton(places, found)
                angle = np.arctan(np.linalg.norm(found, axis=1))
            lost = ~(np.isfinite(found).all(1) & (slope > 0) & (angle < self.limit))
        found[lost], error[lost] = np.nan, np.nan
        return found, error

    def sees(self, directions: _Floats) -> NDArray[np.bool_]:
        """Which ``(N, 2)`` directions (x, y) at depth 1 lie before the turning point."""
        return np.arctan(np.linalg.norm(directions, axis=1)) < self.limit

    def _angle(self, distance: _Floats, angle: _Floats) -> tuple[_Floats, _Floats, _Floats]:
        """Newton's method on the angle of the equidistant model; error and slope with it."""
        odd = np.zeros(10)
        odd[1], odd[3::2] = 1, self.coefficients
        polynomial = np.polynomial.Polynomial(odd)
        derivative = polynomial.deriv()
        for _ in range(_STEPS):
            move = (polynomial(angle) - distance) / derivative(angle)
            angle = angle - move
            if not np.nanmax(np.abs(move)) > _CONVERGED:
                break
        return angle, np.abs(polynomial(angle) - distance), derivative(angle)

    def _newton(self, places: _Floats, found: _Floats) -> tuple[_Floats, _Floats, _Floats]:
        """Newton's method on OpenCV's own projection and derivatives; error and determinant."""
        zero, unit = np.zeros(3), np.eye(3)
        for _ in range(_STEPS + 1):
            rays = np.column_stack([found, np.ones(len(found))])[:, None]
            bent, derivatives = cv2.projectPoints(rays, zero, zero, unit, self.coefficients)
            slopes = derivatives.reshape(len(found), 2, -1)[:, :, _AXES]
            a, b, c, d = slopes.reshape(-1, 4).T
            size = a * d - b * c
            gap = bent[:, 0] - places
            error = np.linalg.norm(gap, axis=1)
            if not np.nanmax(error) > _CONVERGED:
                break
            move = np.column_stack([d * gap[:, 0] - b * gap[:, 1], a * gap[:, 1] - c * gap[:, 0]])
            found = found - move / size[:, None]
        return found, error, size


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
