"""Geometric verification of a view's matches with every keyframe of the window."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.config import Config
from d2_ros.matching.neighbours import Matches
from d2_ros.matching.verification import Verdict, verify
from d2_ros.tracks.keyframe import Keyframe
from d2_ros.tracks.view import View


def verify_window(
    matches: Matches,
    pixels: NDArray[np.float64],
    view: View,
    window: Sequence[Keyframe],
    max_error: float,
    config: Config,
    rounds: int,
) -> Verdict:
    """What the geometry of each pair of a view and a keyframe says of its matches.

    Parameters
    ----------
    matches
        Of the view with the keyframes of `window`.
    pixels
        ``(N, 2)`` places of the view's keypoints, px.
    max_error
        Largest error of an inlier, px.
    rounds
        Samples that the robust estimator draws at most.
    """
    count = len(matches)
    whole = Verdict(np.zeros(count, bool), np.full(count, np.nan), np.zeros((count, 2)))
    parts = [np.flatnonzero(matches.keyframe == number) for number in range(len(window))]

    def judge(keyframe: Keyframe, rows: NDArray[np.int64]) -> Verdict:
        return verify(
            pixels[matches.index[rows]],
            keyframe.obs.pixels[matches.keyframe_index[rows]],
            view.camera,
            keyframe.view.camera,
            max_error,
            config.matching.seed,
            rounds,
        )

    # OpenCV's estimators use one core each and leave Python alone meanwhile.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        verdicts = pool.map(judge, window, parts)
    for rows, verdict in zip(parts, verdicts, strict=True):
        whole.inlier[rows], whole.residual[rows] = verdict.inlier, verdict.residual
        whole.normal[rows] = verdict.normal
    return whole
