"""The demo's trajectory: the reference mapper over what the node has published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from d2_ros.sources.results import Told

NAMESPACE = "/d2_frontend/camera/"


def map_demo(bag: Path, source: Any) -> tuple[dict[str, float | int | str], bytes | None]:
    """Map the recorded topics and draw the trajectory beside the true one.

    Parameters
    ----------
    bag
        The recorded ``features`` and ``tracks``.
    source
        The synthetic sequence, whose camera and poses are known.

    Returns
    -------
    figures
        ``trajectory_error_m`` and ``trajectory_frames``; only the latter, 0, without a map.
    picture
        A PNG; None where no map could begin, as in a few frames without parallax.
    """
    from d2_ros.commands.map import run_mapper
    from d2_ros.evaluation.trajectories import Path3D, draw, judge
    from d2_ros.mapper.mapper import Mapper

    mapper = Mapper()
    run_mapper(_told(bag, source), mapper, stereo=False)
    stamps, poses = mapper.trajectory.poses()
    if len(stamps) < 3:
        return {"trajectory_frames": 0}, None
    truth = Path3D(np.array(source.stamps, np.int64), source.poses())
    judged = judge(Path3D(stamps, poses), truth)
    figures: dict[str, float | int | str] = {
        "trajectory_error_m": judged.figures["absolute_error_m"],
        "trajectory_frames": len(stamps),
    }
    return figures, draw({"truth": judged.true, "mapper": judged.estimated}, "m")


def _told(bag: Path, source: Any) -> Iterator[Told]:
    from d2_ros.sources.bagfiles import Bag
    from d2_ros.sources.messages import stamp_of
    from d2_ros.sources.outputs import rows_of
    from d2_ros.sources.results import LAYOUTS, Told

    topics = {f"{NAMESPACE}{name}": name for name in ("features", "tracks")}
    for topic, message in Bag([bag]).messages(list(topics)):
        name = topics[topic]
        rows = rows_of(message, LAYOUTS[name], topic)
        yield Told(name, stamp_of(message), rows, source.camera)
