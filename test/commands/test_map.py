"""``d2-ros map`` on bags of the front-end's topics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from inertia import CALIBRATION, samples
from scene import CAMERA, SECOND, T_LEFT_RIGHT, Ring, Scene, tracks

from d2_ros.camera import rectification
from d2_ros.sources import messages
from d2_ros.sources.trajectories import tum_lines
from d2_ros.sources.writer import BagWriter


def write(
    path: Path, scene: Scene, camera: Any = CAMERA, topics: Any = None, pair: Any = None
) -> Path:
    """Write what ``d2-ros replay`` would; `pair` is R and P of both cameras of a pair."""
    own, other = pair or (None, None)
    with BagWriter(path) as bag:
        for number in range(scene.frames):
            stamp, rows = scene.stamp(number), scene.features(number)
            told = {"features": rows} | ({} if number % 4 else {"tracks": tracks(stamp, rows)})
            info = messages.camera_info(stamp, "c", camera, 640, 480, own)
            bag.write("/camera/camera_info", info)
            if pair is not None:
                told |= {"stereo": scene.right(number, rows).rows}
                info = messages.camera_info(stamp, "r", camera, 640, 480, other)
                bag.write("/right/camera_info", info)
            for topic, content in told.items():
                if topics is None or topic in topics:
                    place = f"/d2_frontend/camera/{topic}"
                    bag.write(place, messages.cloud(stamp, "c", content))
    return path


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    scene = Scene()
    stamps = np.array([scene.stamp(number) for number in range(scene.frames)])
    path = tmp_path / "truth.tum"
    path.write_text(tum_lines(stamps, scene.poses))
    return path


def test_a_bag_becomes_a_trajectory_landmarks_and_a_picture(
    d2_ros: Any, tmp_path: Path, truth: Path
) -> None:
    bag, out, figures = write(tmp_path / "a.mcap", Scene()), tmp_path / "out", tmp_path / "f.json"
    done = d2_ros("map", bag, "--out", out, "--truth", truth, "--json", figures)
    assert done.code == 0, done.err
    assert "40 of 40 frames placed, 10 keyframes" in done.out
    lines = (out / "trajectory.tum").read_text().splitlines()
    assert len(lines) == 41
    assert lines[1].startswith("100.000000000 ")
    head, _, body = (out / "landmarks.ply").read_bytes().partition(b"end_header\n")
    count = int(head.split(b"element vertex ")[1].split()[0])
    assert len(body) == 40 * count
    assert (out / "trajectory.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(figures.read_text())
    assert found["landmarks"] == count > 200
    assert found["absolute_error_m"] < 0.004
    assert found["relative_error_deg"] < 0.1
    assert found["scale"] > 0
    assert (found["segments"], found["lost"], found["frames_judged"]) == (1, 0, 40)


def test_all_keyframes_are_smoothed_together_at_the_end(d2_ros: Any, tmp_path: Path) -> None:
    scene, errors = Scene(frames=80, count=900), {}
    scene.points[:, 0] *= 1.4
    path = tmp_path / "long.tum"
    stamps = np.array([scene.stamp(number) for number in range(scene.frames)])
    path.write_text(tum_lines(stamps, scene.poses))
    bag, figures = write(tmp_path / "a.mcap", scene), tmp_path / "f.json"
    for name, options in (("whole", []), ("live", ["--live"])):
        done = d2_ros("map", bag, *options, "--truth", path, "--json", figures)
        assert done.code == 0, done.err
        errors[name] = json.loads(figures.read_text())["absolute_error_m"]
    assert errors["whole"] < 0.95 * errors["live"]


def test_loops_in_the_bag_put_the_map_right(d2_ros: Any, tmp_path: Path) -> None:
    ring, errors, figures = Ring(sigma=0.5), {}, tmp_path / "f.json"
    path, bag = tmp_path / "ring.tum", tmp_path / "ring.mcap"
    stamps = np.array([ring.stamp(number) for number in range(400)])
    path.write_text(tum_lines(stamps, np.stack([ring.pose(number) for number in range(400)])))
    with BagWriter(bag) as writer:
        for number, stamp in enumerate(stamps.tolist()):
            rows = ring.features(number)
            told = {"features": rows} | ({} if number % 4 else {"tracks": tracks(stamp, rows)})
            if number in (364, 380, 396):
                told["loops"] = ring.loop(number, number - 312)
            info = messages.camera_info(stamp, "c", CAMERA, 640, 480)
            writer.write("/camera/camera_info", info)
            for topic, content in told.items():
                message = messages.cloud(stamp, "c", content)
                writer.write(f"/d2_frontend/camera/{topic}", message)
    for options in ([], ["--no-loops"]):
        done = d2_ros("map", bag, *options, "--truth", path, "--json", figures)
        assert done.code == 0, done.err
        assert ("3 loops, 0 refused" in done.out) == (not options)
        found = json.loads(figures.read_text())
        assert found["loops"] == (0 if options else 3)
        errors[not options] = found["absolute_error_m"]
    assert errors[True] < errors[False] / 2


def test_the_map_lies_beside_the_bag_unless_told_otherwise(d2_ros: Any, tmp_path: Path) -> None:
    bag = write(tmp_path / "a.mcap", Scene())
    assert d2_ros("map", bag).code == 0
    assert (tmp_path / "a.mcap.map" / "trajectory.tum").is_file()


def test_parameters_come_from_a_file_and_the_command_line(d2_ros: Any, tmp_path: Path) -> None:
    bag, file = write(tmp_path / "a.mcap", Scene()), tmp_path / "p.yaml"
    file.write_text("d2_mapper:\n  ros__parameters:\n    start_points: 900\n    window: 9\n")
    done = d2_ros("map", bag, "--params-file", file)
    assert done.code == 2
    assert "no map could begin in 40 frames with 10 keyframes" in done.err
    assert d2_ros("map", bag, "--params-file", file, "-p", "start_points:=40").code == 0
    refused = d2_ros("map", bag, "-p", "windw:=9")
    assert refused.code == 2
    assert "unknown parameter windw; config/mapper.yaml lists the known ones" in refused.err


def test_what_a_bag_lacks_is_named(d2_ros: Any, tmp_path: Path) -> None:
    bag = write(tmp_path / "a.mcap", Scene(frames=4), topics=["features"])
    done = d2_ros("map", bag)
    assert done.code == 2
    assert "has no /d2_frontend/camera/tracks; it holds /camera/camera_info" in done.err
    assert "--node" in done.err
    absent = d2_ros("map", tmp_path / "nothing.mcap")
    assert absent.code == 2
    assert "is not a bag" in absent.err


def test_without_calibration_there_is_no_map(d2_ros: Any, tmp_path: Path) -> None:
    done = d2_ros("map", write(tmp_path / "a.mcap", Scene(frames=4), camera=None))
    assert done.code == 2
    assert "has no calibration before it" in done.err


def test_a_truth_by_another_clock_is_refused(d2_ros: Any, tmp_path: Path, truth: Path) -> None:
    bag = write(tmp_path / "a.mcap", Scene(begin=900 * SECOND))
    done = d2_ros("map", bag, "--truth", truth)
    assert done.code == 2
    assert "0 of 40 poses have a true one beside them" in done.err


def test_the_truth_is_no_place_for_the_map(d2_ros: Any, tmp_path: Path, truth: Path) -> None:
    bag = write(tmp_path / "a.mcap", Scene())
    done = d2_ros("map", bag, "--truth", truth, "--json", truth)
    assert done.code == 2
    assert "is the input itself" in done.err


def test_a_stereo_pair_is_mapped_in_metres(d2_ros: Any, tmp_path: Path, truth: Path) -> None:
    pair = rectification(CAMERA, CAMERA, T_LEFT_RIGHT)
    bag, figures = write(tmp_path / "a.mcap", Scene(), pair=pair), tmp_path / "f.json"
    done = d2_ros("map", bag, "--truth", truth, "--json", figures)
    assert done.code == 0, done.err
    found = json.loads(figures.read_text())
    assert found["absolute_error_m"] < 0.006
    assert abs(found["scale"] - 1) < 0.003
    assert d2_ros("map", bag, "--truth", truth, "--json", figures, "--mono").code == 0
    assert abs(json.loads(figures.read_text())["scale"] - 1) > 0.1


@pytest.fixture
def imu(tmp_path: Path) -> tuple[Path, Path]:
    """Samples and calibration of an IMU on the scene's camera."""
    scene, times = Scene(frames=60), np.arange(-0.1, 6.1, 1 / 200)
    values = samples(lambda time: Scene.pose(scene, 10 * time), times, (0.0, 1.0, 0.0))
    rows = [
        f"{scene.begin + round(time * 1e9)},{','.join(map(str, sample))}"
        for time, sample in zip(times, values.tolist(), strict=True)
    ]
    (tmp_path / "imu.csv").write_text("\n".join(rows))
    told = {**vars(CALIBRATION), "T_cam_imu": CALIBRATION.T_cam_imu.tolist()}
    (tmp_path / "imu.yaml").write_text(yaml.safe_dump(told))
    return tmp_path / "imu.csv", tmp_path / "imu.yaml"


