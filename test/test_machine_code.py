"""Compiled functions: kept on disk, and compiled anew where there is no room for them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import torch

from d2_ros.matching import compiled
from d2_ros.matching.cutting import cut
from d2_ros.matching.patches import disc
from d2_ros.matching.pyramid import build_pyramid


def test_works_where_no_code_can_be_kept():
    """As in a container with a read-only file system."""
    script = """
        import numba.core.caching as caching
        from d2_ros.machine_code import machine_code
        caching.CacheImpl._locator_classes = []  # no folder will do

        @machine_code("float64(float64)")
        def twice(value):
            return 2 * value

        assert twice(21.0) == 42.0
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("NUMBA")},
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_two_threads_may_align_at_once():
    """Numba's simplest threads, taken where there is no OpenMP, would end the process."""
    rng = np.random.default_rng(0)
    device = torch.device("cpu")
    pyramid = build_pyramid(rng.uniform(0, 255, (120, 160)).astype(np.float32), 1, device)
    centres = rng.uniform(20, 100, (200, 2))
    patches, shape = cut(pyramid, centres, 8)[0], disc(8, device)
    pixels = torch.from_numpy(centres.astype(np.float32))[None]
    affine = torch.eye(2).expand(1, 200, 2, 2)
    found = []

    def work():
        for _ in range(50):
            found.append(compiled.track(patches, pyramid[0], pixels, affine, shape, 6)[0])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 200
    assert all(torch.equal(place, found[0]) for place in found)
