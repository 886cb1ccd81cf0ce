"""Geometric verification of the matches of one pair of images (OpenCV USAC)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera

_MIN_MATCHES = 8
_PLANAR_SHARE = 0.9  # a homography that explains this share of the epipolar inliers wins


def verify(
    pixels: NDArray[np.float64],
    keyframe_pixels: NDArray[np.float64],
    camera: Camera | None,
    keyframe_camera: Camera | None,
    max_error: float,
    seed: int,
) -> NDArray[np.bool_]:
    """Tell the matches that one rigid motion or one plane explains.

    An essential matrix and a homography are estimated on bearings; the homography, which
    says more about each match, is taken where it explains nearly as many (a plane, a
    rotation, a standing camera). Without calibration: a fundamental matrix, on pixels.

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

    Returns
    -------
    ``(M,)`` bool; all False where too few matches agree.
    """
    none = np.zeros(len(pixels), bool)
    if len(pixels) < _MIN_MATCHES:
        return none
    if camera is not None and keyframe_camera is not None:
        focal = (camera.focal + keyframe_camera.focal) / 2
        first = keyframe_camera.bearings(keyframe_pixels)[:, :2] * focal
        second = camera.bearings(pixels)[:, :2] * focal
        calibrated = np.diag([focal, focal, 1.0])
    else:
        first, second, calibrated = keyframe_pixels, pixels, None
    params = _usac(max_error, seed)
    planar = _mask(cv2.findHomography, none, first, second, params)
    if planar.mean() >= _PLANAR_SHARE:
        return planar  # nothing is left for an epipolar geometry to explain
    if calibrated is None:
        epipolar = _mask(cv2.findFundamentalMat, none, first, second, params)
    else:
        epipolar = _mask(
            cv2.findEssentialMat, none, first, second, calibrated, calibrated, None, None, params
        )
    best = planar if planar.sum() >= _PLANAR_SHARE * epipolar.sum() else epipolar
    return best if best.sum() >= _MIN_MATCHES else none


def _usac(threshold: float, seed: int) -> cv2.UsacParams:
    params = cv2.UsacParams()
    params.threshold = threshold
    params.confidence = 0.999
    params.maxIterations = 2000
    params.randomGeneratorState = seed
    params.sampler = cv2.SAMPLING_UNIFORM
    params.score = cv2.SCORE_METHOD_MAGSAC
    params.loMethod = cv2.LOCAL_OPTIM_SIGMA
    params.loIterations = 10
    params.loSampleSize = 14
    params.final_polisher = cv2.MAGSAC
    params.final_polisher_iterations = 5
    return params


def _mask(estimate: object, none: NDArray[np.bool_], *args: object) -> NDArray[np.bool_]:
    try:
        _, mask = estimate(*args)  # type: ignore[operator]
    except cv2.error:  # degenerate points (all alike or collinear) make some solvers throw
        return none
    return none if mask is None else mask.ravel().astype(bool)
