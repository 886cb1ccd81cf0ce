"""Matches of two images in the match sets that every method is evaluated on alike."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from d2_ros.config import MatchingConfig
from d2_ros.evaluation.peers import Points, gray8, mutual_nearest
from d2_ros.evaluation.raw import Cameras, Images, RawMatches, raw_matches
from d2_ros.evaluation.stages import PEERS, as_published, stage_points
from d2_ros.evaluation.tracking import Figures
from d2_ros.features.batch import BatchResult
from d2_ros.frontend import FrontEnd
from d2_ros.matching.verification import verify

STAMPS = (1_000_000_000, 2_000_000_000)
"""Two images count as frames that are one second apart, ns."""


@dataclass(frozen=True)
class MatchSets:
    """Matches of two images by one method; each match set ``(M, 2)`` and ``(M, 2)`` raw pixels.

    Attributes
    ----------
    raw
        Mutual nearest neighbours, before any verification, window or track.
    verified
        Those of `raw` that the verification keeps.
    published
        What the method hands on, of pairs that descriptors have matched mutually: the front-end's
        inliers and tracks; of methods without more stages, `verified`.
    guided
        What it hands on beside: places that no mutual match of descriptors has joined.
    """

    raw: Points
    verified: Points
    published: Points
    guided: Points


MATCH_SETS = tuple(field.name for field in fields(MatchSets))


def match_images(
    frontend: FrontEnd, images: Images, cameras: Cameras = (None, None)
) -> dict[str, MatchSets]:
    """Matches of two images by every stage and every peer, on all match sets.

    Every method's raw matches are verified by the same verifier with the same threshold and seed.
    The front-end sees the images as a window of two frames.
    """
    config, extractor = frontend.config, frontend.extractor
    extractor.config = config
    responses = [extractor.respond([image])[0] for image in images]  # the network runs once
    features = (extractor.features(responses[0]), extractor.features(responses[1]))
    raw = raw_matches(extractor, images, features, cameras, config)
    frontend.reset()
    first, second = (
        frontend.process(image, stamp, camera, BatchResult(extractor, response, {}))
        for image, stamp, camera, response in zip(images, STAMPS, cameras, responses, strict=True)
    )
    shapes, edge = (images[0].shape, images[1].shape), config.features.max_edge
    published = stage_points(first.features, second, STAMPS[0], shapes, edge)
    guided = ~_among(published["d2_detected"], raw)
    places = {
        "d2": (raw.first, raw.aligned),
        "d2_detected": (raw.first, raw.second),
        "d2_published": (
            as_published(raw.first, shapes[0], edge),
            as_published(raw.second, shapes[1], edge),
        ),
    }
    found = {
        name: MatchSets(
            raw=points,
            verified=verified(points, cameras, config.matching),
            published=select(published[name], ~guided),
            guided=select(published[name], guided),
        )
        for name, points in places.items()
    }
    for name, detect in PEERS.items():
        ours, theirs = (detect(gray8(image), config.features.max_keypoints) for image in images)
        rows, rows_there = mutual_nearest(ours, theirs)
        points = ours.pixels[rows], theirs.pixels[rows_there]
        kept = verified(points, cameras, config.matching)
        found[name] = MatchSets(points, kept, kept, select(points, np.zeros(len(rows), bool)))
    return found


def verified(points: Points, cameras: Cameras, matching: MatchingConfig) -> Points:
    """The matches that the front-end's own verification keeps."""
    first, second = points
    verdict = verify(second, first, cameras[1], cameras[0], matching.max_error, matching.seed)
    return select(points, verdict.inlier)


def select(points: Points, rows: NDArray[np.bool_]) -> Points:
    """The matches of `rows`."""
    return points[0][rows], points[1][rows]


def prefixed(match_set: str, figures: Figures) -> Figures:
    """Figures under names that begin with their match set."""
    return {f"{match_set}_{name}": value for name, value in figures.items()}


def _among(detected: Points, raw: RawMatches) -> NDArray[np.bool_]:
    """Which published matches are raw ones: two keypoints are told by where they were detected."""
    known = set(map(tuple, np.hstack([raw.first, raw.second]).tolist()))
    return np.array([tuple(row) in known for row in np.hstack(detected).tolist()], bool)
