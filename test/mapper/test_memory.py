"""Memory of the mapper over many frames; on request, since it takes minutes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from d2_ros.records import FEATURES

FRAMES = 10_000
COUNT = 600  # points on a ring, of which a ninth is seen at a time
MIB = 2**20


def memory_mib() -> float:
    """Main memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / MIB


class Ring:
    """A camera that goes round and round, looking outwards; a track ends where it leaves."""

    def __init__(self, camera: Any) -> None:
        self.camera, self.rng = camera, np.random.default_rng(0)
        self.angle = self.rng.uniform(0, 2 * np.pi, COUNT)
        far, height = self.rng.uniform(4, 8, COUNT), self.rng.uniform(-1.5, 1.5, COUNT)
        place = [far * np.sin(self.angle), height, far * np.cos(self.angle)]
        self.points = np.column_stack(place)

    def pose(self, number: int) -> Any:
        turn = 0.02 * number
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_rotvec([0, turn, 0]).as_matrix()
        pose[:3, 3] = [np.sin(turn), 0.1 * np.sin(0.3 * number), np.cos(turn)]
        return pose

    def features(self, number: int) -> Any:
        pose = self.pose(number)
        pixels = self.camera.project((self.points - pose[:3, 3]) @ pose[:3, :3])
        with np.errstate(invalid="ignore"):
            seen = np.flatnonzero(((pixels >= 0) & (pixels <= [639, 479])).all(axis=1))
        lap = np.floor((0.02 * number - self.angle[seen] + np.pi) / (2 * np.pi)).astype(int)
        rows = np.zeros(len(seen), FEATURES)
        places = pixels[seen] + self.rng.normal(size=(len(seen), 2)) * 0.2
        rows["u"], rows["v"] = places.T
        rows["x"], rows["y"], rows["z"] = self.camera.bearings(places).T
        rows["sigma_uu"] = rows["sigma_vv"] = 0.04
        rows["track_id"] = 1 + seen + COUNT * (lap + 1)
        return rows


@pytest.mark.skipif("D2_ROS_SOAK" not in os.environ, reason="takes minutes; set D2_ROS_SOAK=1")
def test_memory_is_flat_over_ten_thousand_frames(
    make_mapper: Any, camera: Any, tracks_of: Any
) -> None:
    ring, mapper, used = Ring(camera), make_mapper(keep_landmarks=5000, keep_frames=1000), {}
    for number in range(FRAMES):
        stamp, rows = 10**9 + number * 100_000_000, ring.features(number)
        mapper.add_features(stamp, rows, camera)
        if number % 4 == 0:
            mapper.add_tracks(stamp, tracks_of(stamp, rows), camera)
        if number + 1 in (2000, 5000, FRAMES):
            used[number + 1] = memory_mib()
    print("MiB after so many frames:", used, mapper.counts.medians())
    assert (mapper.state, mapper.counts.segments) == ("tracking", 1)
    assert len(mapper.landmarks) <= 5000
    assert len(mapper.trajectory) <= 1100
    assert used[FRAMES] - used[2000] < 1
