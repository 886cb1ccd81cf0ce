"""``d2-ros map``: the reference mapper over a bag of the front-end's topics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d2_ros.commands.common import (
    Json,
    Overrides,
    given_values,
    output_files,
    output_folder,
    progress,
    write_json,
)
from d2_ros.errors import D2RosError
from d2_ros.files import write_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from d2_ros.imu import ImuCalibration
    from d2_ros.mapper.adjustment import Map
    from d2_ros.mapper.config import MapperConfig
    from d2_ros.mapper.mapper import Mapper
    from d2_ros.sources.results import Told

    Samples = tuple[NDArray[np.int64], NDArray[np.float64]]

_AHEAD = 100_000_000
"""ns by which an IMU's samples are told before the frames: an interval ends between two of them."""

MapperFile = Annotated[
    Path | None, typer.Option("--params-file", help="The mapper node's own YAML parameter file.")
]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("map")(map_bag)


def map_bag(
    bag: Annotated[Path, typer.Argument(metavar="BAG", help="What d2-ros replay has written.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the map; default: BAG.map.")
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(metavar="FILE|SRC", help="True poses: a TUM trajectory, or any source."),
    ] = None,
    node: Annotated[str, typer.Option(help="Name of the front-end's node.")] = "/d2_frontend",
    camera: Annotated[str, typer.Option(help="Name of its camera.")] = "camera",
    right_camera: Annotated[
        str, typer.Option(help="Name of the right camera of a stereo pair.")
    ] = "right",
    mono: Annotated[bool, typer.Option("--mono", help="Pass over the stereo pair.")] = False,
    live: Annotated[
        bool,
        typer.Option("--live", help="Where d2_mapper would have it: no smoothing of the whole."),
    ] = False,
    imu: Annotated[
        Path | None, typer.Option(metavar="SRC", help="An IMU's samples: a bag, EuRoC's imu0.")
    ] = None,
    imu_topic: Annotated[
        str | None, typer.Option(help="Its topic, where that bag has several.")
    ] = None,
    imu_calibration: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML of the IMU's place and noise.")
    ] = None,
    no_loops: Annotated[
        bool, typer.Option("--no-loops", help="Pass over places that were known again.")
    ] = False,
    params_file: MapperFile = None,
    overrides: Overrides = None,
    json: Json = None,
) -> None:
    """Make a trajectory and a map from the tracks in BAG, with the mapper of d2_mapper.

    Writes trajectory.tum, landmarks.ply (with covariances) and trajectory.png, in metres where BAG
    holds the topic stereo, or with --imu. With one camera alone the scale is arbitrary. --truth
    aligns rotation, place, and such a scale, and tells the absolute and the relative error. At the
    end all keyframes are smoothed together, which a robot cannot wait for, and put right by the
    loops in BAG (d2-ros replay -p places.enabled:=true).
    """
    from dataclasses import replace

    from d2_ros.evaluation.trajectories import Path3D, draw, judge
    from d2_ros.mapper.config import KEEP_ALL
    from d2_ros.mapper.mapper import Mapper
    from d2_ros.records import landmark_rows
    from d2_ros.sources.imu import read_imu
    from d2_ros.sources.ply import ply_bytes
    from d2_ros.sources.results import Results
    from d2_ros.sources.trajectories import tum_lines
    from d2_ros.sources.truth import read_truth

    config = load_mapper_config(params_file, overrides)
    results = Results(bag, node, camera, None if mono else right_camera)
    kept = replace(
        config,
        keep_keyframes=0 if live else KEEP_ALL,
        loops=results.loops and not no_loops,
    )
    mapper = Mapper(kept, load_imu(imu is not None, imu_calibration))
    inputs = (bag, truth, params_file, imu, imu_calibration)
    output_files([json], *inputs)
    folder = output_folder(out or bag.with_name(f"{bag.name}.map"), *inputs)
    samples = read_imu(imu, imu_topic) if imu else None
    known = Path3D(*read_truth(truth)) if truth else None
    damage = run_mapper(progress(results, "Mapping", len(results)), mapper, results.stereo, samples)
    made = mapper.adjusted()
    figures = mapper_figures(mapper, made)
    typer.echo(summary(mapper, made))
    stamps, poses = made.trajectory.poses()
    if not len(stamps):
        raise damage or D2RosError(
            f"no map could begin in {mapper.counts.frames} frames with {mapper.counts.keyframes} "
            "keyframes; it takes two keyframes with parallax: move the camera, not only turn it"
        )
    paths, unit = {"mapper": poses[:, :3, 3]}, "m" if mapper.metric else "units of the map"
    if known is not None:
        judged = judge(Path3D(stamps, poses), known, mapper.metric)
        figures |= judged.figures
        paths, unit = {"truth": judged.true, "mapper": judged.estimated}, "m"
        typer.echo(
            f"absolute error {figures['absolute_error_m']:.4g} m over "
            f"{figures['frames_judged']} frames"
        )
    marks = made.landmarks
    write_file(folder / "trajectory.tum", tum_lines(stamps, poses).encode())
    rows = landmark_rows(marks.ids, marks.places, marks.covariances)
    write_file(folder / "landmarks.ply", ply_bytes(rows))
    write_file(folder / "trajectory.png", draw(paths, unit))
    typer.echo(f"Look at {folder / 'trajectory.png'}")
    if json:
        write_json(json, figures)
    if damage:
        raise damage