def test_an_imu_gives_a_monocular_map_metres(d2_ros: Any, tmp_path: Path, imu: Any) -> None:
    scene = Scene(frames=60, count=1500)
    scene.points[:, 0] *= 1.6
    stamps = np.array([scene.stamp(number) for number in range(60)])
    (tmp_path / "truth.tum").write_text(tum_lines(stamps, scene.poses))
    bag, figures = write(tmp_path / "a.mcap", scene), tmp_path / "f.json"
    given = ("--truth", tmp_path / "truth.tum", "--json", figures, "--imu", imu[0])
    done = d2_ros("map", bag, *given, "--imu-calibration", imu[1])
    assert done.code == 0, done.err
    found = json.loads(figures.read_text())
    assert abs(found["scale"] - 1) < 0.015
    assert found["absolute_error_m"] < 0.02
    refused = d2_ros("map", bag, *given)
    assert refused.code == 2
    assert "give --imu-calibration as well" in refused.err


def test_a_pair_whose_distance_is_not_said_is_refused(d2_ros: Any, tmp_path: Path) -> None:
    matrix = np.column_stack([CAMERA.matrix, np.zeros(3)])
    plain = (np.eye(3), matrix)
    done = d2_ros("map", write(tmp_path / "a.mcap", Scene(frames=6), pair=(plain, plain)))
    assert done.code == 2
    assert "does not say how far apart its cameras are" in done.err
    assert "--mono" in done.err
