"""Memory of the mapper over many frames; on request, since it takes minutes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from scene import Ring

FRAMES = 10_000
MIB = 2**20


def memory_mib() -> float:
    """Main memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / MIB


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
