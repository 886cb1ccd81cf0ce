"""Matches of two images judged by exact truth, at the places that both images show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.config import Config
from d2_ros.evaluation.match_sets import MatchSets, match_images, select, verified
from d2_ros.evaluation.peers import flow, gray8
from d2_ros.evaluation.raw import Cameras, Images
from d2_ros.evaluation.tables import Column, Tables
from d2_ros.frontend import FrontEnd

KLT_POINTS, KLT_QUALITY, KLT_SPACING = 1000, 0.01, 10.0
"""Corners of the first image: most of them, least quality, least distance (px)."""

LIMITS_PX = (1, 3)
"""Matches with errors of at most so much are right."""

Truth = Callable[[NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.bool_]]]
"""``(M, 2)`` places of the first image -> their places in the second, and whether seen there."""


def match_with_klt(
    frontend: FrontEnd, images: Images, cameras: Cameras = (None, None)
) -> dict[str, MatchSets]:
    """Matches of two images by every stage and every peer, KLT among them, on all match sets."""
    klt = klt_matches(images, cameras, frontend.config)
    return {**match_images(frontend, images, cameras), "klt": klt}


def klt_matches(images: Images, cameras: Cameras, config: Config) -> MatchSets:
    """Follow corners of the first image into the second, each from the same place.

    The pyramid alone has to bridge the motion. Raw are all corners that pass the
    forward-backward check.
    """
    before, after = (gray8(image) for image in images)
    corners = cv2.goodFeaturesToTrack(before, KLT_POINTS, KLT_QUALITY, KLT_SPACING)
    if corners is None:
        points = (np.empty((0, 2)), np.empty((0, 2)))
    else:
        first = corners.reshape(-1, 2).astype(np.float64)
        there, found = flow(before, after, first)
        points = (first[found], there[found])
    kept = verified(points, cameras, config.matching)
    return MatchSets(points, kept, kept, select(points, np.zeros(len(points[0]), bool)))


def judge_seen(found: MatchSets, truth: Truth) -> dict[str, NDArray[np.float64]]:
    """Errors of a method's matches in every match set, px.

    A match from a place that the second image does not show has no truth and is left out, by
    every method alike.
    """
    errors = {}
    for match_set, (first, second) in vars(found).items():
        true, seen = truth(first)
        errors[match_set] = np.linalg.norm(true[seen] - second[seen], axis=1)
    return errors


def share_seen(truth: Truth, size: tuple[int, int]) -> float:
    """Share of the first image, (width, height) px, that the second one shows as well."""
    columns, rows = np.arange(0.0, size[0], 4), np.arange(0.0, size[1], 4)
    grid = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    return float(truth(grid)[1].mean())


def seen_tables(groups: Mapping[str, str]) -> Tables:
    """Tables with a column per group of pairs and limit: shares and numbers of right matches.

    Parameters
    ----------
    groups
        Prefix of a group's figures -> heading.
    """

    def columns(figure: str, form: str, limits: Sequence[int] = LIMITS_PX) -> list[Column]:
        return [
            (f"{group}_{figure}_{limit}px", f"{heading} {limit} px", form)
            for group, heading in groups.items()
            for limit in limits
        ]

    return {
        "Share of the raw matches that are right": columns("mma", "{:.3f}"),
        "Number of right raw matches, mean over pairs": columns("correct", "{:.0f}"),
        "Share of the verified matches that are right": columns("verified_mma", "{:.3f}"),
        "Number of right verified matches": columns("verified_correct", "{:.0f}"),
        "Number of right published matches": columns("published_correct", "{:.0f}"),
        "Number of right guided matches, beside those": columns("guided_correct", "{:.0f}"),
    }
