"""Keyframes for tests that look at their tracks only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from d2_ros.tracks.graph import no_edges
from d2_ros.tracks.window import Keyframe

SECOND = 1_000_000_000


@pytest.fixture(scope="session")
def keyframe():
    """Build a keyframe with keypoints of the given tracks at random places."""

    def build(tracks, pixels=None, stamp=SECOND):
        tracks = np.array(tracks, np.int64)
        rng = np.random.default_rng(0)
        places = rng.uniform([40, 40], [600, 440], (len(tracks), 2)) if pixels is None else pixels
        return Keyframe(
            stamp=stamp,
            camera=None,
            pyramid=(),
            detected=places,
            pixels=places,
            covariance=np.tile(np.eye(2), (len(tracks), 1, 1)),
            descriptors=torch.zeros(len(tracks), 512),
            channels=torch.arange(len(tracks)),
            tracks=tracks,
            edges=no_edges(),
            drift=np.zeros((len(tracks), 2, 2)),
            affine=np.tile(np.eye(2), (len(tracks), 1, 1)),
            anchors=places,
        )

    return build
