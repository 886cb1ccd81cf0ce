"""What was seen in a view before any of it is measured: the way in, extracted or followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2_ros.matching.neighbours import Matches
from d2_ros.tracks.observations import Observations
from d2_ros.tracks.view import View

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Trusted matches with one keyframe: rows of the view, rows of the keyframe."""


@dataclass(frozen=True)
class Seen:
    """Keypoints of a view at about their places, and which tracks they are taken to be of.

    Attributes
    ----------
    view, obs
        The view, and a row per keypoint.
    matches
        Tentative matches with the keyframes of the window; none where it was followed.
    pairs
        Per keyframe, matches that are trusted to tell the motion.
    detections
        So many of the first rows are the network's own detections.
    followed
        Whether the network has not seen the view.
    located
        Whether keypoints lie within a pixel or two of their places, which no detection does: they
        were followed here.
    """

    view: View
    obs: Observations
    matches: Matches
    pairs: Sequence[Pairs]
    detections: int
    followed: bool
    located: bool
