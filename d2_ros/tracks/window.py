"""The window of keyframes, and when a frame enters it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.config import WindowConfig
from d2_ros.matching.early import LazyPyramid
from d2_ros.matching.patches import Templates
from d2_ros.matching.pyramid import Pyramid
from d2_ros.tracks.graph import Edges

_MOVED = 1.0  # px: a median displacement below this is a standing camera


@dataclass(frozen=True)
class Keyframe:
    """One frame of the window and what is known of its keypoints.

    Attributes
    ----------
    stamp
        Integer nanoseconds; names the keyframe.
    camera
        Calibration, or None.
    pyramid
        Grey pyramid, on the device.
    detected, pixels
        ``(N, 2)`` float64 detected and refined positions, px.
    covariance
        ``(N, 2, 2)`` float64, px^2.
    descriptors
        ``(N, 512)`` on the device.
    channels
        ``(N,)`` int64 winning channels, on the device.
    tracks
        ``(N,)`` int64 track ids, 0 for none; no id twice.
    edges
        Aligned matches of this frame with earlier keyframes.
    drift
        ``(N, 2, 2)`` float64, px^2: covariance of `pixels` relative to the track's first
        observation; zero for that one.
    affine
        ``(N, 2, 2)`` float64: offsets in the track's first patch -> offsets here.
    anchors
        ``(N, 2)`` float64 places at which `patches` were cut: where the keypoints were when the
        frame entered the window.
    patches
        Of every pyramid level, a row per keypoint; none before the frame is a keyframe.
    narrow
        Narrow patches of full resolution, a row per keypoint; None before the frame is a keyframe.
    early
        Pyramid of the network's early maps, built once it is needed; None where the network
        has none.
    """

    stamp: int
    camera: Camera | None
    pyramid: Pyramid
    detected: NDArray[np.float64]
    pixels: NDArray[np.float64]
    covariance: NDArray[np.float64]
    descriptors: torch.Tensor
    channels: torch.Tensor
    tracks: NDArray[np.int64]
    edges: Edges
    drift: NDArray[np.float64]
    affine: NDArray[np.float64]
    anchors: NDArray[np.float64]
    patches: tuple[Templates, ...] = ()
    narrow: Templates | None = None
    early: LazyPyramid | None = None

    def __post_init__(self) -> None:
        used = self.tracks[self.tracks > 0]
        if len(np.unique(used)) != len(used):
            raise ValueError("two keypoints of one keyframe belong to the same track")

    def select(self, rows: NDArray[np.int64]) -> Keyframe:
        """The frame with the keypoints `rows` only; its edges name tracks, so they stay."""
        chosen = torch.from_numpy(rows).to(self.descriptors.device)
        return replace(
            self,
            detected=self.detected[rows],
            pixels=self.pixels[rows],
            covariance=self.covariance[rows],
            descriptors=self.descriptors[chosen],
            channels=self.channels[chosen],
            tracks=self.tracks[rows],
            drift=self.drift[rows],
            affine=self.affine[rows],
            anchors=self.anchors[rows],
            patches=tuple(patches.select(chosen) for patches in self.patches),
            narrow=None if self.narrow is None else self.narrow.select(chosen),
        )

    def rows_of(self, tracks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row of each track's keypoint, -1 where it has none (``(M,)`` -> ``(M,)``)."""
        order = np.argsort(self.tracks, kind="stable")
        place = np.searchsorted(self.tracks, tracks, sorter=order)
        row = order[np.minimum(place, len(order) - 1)] if len(order) else place
        found = (tracks > 0) & (len(order) > 0)
        if len(order):
            found &= self.tracks[row] == tracks
        return np.where(found, row, -1)


def is_keyframe(
    window: Sequence[Keyframe],
    stamp: int,
    pixels: NDArray[np.float64],
    tracks: NDArray[np.int64],
    camera: Camera | None,
    config: WindowConfig,
) -> bool:
    """Decide whether a frame enters the window.

    It does when it sees too small a share of the last keyframe's tracks, when it has moved
    far enough from it (parallax, rotation removed), or when the last one is long ago and the
    camera has moved at all. A standing camera keeps its window.
    """
    if not window:
        return True
    last = window[-1]
    rows = last.rows_of(tracks)
    seen = rows >= 0
    known = int((last.tracks > 0).sum())
    if seen.sum() < config.min_tracked_share * known or known == 0:
        return True
    before, after = last.pixels[rows[seen]], pixels[seen]
    if np.median(np.linalg.norm(after - before, axis=1)) < _MOVED:
        return False
    waited = (stamp - last.stamp) * 1e-9
    return waited > config.max_interval or parallax(before, after, camera) > config.min_parallax


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
