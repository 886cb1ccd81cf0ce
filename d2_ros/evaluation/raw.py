"""D2-Net's own matches of two images, aligned: before any verification, window or track."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.config import Config
from d2_ros.features.extractor import Extractor, Features
from d2_ros.matching.neighbours import match
from d2_ros.matching.verification import verify
from d2_ros.tracks.graph import no_edges
from d2_ros.tracks.keyframe import Keyframe, cut_patches
from d2_ros.tracks.links import inlier_pairs
from d2_ros.tracks.measurement import measure_links
from d2_ros.tracks.observations import detected
from d2_ros.tracks.seen import Seen
from d2_ros.tracks.view import view_of

Images = tuple[NDArray[Any], NDArray[Any]]
Cameras = tuple[Camera | None, Camera | None]


@dataclass(frozen=True)
class RawMatches:
    """Mutual nearest neighbours among the detections of two images.

    Attributes
    ----------
    first, second
        ``(M, 2)`` float64 detected places, px.
    aligned
        ``(M, 2)`` float64 places in the second image after the alignment of each match's patches,
        px; the detected one where that has failed.
    """

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    aligned: NDArray[np.float64]


@torch.inference_mode()
def raw_matches(
    extractor: Extractor,
    images: Images,
    features: tuple[Features, Features],
    cameras: Cameras,
    config: Config,
) -> RawMatches:
    """Match two images by descriptors alone, and align every match as the front-end does.

    As there, an alignment starts from the detected place and from the one that the verified
    matches around it predict; nothing is left out for not being verified.

    Parameters
    ----------
    extractor
        For early maps, where the gray values of the images disagree.
    images
        As given to the front-end.
    features
        Their features.
    cameras
        Their calibrations, or None.
    config
        Of matching and alignment; without ``refinement.enabled`` nothing is aligned.
    """
    keyframe, frame = (
        _keyframe(number, extractor, image, found, camera, config)
        for number, (image, found, camera) in enumerate(
            zip(images, features, cameras, strict=True), start=1
        )
    )
    matches = match(frame.obs.descriptors, [keyframe.obs.descriptors])
    first = keyframe.obs.detected[matches.keyframe_index]
    second = frame.obs.detected[matches.index]
    aligned = second.copy()
    if config.refinement.enabled and len(matches):
        limit, seed = config.matching.max_detected_error, config.matching.seed
        inlier = verify(second, first, cameras[1], cameras[0], limit, seed).inlier
        pairs = inlier_pairs(matches, inlier, 1)
        obs = frame.obs
        seen = Seen(frame.view, obs, matches, pairs, len(obs), followed=False, located=False)
        measured = measure_links(seen, matches, [keyframe], config.alignment)
        aligned[measured.link] = measured.edges.pixels
    return RawMatches(first, second, aligned)


def _keyframe(
    stamp: int,
    extractor: Extractor,
    image: NDArray[Any],
    features: Features,
    camera: Camera | None,
    config: Config,
) -> Keyframe:
    """A frame that every keypoint has just been found in, each a track of its own."""
    view = view_of(image, stamp, camera, extractor, config)
    obs = detected(features, 1 + np.arange(len(features.keypoints)))
    patches = cut_patches(view, obs.pixels, config.alignment.patch_radius)
    return Keyframe(view, obs, patches, no_edges())
