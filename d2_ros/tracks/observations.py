"""What was seen in one view: a row per keypoint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.features.device import to_device
from d2_ros.features.extractor import Features


@dataclass(frozen=True)
class Observations:
    """N keypoints of a view. No two are of one track.

    Attributes
    ----------
    detected, pixels
        ``(N, 2)`` float64 detected and refined places, px.
    covariance
        ``(N, 2, 2)`` float64 of `pixels`, px^2.
    drift
        ``(N, 2, 2)`` float64, px^2: covariance of `pixels` relative to the track's first
        observation; zero for that one.
    affine
        ``(N, 2, 2)`` float64: offsets in the track's first patch -> offsets here.
    tracks
        ``(N,)`` int64 track ids, 0 for none.
    scores
        ``(N,)`` float32 detection scores, 0 where the network has not detected it.
    descriptors
        ``(N, K)`` float32 on the device, of unit length.
    channels
        ``(N,)`` int64 winning channels, on the device.
    """

    detected: NDArray[np.float64]
    pixels: NDArray[np.float64]
    covariance: NDArray[np.float64]
    drift: NDArray[np.float64]
    affine: NDArray[np.float64]
    tracks: NDArray[np.int64]
    scores: NDArray[np.float32]
    descriptors: torch.Tensor
    channels: torch.Tensor

    def __post_init__(self) -> None:
        if len({len(column) for column in vars(self).values()}) != 1:
            raise ValueError("the columns of Observations must have one length")
        used = self.tracks[self.tracks > 0]
        if len(np.unique(used)) != len(used):
            raise ValueError("two keypoints of one view belong to the same track")

    def __len__(self) -> int:
        return len(self.tracks)

    def select(self, rows: NDArray[np.int64]) -> Observations:
        """The observations of `rows`."""
        chosen = to_device(rows, self.descriptors.device)
        columns: dict[str, Any] = {
            name: column[chosen if isinstance(column, torch.Tensor) else rows]
            for name, column in vars(self).items()
        }
        return Observations(**columns)

    def join(self, other: Observations) -> Observations:
        """These and then the other ones."""
        columns: dict[str, Any] = {}
        for name, column in vars(self).items():
            cat = torch.cat if isinstance(column, torch.Tensor) else np.concatenate
            columns[name] = cat([column, vars(other)[name]])
        return Observations(**columns)

    def at(self, places: NDArray[np.float64], affine: NDArray[np.float64]) -> Observations:
        """The same keypoints at places of another view, where nothing has measured them yet."""
        return replace(
            self, detected=places, pixels=places, affine=affine, drift=np.zeros_like(self.drift)
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


def detected(features: Features, tracks: NDArray[np.int64]) -> Observations:
    """Observations of features just found, which nothing has measured yet."""
    count, places = len(tracks), features.keypoints.astype(np.float64)
    return Observations(
        detected=places,
        pixels=places,
        covariance=features.covariances.astype(np.float64),
        drift=np.zeros((count, 2, 2)),
        affine=np.tile(np.eye(2), (count, 1, 1)),
        tracks=tracks,
        scores=features.scores,
        descriptors=features.descriptors,
        channels=features.channels,
    )


def no_observations(device: torch.device) -> Observations:
    """None at all."""
    places, squares = np.empty((0, 2)), np.empty((0, 2, 2))
    return Observations(
        places, places, squares, squares, squares, np.empty(0, np.int64), np.empty(0, np.float32),
        torch.empty((0, 512), device=device), torch.empty(0, dtype=torch.int64, device=device),
    )  # fmt: skip
