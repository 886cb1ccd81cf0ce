"""When a frame is followed, when the network looks, and when a frame enters the window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.config import Config, WindowConfig
from d2_ros.tracks.keyframe import Keyframe
from d2_ros.tracks.observations import Observations
from d2_ros.tracks.view import View

_MOVED = 1.0  # px: a median displacement below this is a standing camera


_FEWEST_FOLLOWED = 0.8
"""Share of the last frame's tracks that must be found, or else the network looks: losing more at
once means blur, a jump or a change of light, which D2-Net survives and Lucas-Kanade does not."""


def settled(config: Config, live: bool, device: str) -> Config:
    """The parameters, with what ``features.extract: auto`` means.

    Parameters
    ----------
    live
        Whether frames come from a camera, and go on beside the network.
    device
        Where the network runs, ``cpu`` or ``cuda``.
    """
    if config.features.extract != "auto":
        return config
    extract = "keyframes" if live and device == "cpu" else "every_frame"
    return replace(config, features=replace(config.features, extract=extract))


def may_follow(config: Config) -> bool:
    """Whether frames may do without the network, by settled parameters.

    Not where something is wanted that only the network gives: descriptors, also those by which
    the two cameras of a stereo pair are matched, or early maps.
    """
    return (
        config.features.extract == "keyframes"
        and config.refinement.enabled
        and config.output.descriptors == "none"
        and not config.input.stereo
        and config.alignment.mode != "features"
    )


def is_lost(before: Observations, now: Observations) -> bool:
    """Whether too few of the last frame's tracks have been followed."""
    return len(now) < _FEWEST_FOLLOWED * len(before)


def is_keyframe(
    window: Sequence[Keyframe], view: View, obs: Observations, config: WindowConfig
) -> bool:
    """Decide whether a frame enters the window.

    It does when it sees too small a share of the last keyframe's tracks, when it has moved
    far enough from it (parallax, rotation removed), or when the last one is long ago and the
    camera has moved at all. A standing camera keeps its window.
    """
    if not window:
        return True
    last = window[-1]
    rows = last.obs.rows_of(obs.tracks)
    seen = rows >= 0
    known = int((last.obs.tracks > 0).sum())
    if seen.sum() < config.min_tracked_share * known or known == 0:
        return True
    before, after = last.obs.pixels[rows[seen]], obs.pixels[seen]
    if np.median(np.linalg.norm(after - before, axis=1)) < _MOVED:
        return False
    waited = (view.stamp - last.stamp) * 1e-9
    return (
        waited > config.max_interval or parallax(before, after, view.camera) > config.min_parallax
    )


def will_be_keyframe(
    window: Sequence[Keyframe],
    view: View,
    obs: Observations,
    config: WindowConfig,
    ahead: float,
) -> bool:
    """Whether a frame so many seconds `ahead` will enter the window, if the motion goes on.

    What has changed since the last keyframe grows with the time since then.
    """
    since = (view.stamp - window[-1].stamp) * 1e-9 if window else 0.0
    if since <= 0:
        return is_keyframe(window, view, obs, config)
    growth = 1 + ahead / since
    sooner = replace(
        config,
        min_tracked_share=1 - (1 - config.min_tracked_share) / growth,
        min_parallax=config.min_parallax / growth,
        max_interval=config.max_interval - ahead,
    )
    return is_keyframe(window, view, obs, sooner)


def parallax(
    before: NDArray[np.float64], after: NDArray[np.float64], camera: Camera | None
) -> float:
    """Median displacement (px) that is left when the best rotation has been removed.

    Of the keypoints that have bearings in both frames. Where none has, as without a calibration,
    the median shift stands for the rotation.
    """
    if camera is not None:
        rays, turned = camera.bearings(before), camera.bearings(after)
        known = np.isfinite(rays + turned).all(1)
        if known.any():
            return _turned_parallax(rays[known], turned[known]) * camera.focal
    shift = after - before
    return float(np.median(np.linalg.norm(shift - np.median(shift, axis=0), axis=1)))


def _turned_parallax(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """Median angle, rad, between bearings of one frame, turned, and those of another."""
    first, second = (rays / np.linalg.norm(rays, axis=1, keepdims=True) for rays in (before, after))
    left, _, right = np.linalg.svd(second.T @ first)  # Wahba's problem, Kabsch's solution
    sign = np.diag([1.0, 1.0, np.linalg.det(left @ right)])
    turned = first @ (left @ sign @ right).T
    return float(np.median(np.arccos(np.clip((turned * second).sum(1), -1, 1))))
