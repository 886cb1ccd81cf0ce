"""Following tracks that the matching missed.

D2-Net keeps a keypoint only where its channel is the strongest of all 512. Where a track is
expected, that is too much to ask: a local maximum of the track's own channel near the
predicted place is the same detection with the channel known beforehand. Where there is not
even that, a recent track is followed at the predicted place itself, with score 0;
the alignment of its patch decides whether it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from d2_ros.features.device import to_device
from d2_ros.features.extractor import Features, describe, redetect
from d2_ros.matching.motion import predict
from d2_ros.tracks.keyframe import Keyframe
from d2_ros.tracks.seen import Pairs

_RADIUS = 2  # cells around the predicted place
_SAME = 2.0  # px: a detection this near is the same keypoint
_MARGIN = 4.0  # px from the image border


def find_lost(
    features: Features,
    tracks: NDArray[np.int64],
    window: Sequence[Keyframe],
    pairs: Sequence[Pairs],
    recent: NDArray[np.int64],
    size: tuple[int, int],
) -> tuple[Features, NDArray[np.int64]]:
    """Look for the window's tracks that no match has found.

    Parameters
    ----------
    features, tracks
        The frame's keypoints and their tracks ``(N,)``, 0 for none.
    window, pairs
        Keyframes, and the frame's verified matches with each.
    recent
        Tracks that the last frames or the last keyframe have seen: these are followed even
        undetected.
    size
        (width, height) of the image, px.

    Returns
    -------
    Features and tracks with the keypoints found again appended.
    """
    lost, places, rows_of = [], [], []
    seen_in: list[torch.Tensor] = []
    seen = set(tracks.tolist())
    for keyframe, (rows, keyframe_rows) in reversed(list(zip(window, pairs, strict=True))):
        known = keyframe.obs
        missing = np.array([t not in seen for t in known.tracks.tolist()], bool)
        missing &= known.tracks > 0
        warps = predict(
            known.pixels[missing],
            known.pixels[keyframe_rows],
            features.keypoints[rows].astype(np.float64),
        )
        if warps is None or not missing.any():
            continue
        seen.update(known.tracks[missing].tolist())
        lost.append(known.tracks[missing])
        places.append(warps.pixels)
        rows_of.append(np.flatnonzero(missing) + sum(len(other) for other in seen_in))
        seen_in.append(known.channels)
    if not lost:
        return features, tracks
    names, expected = np.concatenate(lost), np.concatenate(places)
    within = np.all((expected > _MARGIN) & (expected < np.array(size) - 1 - _MARGIN), axis=1)
    every = torch.cat(seen_in)
    channels = every[to_device(np.concatenate(rows_of), every.device)]
    found, pixels, scores = redetect(features.response, expected, channels, _RADIUS)
    pixels[~found] = expected[~found]
    found = (found | np.isin(names, recent)) & within
    names, pixels, scores = names[found], pixels[found], scores[found]
    tracks = tracks.copy()
    taken, fresh = _claim(features.keypoints, tracks, pixels)
    tracks[taken[fresh == 1]] = names[fresh == 1]
    add = fresh == 2
    added = channels[to_device(np.flatnonzero(found)[add], channels.device)]
    joined = _append(features, pixels[add], scores[add], added)
    return joined, np.concatenate([tracks, names[add]])


def _claim(
    keypoints: NDArray[np.float32], tracks: NDArray[np.int64], pixels: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Nearest detection of each place, and what to do: 0 drop, 1 take it over, 2 add the place."""
    if len(keypoints) == 0 or len(pixels) == 0:
        return np.zeros(len(pixels), np.int64), np.full(len(pixels), 2)
    distance, nearest = cKDTree(keypoints).query(pixels)
    near = distance < _SAME
    action = np.where(near, np.where(tracks[nearest] == 0, 1, 0), 2)
    takers = np.flatnonzero(action == 1)  # two tracks must not take over one detection
    _, first = np.unique(nearest[takers], return_index=True)
    action[np.setdiff1d(takers, takers[first])] = 0
    return nearest, action


def _append(
    features: Features,
    pixels: NDArray[np.float32],
    scores: NDArray[np.float32],
    channels: torch.Tensor,
) -> Features:
    # Nothing is known of how well these are placed: as the others are, typically.
    typical = np.median(features.covariances, axis=0)[None].repeat(len(pixels), 0)
    return replace(
        features,
        keypoints=np.concatenate([features.keypoints, pixels]),
        covariances=np.concatenate([features.covariances, typical]),
        scores=np.concatenate([features.scores, scores]),
        descriptors=torch.cat([features.descriptors, describe(features.response, pixels)]),
        channels=torch.cat([features.channels, channels]),
    )
