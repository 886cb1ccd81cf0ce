"""Geometric verification of the matches of one pair of images (OpenCV USAC)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from d2_ros.camera import Camera

ROUNDS = 2000
"""Samples that the robust estimator draws at most, of each model."""

_MIN_MATCHES = 8
_PLANAR_SHARE = 0.9  # a homography that explains this share of the epipolar inliers wins
_SAMPLE = {"homography": (4, 1), "essential": (5, 10), "fundamental": (7, 3)}
"""Matches that determine a model, and how many models at most they allow."""

_FALSE_ALARMS = 1e-3
"""Expected number of models of chance that is accepted per pair. Not 1, since wrong matches are no
uniform ones: they lie near each other, as places do between frames of a video."""


@dataclass(frozen=True)
class Verdict:
    """What the geometry of a pair says of its matches.

    Attributes
    ----------
    inlier
        ``(M,)`` bool: one rigid motion or one plane explains them; all False where no more agree
        than would by chance (:func:`is_meaningful`).
    residual
        ``(M,)`` px: signed distance of the match in the frame from its epipolar line; NaN where
        a homography was taken, or nothing, or where no line is defined.
    normal
        ``(M, 2)`` unit normals of these lines.
    """

    inlier: NDArray[np.bool_]
    residual: NDArray[np.float64]
    normal: NDArray[np.float64]


def verify(
    pixels: NDArray[np.float64],
    keyframe_pixels: NDArray[np.float64],
    camera: Camera | None,
    keyframe_camera: Camera | None,
    max_error: float,
    seed: int,
    rounds: int = ROUNDS,
) -> Verdict:
    """Tell the matches that one rigid motion or one plane explains.

    An essential matrix and a homography are estimated on bearings; the homography, which
    says more about each match, is taken where it explains nearly as many (a plane, a
    rotation, a standing camera). Without calibration: a fundamental matrix, on pixels. A match
    with a pixel that has no bearing is no inlier, and the estimators do not see it.

    Parameters
    ----------
    pixels, keyframe_pixels
        ``(M, 2)`` matched places, px.
    camera, keyframe_camera
        Calibrations, or None.
    max_error
        Largest error of an inlier, px.
    seed
        Of the robust estimator.
    rounds
        Samples that it draws at most, of each model.
    """
    if len(pixels) < _MIN_MATCHES:
        return _verdict(np.zeros(len(pixels), bool))
    if camera is not None and keyframe_camera is not None:
        focal = (camera.focal + keyframe_camera.focal) / 2
        first = keyframe_camera.bearings(keyframe_pixels)[:, :2] * focal
        second = camera.bearings(pixels)[:, :2] * focal
        known = np.asarray(np.isfinite(first + second).all(axis=1))
        if not known.all():
            some = verify(
                pixels[known], keyframe_pixels[known], camera, keyframe_camera,
                max_error, seed, rounds,
            )  # fmt: skip
            return _spread(some, known)
        calibrated = np.diag([focal, focal, 1.0])
    else:
        first, second, calibrated = keyframe_pixels, pixels, None
    params = _usac(max_error, seed, rounds)
    planar, _ = _estimate(cv2.findHomography, first, second, params)
    planar = _unless_chance(planar, second, max_error, "homography")
    if planar.mean() >= _PLANAR_SHARE:
        return _verdict(planar)  # nothing is left for an epipolar geometry to explain
    if calibrated is None:
        epipolar, fundamental = _estimate(cv2.findFundamentalMat, first, second, params)
        epipolar = _unless_chance(epipolar, second, max_error, "fundamental")
    else:
        epipolar, essential = _estimate(
            cv2.findEssentialMat, first, second, calibrated, calibrated, None, None, params
        )
        epipolar = _unless_chance(epipolar, second, max_error, "essential")
        inverse = np.linalg.inv(calibrated)
        fundamental = inverse @ essential @ inverse
    if planar.sum() >= _PLANAR_SHARE * epipolar.sum():
        return _verdict(planar)
    return _verdict(epipolar, *_line_distances(first, second, fundamental))


def is_meaningful(inliers: int, matches: int, sample: int, models: int, chance: float) -> bool:
    """Whether so many inliers say more than chance would.

    The a-contrario model of Moisan and Stival ("A probabilistic criterion to detect rigid point
    matches between two images and estimate the fundamental matrix", IJCV 2004): matches fall
    anywhere, independently, each of them within reach of a given model with probability `chance`.
    The number of models of k inliers that are to be expected among n such matches is at most
    ``m (n - s) C(n, k) C(k, s) chance^(k - s)``, s being the size of a minimal sample and m the
    models that one allows; a model is meaningful where that number of false alarms is at most
    0.001.
    """
    if inliers <= sample:
        return False
    false_alarms = np.log(models * (matches - sample)) + (inliers - sample) * np.log(chance)
    false_alarms += _log_choose(matches, inliers) + _log_choose(inliers, sample)
    return bool(false_alarms <= np.log(_FALSE_ALARMS))


def _log_choose(total: int, chosen: int) -> float:
    return float(gammaln(total + 1) - gammaln(chosen + 1) - gammaln(total - chosen + 1))


def _unless_chance(
    inlier: NDArray[np.bool_], places: NDArray[np.float64], max_error: float, model: str
) -> NDArray[np.bool_]:
    """`inlier`, or none of them where so many agree with some model by chance.

    Chance is the share of the rectangle that holds the second `places` which lies within reach of
    a point (homography) or of a line (others: the diagonal is the longest one, and Sampson's
    distance, which OpenCV thresholds, is the distance from the line over the root of two).
    """
    width, height = np.ptp(places, axis=0)
    if model == "homography":
        reach = np.pi * max_error**2
    else:
        reach = 2 * np.sqrt(2) * max_error * np.hypot(width, height)
    area = width * height
    chance = float(min(reach / area, 1.0)) if area > 0 else 1.0
    count = int(inlier.sum())
    if count >= _MIN_MATCHES and is_meaningful(count, len(inlier), *_SAMPLE[model], chance):
        return inlier
    return np.zeros(len(inlier), bool)


def _verdict(
    inlier: NDArray[np.bool_],
    residual: NDArray[np.float64] | None = None,
    normal: NDArray[np.float64] | None = None,
) -> Verdict:
    if not inlier.any() or residual is None or normal is None:
        residual, normal = np.full(len(inlier), np.nan), np.zeros((len(inlier), 2))
    return Verdict(inlier, residual, normal)


def _spread(some: Verdict, known: NDArray[np.bool_]) -> Verdict:
    """The verdict on all matches, of which only the `known` ones could be judged."""
    whole = _verdict(np.zeros(len(known), bool))
    whole.inlier[known], whole.residual[known] = some.inlier, some.residual
    whole.normal[known] = some.normal
    return whole


def _line_distances(
    first: NDArray[np.float64], second: NDArray[np.float64], fundamental: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Signed distances of `second` from the epipolar lines of `first`, and the lines' normals."""
    lines = np.column_stack([first, np.ones(len(first))]) @ fundamental.T
    length = np.linalg.norm(lines[:, :2], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        normal = lines[:, :2] / length[:, None]
        residual = (normal * second).sum(1) + lines[:, 2] / length
    return residual, normal


def _usac(threshold: float, seed: int, rounds: int) -> cv2.UsacParams:
    params = cv2.UsacParams()
    params.threshold = threshold
    params.confidence = 0.999
    params.maxIterations = rounds
    params.randomGeneratorState = seed
    params.sampler = cv2.SAMPLING_UNIFORM
    params.score = cv2.SCORE_METHOD_MAGSAC
    params.loMethod = cv2.LOCAL_OPTIM_SIGMA
    params.loIterations = 10
    params.loSampleSize = 14
    params.final_polisher = cv2.MAGSAC
    params.final_polisher_iterations = 5
    return params


def _estimate(
    estimate: Any, first: NDArray[np.float64], second: NDArray[np.float64], *args: Any
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Inliers and the model; none and NaN where there is no model."""
    try:
        model, mask = estimate(first, second, *args)
    except cv2.error:  # degenerate points (all alike or collinear) make some solvers throw
        model, mask = None, None
    if model is None or mask is None:
        return np.zeros(len(first), bool), np.full((3, 3), np.nan)
    return mask.ravel().astype(bool), np.asarray(model[:3], np.float64)
