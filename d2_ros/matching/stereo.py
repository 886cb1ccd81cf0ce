"""The left camera's tracks found in the right image, taken at the same time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.config import Config
from d2_ros.features.device import to_device
from d2_ros.matching.motion import predict
from d2_ros.matching.neighbours import match
from d2_ros.matching.pair import align_pair
from d2_ros.matching.pyramid import build_pyramid, to_gray
from d2_ros.matching.verification import verify
from d2_ros.records import STEREO, FrameResult, columns

Pixels = NDArray[np.float64]

_NOTHING: NDArray[np.void] = np.empty(0, STEREO)


@dataclass(frozen=True)
class StereoView:
    """What one camera of the pair saw.

    Attributes
    ----------
    image
        ``(H, W)`` gray or ``(H, W, 3)`` BGR.
    camera
        Calibration of this image size.
    result
        What the front-end says of it.
    """

    image: NDArray[Any]
    camera: Camera
    result: FrameResult

    @property
    def pixels(self) -> Pixels:
        """``(N, 2)`` published positions, px."""
        return columns(self.result.features, "u", "v")


@torch.inference_mode()
def find_right(
    left: StereoView, right: StereoView, config: Config, device: torch.device
) -> NDArray[np.void]:
    """Find the left view's tracked features in the right view.

    As between frame and keyframe: mutual nearest neighbours, geometric verification, alignment of
    the left patches by gray values in the right image, from the match and from where the matches
    around it predict it, the same gates, and verification of what was found.

    Parameters
    ----------
    left, right
        Taken at one time.
    config
        Uses ``matching`` and ``alignment``.
    device
        Where patches are aligned.

    Returns
    -------
    ``(M,)`` of :data:`~d2_ros.records.STEREO`, the features of the left view that were found.
    """
    descriptors = [to_device(view.result.descriptors, device) for view in (left, right)]
    matches = match(descriptors[0], descriptors[1:])
    index, other, settings = matches.index, matches.keyframe_index, config.matching

    def agree(rows: NDArray[np.int64], pixels: Pixels, max_error: float) -> NDArray[np.bool_]:
        before = left.pixels[rows]
        return verify(pixels, before, right.camera, left.camera, max_error, settings.seed).inlier

    inlier = agree(index, right.pixels[other], settings.max_detected_error)
    index, other = index[inlier], other[inlier]
    tracked = left.result.features["track_id"][index] > 0
    if not tracked.any():
        return _NOTHING.copy()
    around = predict(left.pixels[index[tracked]], left.pixels[index], right.pixels[other])
    if around is None:
        return _NOTHING.copy()
    index, detected = index[tracked], right.pixels[other[tracked]]
    pyramids = [
        build_pyramid(to_gray(view.image), config.alignment.levels, device)
        for view in (left, right)
    ]
    good, aligned = align_pair(pyramids, left.pixels[index], detected, around, config)
    index, pixels = index[good], aligned.warps.pixels
    kept = agree(index, pixels, settings.max_error)
    pixels, covariance = pixels[kept], aligned.covariance[kept]
    found: NDArray[np.void] = np.zeros(len(pixels), STEREO)
    found["index"] = index[kept]
    found["u"], found["v"] = pixels.T
    found["sigma_uu"], found["sigma_uv"] = covariance[:, 0].T
    found["sigma_vv"] = covariance[:, 1, 1]
    # Whatever has passed has a bearing: without one it would not have been verified.
    found["x"], found["y"], found["z"] = right.camera.bearings(pixels).T
    return found[np.argsort(found["index"], kind="stable")]
