"""Following tracks from one frame to the next, without the network.

Pyramidal Lucas-Kanade (Bouguet, 2001; OpenCV's) carries the last frame's places over. They are
starting points only: patches are aligned with the window from there, as on every other frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.matching.early import LazyPyramid
from d2_ros.matching.motion import predict
from d2_ros.matching.neighbours import Matches
from d2_ros.matching.pyramid import Pyramid
from d2_ros.tracks.graph import no_edges
from d2_ros.tracks.links import Links, Pairs, link_tracks
from d2_ros.tracks.window import Keyframe

FEWEST_FOLLOWED = 0.8
"""Share of the last frame's tracks that must be found, or else the network looks: losing more at
once means blur, a jump or a change of light, which D2-Net survives and Lucas-Kanade does not."""

_LEVELS = 3  # above the image
_SIDE = 21  # px of Lucas-Kanade's windows
_MAX_BACK = 1.5  # px by which the way back may miss its start
_MARGIN = 4.0  # px from the image border
_FEWEST = 30  # tracks, to be worth following


@dataclass(frozen=True)
class Scene:
    """What a camera gave at one time.

    Attributes
    ----------
    stamp
        Integer nanoseconds.
    camera
        Calibration, or None.
    pyramid
        Grey pyramid for patches, on the device.
    early
        Pyramid of the network's early maps, built once it is needed; None where there is none.
    plane
        ``(H, W)`` float32 grey values from 0 to 255.
    """

    stamp: int
    camera: Camera | None
    pyramid: Pyramid
    early: LazyPyramid | None
    plane: NDArray[np.float32]

    @cached_property
    def rounded(self) -> NDArray[np.uint8]:
        """The grey values as Lucas-Kanade wants them; made once, where frames are followed."""
        return np.rint(self.plane).astype(np.uint8)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image, px."""
        return self.pyramid[0].size


@dataclass(frozen=True)
class Seen:
    """What was seen in a frame, before any of it is measured.

    Attributes
    ----------
    frame, scores
        Its keypoints, with their tracks, and ``(N,)`` float32 their scores.
    links
        With the keyframes of the window.
    pairs
        Per keyframe, matches that are trusted to tell the motion.
    detections
        So many of the first rows are the network's own detections.
    followed
        Whether the network has not seen the frame.
    """

    frame: Keyframe
    scores: NDArray[np.float32]
    links: Links
    pairs: Sequence[Pairs]
    detections: int
    followed: bool


@dataclass(frozen=True)
class Last:
    """The frame before: its tracks, each with a row, and its images."""

    frame: Keyframe
    scene: Scene


def flow(
    before: NDArray[np.uint8],
    now: NDArray[np.uint8],
    places: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Carry ``(N, 2)`` places, px, from one image to the next.

    Returns
    -------
    places
        ``(N, 2)`` px.
    found
        ``(N,)`` bool: the way back ends where it started.
    """
    if len(places) == 0:
        return places, np.zeros(0, bool)
    start = np.ascontiguousarray(places, np.float32)
    there, on_way = _lucas_kanade(before, now, start)
    back, on_way_back = _lucas_kanade(now, before, there)
    found = on_way & on_way_back
    found &= np.linalg.norm(back - start, axis=1) <= _MAX_BACK
    return there.astype(np.float64), found


def _lucas_kanade(
    before: NDArray[np.uint8], now: NDArray[np.uint8], start: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    follow_points: Any = cv2.calcOpticalFlowPyrLK  # its stubs want the places given twice
    there, found, _ = follow_points(
        before, now, start, None, winSize=(_SIDE, _SIDE), maxLevel=_LEVELS
    )
    return there, found.ravel() > 0


def follow(last: Last, scene: Scene, window: Sequence[Keyframe]) -> Seen | None:
    """Look for the last frame's tracks, and for those of the newest keyframe that it has lost.

    Parameters
    ----------
    last
        The frame before.
    scene
        The frame.
    window
        Keyframes, oldest first.

    Returns
    -------
    What was seen; None where too little is left to go on from.
    """
    size = np.array(scene.size)
    places, found = flow(last.scene.rounded, scene.rounded, last.frame.pixels)
    found &= np.all((places > _MARGIN) & (places < size - 1 - _MARGIN), axis=1)
    if found.sum() < _FEWEST or not window:
        return None
    frame = _carried(last.frame, np.flatnonzero(found), places[found], scene)
    frame = _with_lost(frame, window[-1], size)
    none = np.empty(0, np.int64)
    nothing = Matches(none, none, none, np.empty(0, np.float32))
    links = link_tracks(nothing, frame.tracks, frame.descriptors, window)
    count = int(found.sum())  # only those tell the motion: the others are predicted from it
    pairs = []
    for number in range(len(window)):
        here = (links.matches.keyframe == number) & (links.matches.index < count)
        pairs.append((links.matches.index[here], links.matches.keyframe_index[here]))
    return Seen(frame, np.zeros(len(frame.tracks), np.float32), links, pairs, 0, followed=True)


def _carried(
    frame: Keyframe, rows: NDArray[np.int64], places: NDArray[np.float64], scene: Scene
) -> Keyframe:
    """Rows of a frame at their places in another one, as if they had been detected there."""
    return replace(
        frame.select(rows),
        stamp=scene.stamp,
        camera=scene.camera,
        pyramid=scene.pyramid,
        early=scene.early,
        detected=places,
        pixels=places,
        anchors=places,
        drift=np.zeros((len(rows), 2, 2)),
        edges=no_edges(),
        patches=(),
        narrow=None,
    )


def _with_lost(frame: Keyframe, keyframe: Keyframe, size: NDArray[np.int64]) -> Keyframe:
    """The frame and, where the others predict them, the keyframe's tracks that it lacks."""
    rows = keyframe.rows_of(frame.tracks)
    seen = rows >= 0
    missing = np.flatnonzero((keyframe.tracks > 0) & ~np.isin(keyframe.tracks, frame.tracks))
    warps = predict(keyframe.pixels[missing], keyframe.pixels[rows[seen]], frame.pixels[seen])
    if warps is None or not len(missing):
        return frame
    within = np.all((warps.pixels > _MARGIN) & (warps.pixels < size - 1 - _MARGIN), axis=1)
    missing, places = missing[within], warps.pixels[within]
    chosen = torch.from_numpy(missing).to(keyframe.descriptors.device)
    affine = warps.affine[within] @ keyframe.affine[missing]
    return replace(
        frame,
        detected=np.concatenate([frame.detected, places]),
        pixels=np.concatenate([frame.pixels, places]),
        anchors=np.concatenate([frame.anchors, places]),
        covariance=np.concatenate([frame.covariance, keyframe.covariance[missing]]),
        drift=np.concatenate([frame.drift, np.zeros((len(missing), 2, 2))]),
        affine=np.concatenate([frame.affine, affine]),
        tracks=np.concatenate([frame.tracks, keyframe.tracks[missing]]),
        descriptors=torch.cat([frame.descriptors, keyframe.descriptors[chosen]]),
        channels=torch.cat([frame.channels, keyframe.channels[chosen]]),
    )
