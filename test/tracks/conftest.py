"""Keyframes for tests that look at their tracks only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from d2_ros.tracks.graph import no_edges
from d2_ros.tracks.keyframe import Keyframe
from d2_ros.tracks.observations import Observations
from d2_ros.tracks.view import View

SECOND = 1_000_000_000


@pytest.fixture(scope="session")
def observations():
    """Build keypoints of the given tracks at random places."""

    def build(tracks, pixels=None):
        tracks = np.array(tracks, np.int64)
        rng = np.random.default_rng(0)
        places = rng.uniform([40, 40], [600, 440], (len(tracks), 2)) if pixels is None else pixels
        return Observations(
            detected=places,
            pixels=places,
            covariance=np.tile(np.eye(2), (len(tracks), 1, 1)),
            drift=np.zeros((len(tracks), 2, 2)),
            affine=np.tile(np.eye(2), (len(tracks), 1, 1)),
            tracks=tracks,
            scores=np.zeros(len(tracks), np.float32),
            descriptors=torch.zeros(len(tracks), 512),
            channels=torch.arange(len(tracks)),
        )

    return build


@pytest.fixture(scope="session")
def keyframe(observations):
    """Build a keyframe with such keypoints, without an image or patches."""

    def build(tracks, pixels=None, stamp=SECOND):
        view = View(stamp, None, (), None, np.empty((0, 0), np.float32))
        return Keyframe(view, observations(tracks, pixels), None, no_edges())

    return build