def load_mapper_config(params_file: Path | None, overrides: Sequence[str] | None) -> MapperConfig:
    """Defaults, then the parameter file, then ``name:=value`` overrides: as the node has it.

    Raises
    ------
    D2RosError
        For what the node would refuse.
    """
    from d2_ros.config import with_values
    from d2_ros.mapper.config import MapperConfig

    values = given_values(params_file, overrides, "d2_mapper")
    return with_values(MapperConfig(), values, "config/mapper.yaml lists")


def load_imu(wanted: bool, calibration: Path | None) -> ImuCalibration | None:
    """Read the calibration of an IMU, if there is one.

    Raises
    ------
    D2RosError
        If one of both is not given, or it cannot be used.
    """
    from d2_ros.imu import read_imu_calibration

    if wanted != (calibration is not None):
        missing = "--imu-calibration" if wanted else "--imu"
        raise D2RosError(f"an IMU needs its samples and its calibration; give {missing} as well")
    return None if calibration is None else read_imu_calibration(calibration)


def run_mapper(
    told: Iterable[Told], mapper: Mapper, stereo: bool, imu: Samples | None = None
) -> D2RosError | None:
    """Let the mapper read messages; return the damage that has ended them, if any has.

    `imu` is stamps and samples, in time order.
    """
    from d2_ros.mapper.inbox import Inbox

    inbox: Inbox[Told] = Inbox(stereo)
    damage, heard = None, 0
    try:
        for item in told:
            while imu is not None and heard < len(imu[0]) and imu[0][heard] < item.stamp + _AHEAD:
                mapper.add_imu(int(imu[0][heard]), imu[1][heard])
                heard += 1
            for ready in inbox.put(item.topic, item.stamp, item):
                _tell(mapper, ready.message, ready.stereo)
    except D2RosError as error:
        damage = error
    for ready in inbox.flush():
        _tell(mapper, ready.message, ready.stereo)
    return damage


def _tell(mapper: Mapper, item: Told, stereo: Told | None) -> None:
    from d2_ros.mapper.observations import Right

    if item.camera is None:
        raise D2RosError(
            f"the message at {item.stamp} ns has no calibration before it, and a mapper "
            "needs bearings: replay a source that is calibrated"
        )
    if item.topic == "tracks":
        mapper.add_tracks(item.stamp, item.rows, item.camera)
        return
    if item.topic == "loops":
        if mapper.config.loops:
            mapper.add_loops(item.stamp, item.rows, item.camera)
        return
    right = None
    if stereo is not None:
        if stereo.camera is None or stereo.T_left_right is None:
            raise D2RosError(
                "the camera_info of the stereo pair does not say how far apart its cameras are "
                "(R and P as a stereo calibration gives them); add that, or map with --mono"
            )
        right = Right(stereo.rows, stereo.camera, stereo.T_left_right)
    mapper.add_features(item.stamp, item.rows, item.camera, right)


def mapper_figures(mapper: Mapper, made: Map) -> dict[str, float | int | str]:
    """Return the flat figures of ``--json``."""
    counts = mapper.counts
    names = ("frames", "keyframes", "lost", "segments", "restarts", "out_of_order")
    return {
        **{name: getattr(counts, name) for name in names},
        "frames_placed": len(made.trajectory),
        "landmarks": len(made.landmarks),
        "loops": len(mapper.loops.graph.loops),
        "loops_refused": mapper.loops.graph.refused,
        **{f"{name}.p50_ms": value for name, value in counts.medians().items()},
    }


def summary(mapper: Mapper, made: Map) -> str:
    """Return one line of what has become of the messages."""
    counts, times = mapper.counts, mapper.counts.medians()
    ends = [f"{counts.lost} lost"] if counts.lost else []
    ends += [f"{counts.segments} segments"] if counts.segments > 1 else []
    ends += [f"begun anew {counts.restarts} times"] if counts.restarts else []
    graph = mapper.loops.graph
    ends += [f"{len(graph.loops)} loops, {graph.refused} refused"] if mapper.config.loops else []
    spent = ", ".join(f"{value:.0f} ms a {name}" for name, value in times.items())
    return (
        f"{len(made.trajectory)} of {counts.frames} frames placed, {counts.keyframes} keyframes, "
        f"{len(made.landmarks)} landmarks; {', '.join([*ends, spent])}"
    )
