"""d2_ros: D2-Net features with multi-view refinement, as a ROS 2 front-end."""

import os

__version__ = "0.1.0"

# OpenMP's threads otherwise spin while they wait for each other. Where another process, or another
# thread of this one, wants a core, the one that is waited for does not get it, and a step of 1 ms
# takes 20 (docs/performance.md). It is read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
