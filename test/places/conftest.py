"""Places without a network: scenes of points, and images that are known to be shifted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from skimage import data

from d2_ros.camera import Camera
from d2_ros.places.place import Place
from d2_ros.places.vlad import unit

pytest.importorskip("faiss", reason="faiss is not installed (extra places)")

CAMERA = Camera(640, 480, [[420, 0, 320], [0, 420, 240], [0, 0, 1]], np.zeros(4))
SECOND = 1_000_000_000


class World:
    """300 points with a descriptor each, seen from anywhere; images are blank."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.points = self.rng.uniform([-3, -2, 4], [3, 2, 9], (300, 3))
        self.descriptors = unit(self.rng.standard_normal((300, 128)).astype(np.float32))
        self.vlad = unit(self.rng.standard_normal(256).astype(np.float32))

    def place(self, stamp_s=0.0, position=(0, 0, 0), turn_deg=0.0, session=0, camera=CAMERA):
        """The place that a camera keeps, and its pose ``T_world_camera``."""
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_euler("y", turn_deg, degrees=True).as_matrix()
        pose[:3, 3] = position
        pixels = CAMERA.project((self.points - pose[:3, 3]) @ pose[:3, :3])
        seen = np.isfinite(pixels).all(1) & (pixels >= 0).all(1) & (pixels <= [639, 479]).all(1)
        count = int(seen.sum())
        noise = 0.02 * self.rng.standard_normal((count, 128)).astype(np.float32)
        vlad = unit(self.vlad + 0.01 * self.rng.standard_normal(256).astype(np.float32))
        return (
            Place(
                round(stamp_s * SECOND), session, (640, 480), camera, vlad,
                pixels[seen].astype(np.float32),
                np.tile(np.array([1, 0, 1], np.float32), (count, 1)),
                quantised(self.descriptors[seen] + noise),
                np.full((240, 320), 90, np.uint8),
            ),
            pose,
        )  # fmt: skip


def quantised(descriptors):
    return np.rint(127 * descriptors / np.abs(descriptors).max(1, keepdims=True)).astype(np.int8)


@pytest.fixture
def make_world():
    return World


@pytest.fixture
def blank():
    """A place of which only the VLAD and the stamp matter."""
    nothing = (
        np.empty((0, 2), np.float32), np.empty((0, 3), np.float32), np.empty((0, 128), np.int8),
        np.zeros((2, 2), np.uint8),
    )  # fmt: skip

    def make(vlad, stamp=0, session=0):
        return Place(stamp, session, (640, 480), None, unit(np.float32(vlad)), *nothing)

    return make


def _shifted(shift, light=lambda gray: gray):
    """Two crops of a photograph, and keypoints in them that are a pixel or two off."""
    photo, rng = data.coffee()[:, :, 1], np.random.default_rng(0)
    points = rng.uniform(40, 230, (150, 2))
    descriptors = unit(rng.standard_normal((150, 128)).astype(np.float32))
    descriptors = np.rint(127 * descriptors / np.abs(descriptors).max(1, keepdims=True))

    def place(corner, image):
        pixels = (points - corner + rng.normal(0, 0.7, points.shape)).astype(np.float32)
        spread = np.ones((150, 3), np.float32)
        vlad = np.eye(1, 256, dtype=np.float32)[0]
        return Place(
            0, 0, (280, 240), None, vlad, pixels, spread, descriptors.astype(np.int8), image
        )

    known = place(np.zeros(2), photo[100:340, 150:430])
    u, v = shift
    return place(np.array(shift), light(photo[100 + v : 340 + v, 150 + u : 430 + u])), known


@pytest.fixture
def shifted():
    return _shifted
