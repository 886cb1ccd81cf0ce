"""docs/topics.md: its script from rows to points, as it stands there, on a replay's bag."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from d2_ros.sources import open_source
from d2_ros.sources.outputs import read_outputs

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "topics.md").read_text(encoding="utf-8")
SEQUENCE = "synthetic:size=160x120,frames=12"


def test_the_points_of_the_example_lie_where_they_truly_are(tmp_path, d2_ros):
    bag = tmp_path / "features.mcap"
    options = ["-p", "threads:=1", "-p", "window.min_parallax:=0.02"]
    assert d2_ros("replay", SEQUENCE, "--out", bag, *options).code == 0
    (script,) = re.findall(
        r"^## A point from two keyframes$.*?^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
    )
    (tmp_path / "points.py").write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, tmp_path / "points.py", bag], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) > 50
    found = {int(words[1]): np.array(words[3:], float) for words in lines}

    source, (_, rows) = open_source(SEQUENCE), read_outputs(bag).tracks[-1]
    stamps = rows["sec"].astype(np.int64) * 10**9 + rows["nanosec"]
    first, last = (source.stamps.index(at) for at in (stamps.min(), stamps.max()))
    poses = source.poses()
    length = np.linalg.norm(poses[last][:3, 3] - poses[first][:3, 3])
    oldest = rows[(stamps == stamps.min()) & np.isin(rows["track_id"], list(found))]
    pixels = np.column_stack([oldest["u"], oldest["v"]]).astype(float)
    world, _ = source.surface(first, pixels)
    true = (world - poses[first][:3, 3]) @ poses[first][:3, :3] / length
    off = [
        np.linalg.norm(found[track] - here)
        for track, here in zip(oldest["track_id"], true, strict=True)
    ]
    assert np.median(np.array(off) / true[:, 2]) < 0.05
