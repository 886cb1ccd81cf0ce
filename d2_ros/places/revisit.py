"""Two keyframes of one place: their matches, verified and aligned, and their relative pose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from d2_ros.config import Config
from d2_ros.features.extractor import Extractor
from d2_ros.matching.early import as_accepted, early_pyramid
from d2_ros.matching.motion import predict
from d2_ros.matching.neighbours import match
from d2_ros.matching.pair import align_pair
from d2_ros.matching.pose import estimate_pose
from d2_ros.matching.pyramid import Pyramid, build_pyramid
from d2_ros.matching.verification import verify
from d2_ros.places.place import Place
from d2_ros.places.vlad import unit

FEWEST_ALIGNED = 20
"""Aligned matches below which a pair is told at its detected places: the light is too different."""

_PARALLAX = 1.5
"""Median parallax of the matches, over the error that an inlier may have, up to which a camera
counts as having turned only: less would tell a direction that is noise."""

_SAME_LIGHT = 0.8
"""Share of the matches that gray values align in one light: between days of the synthetic room 0.84
and more, from day to night 0.78 and less."""

_CPU = torch.device("cpu")

PyramidOf = Callable[[NDArray[np.uint8]], Pyramid]

Pixels = NDArray[np.float64]


@dataclass(frozen=True)
class Revisit:
    """A place that was seen before.

    Attributes
    ----------
    place, known
        Now, and then.
    index, known_index
        ``(M,)`` int64 rows of their keypoints.
    pixels, known_pixels
        ``(M, 2)`` float64 matched places, raw px.
    covariance
        ``(M, 2, 2)`` of `pixels` relative to `known_pixels`, px^2.
    similarity
        ``(M,)`` float32 cosine.
    aligned
        Whether patches were aligned across the pair; else the places are those of the two frames.
    inliers
        Matches of descriptors that one geometry explains, before alignment: what a decision goes
        by, in any light.
    matches
        How many there were.
    rotation
        ``(3, 3)`` of ``T_place_known``; None without calibrations.
    direction
        ``(3,)`` unit translation of ``T_place_known``; None where there is too little parallax.
    max_error
        What an inlier may be off by, px.
    """

    place: Place
    known: Place
    index: NDArray[np.int64]
    known_index: NDArray[np.int64]
    pixels: Pixels
    known_pixels: Pixels
    covariance: NDArray[np.float64]
    similarity: NDArray[np.float32]
    aligned: bool
    inliers: int
    matches: int
    rotation: NDArray[np.float64] | None
    direction: NDArray[np.float64] | None
    max_error: float

    @property
    def same_light(self) -> bool:
        """Whether gray values align nearly all matches."""
        return self.aligned and len(self.index) >= _SAME_LIGHT * self.inliers


@torch.inference_mode()
def revisit(
    place: Place, known: Place, config: Config, early: PyramidOf | None = None
) -> Revisit | None:
    """Tell whether two keyframes show one place; None where no geometry says so.

    Mutual nearest neighbours, geometric verification, alignment of the kept images' patches and
    verification of what that gave, as between a frame and a keyframe of the window.

    Parameters
    ----------
    config
        Uses ``matching`` and ``alignment``.
    early
        Makes the pyramid of the network's early maps of an image: aligned by these where gray
        values align few matches, as by night.
    """
    descriptors = [torch.from_numpy(item.unit_descriptors()) for item in (place, known)]
    found, settings = match(descriptors[0], descriptors[1:]), config.matching
    pixels = place.pixels[found.index].astype(np.float64)
    before = known.pixels[found.keyframe_index].astype(np.float64)

    def agree(now: Pixels, then: Pixels, max_error: float) -> NDArray[np.bool_]:
        return verify(now, then, place.camera, known.camera, max_error, settings.seed).inlier

    inlier = agree(pixels, before, settings.max_detected_error)
    if not inlier.any():
        return None
    matches, found = len(found), found.select(inlier)
    pixels, before = pixels[inlier], before[inlier]
    # Places are aligned in the images that are kept: a pixel of these is more than a raw one.
    error = settings.max_error / float(place.scale.mean())
    rows, places, covariance = _aligned(place, known, pixels, before, config, _gray_of(config))
    kept = agree(places, before[rows], error)
    if early is not None and kept.sum() < _SAME_LIGHT * len(pixels):
        looser = replace(config, alignment=as_accepted(config.alignment))
        other = _aligned(place, known, pixels, before, looser, early)
        agreed = agree(other[1], before[other[0]], error)
        if agreed.sum() > kept.sum():
            (rows, places, covariance), kept = other, agreed
    aligned = int(kept.sum()) >= FEWEST_ALIGNED
    if aligned:
        rows, pixels, covariance = rows[kept], places[kept], covariance[kept]
    else:
        rows = np.arange(len(pixels))
        covariance = _matrices(place, found.index) + _matrices(known, found.keyframe_index)
        error = settings.max_detected_error
    before = before[rows]
    rotation, direction = _motion(place, known, pixels, before, error)
    return Revisit(
        place,
        known,
        found.index[rows],
        found.keyframe_index[rows],
        pixels,
        before,
        covariance,
        found.similarity[rows],
        aligned,
        int(inlier.sum()),
        matches,
        rotation,
        direction,
        error,
    )


def by_early_maps(found: Revisit, config: Config, extractor: Extractor) -> Revisit:
    """Return a revisit aligned anew by early maps, where that aligns more and there are any."""
    if not extractor.has_early_maps:
        return found

    def early(image: NDArray[np.uint8]) -> Pyramid:
        return early_pyramid(extractor.early(image), config.alignment.levels)

    return revisit(found.place, found.known, config, early) or found


def _gray_of(config: Config) -> PyramidOf:
    return lambda image: build_pyramid(image.astype(np.float32), config.alignment.levels, _CPU)


def _aligned(
    place: Place,
    known: Place,
    pixels: Pixels,
    before: Pixels,
    config: Config,
    pyramid_of: PyramidOf,
) -> tuple[NDArray[np.int64], Pixels, NDArray[np.float64]]:
    """Rows whose patches could be aligned, where they lie now (raw px), and how surely."""
    here, there = place.scale, known.scale
    now, then = (pixels + 0.5) * here - 0.5, (before + 0.5) * there - 0.5
    around = predict(then, then, now)
    if around is None:
        return np.empty(0, np.int64), np.empty((0, 2)), np.empty((0, 2, 2))
    pyramids = [pyramid_of(item.image) for item in (known, place)]
    good, found = align_pair(pyramids, then, now, around, config)
    places = (found.warps.pixels + 0.5) / here - 0.5
    return good, places, found.covariance / (here[:, None] * here)


def _motion(
    place: Place, known: Place, pixels: Pixels, before: Pixels, max_error: float
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Rotation and direction of ``T_place_known``, each None where it cannot be told."""
    if place.camera is None or known.camera is None:
        return None, None
    then, now = known.camera.bearings(before), place.camera.bearings(pixels)
    turn = Rotation.align_vectors(unit(now), unit(then))[0].as_matrix()
    if _parallax(turn, then, now) * place.camera.focal <= _PARALLAX * max_error:
        return turn, None  # an essential matrix says nothing here, and may be upside down
    pose = estimate_pose(before, pixels, (known.camera, place.camera), max_error)
    return (None, None) if pose is None else (pose[:3, :3], pose[:3, 3])


def _parallax(rotation: Pixels, then: Pixels, now: Pixels) -> float:
    """Median distance of bearings from where a turn alone would bring them, at depth 1."""
    turned = then @ rotation.T
    return float(np.median(np.linalg.norm(now[:, :2] - turned[:, :2] / turned[:, 2:], axis=1)))


def _matrices(place: Place, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return place.covariances[rows][:, [0, 1, 1, 2]].reshape(-1, 2, 2).astype(np.float64)
