"""Metres and gravity from an IMU, against a motion whose truth is exact."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from inertia import CALIBRATION, T_CAM_IMU, samples

from d2_ros.errors import D2RosError
from d2_ros.imu import read_imu_calibration

DOWN = (0.0, 1.0, 0.0)  # of the scene, as the camera looks


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def tilt_deg(poses, true):
    """Largest angle between gravity as two trajectories have it in the camera.

    A bias of 0.1 m/s^2 is 0.6 degrees: only a camera that turns tells one from the other.
    """
    seen = (poses[:, :3, :3].swapaxes(1, 2) @ DOWN, true[:, :3, :3].swapaxes(1, 2) @ DOWN)
    return np.degrees(np.arccos((seen[0] * seen[1]).sum(axis=1).clip(-1, 1))).max()


@pytest.fixture
def long_scene(make_scene):
    """Return a scene of six seconds with points all along the way."""

    def make(**values):
        scene = make_scene(frames=60, count=1500, **values)
        scene.points[:, 0] *= 1.6
        return scene

    return make


def hear(mapper, scene, times=None, **values):
    """Tell a mapper all samples of an IMU at 200 Hz."""
    times = np.arange(-0.1, scene.frames / 10 + 0.1, 1 / 200) if times is None else times
    told = samples(lambda time: type(scene).pose(scene, 10 * time), times, DOWN, **values)
    for time, sample in zip(times, told, strict=True):
        mapper.add_imu(scene.begin + round(time * 1e9), sample)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_monocular_camera_with_an_imu_gives_metres(long_scene, make_mapper, send, judge, seed):
    scene, mapper = long_scene(seed=seed), make_mapper(CALIBRATION)
    hear(mapper, scene, seed=seed)
    answers = send(mapper, scene)
    known = [number for number, answer in enumerate(answers) if answer is not None]
    assert mapper.metric
    assert known == list(range(known[0], 60))  # nothing before it is in metres
    stamps, poses = mapper.trajectory.poses()
    assert len(stamps) == 60  # then all of it is
    way, true = (each[-1, :3, 3] - each[0, :3, 3] for each in (poses, scene.poses))
    assert abs(np.linalg.norm(way) / np.linalg.norm(true) - 1) < 0.015
    assert rms(judge(mapper, scene, metric=True)) < 0.02  # 5.6 m of way
    assert tilt_deg(poses, scene.poses) < 1.0


def test_a_stereo_pair_with_an_imu_keeps_its_metres_and_is_levelled(
    long_scene, make_mapper, send, judge
):
    scene, mapper = long_scene(), make_mapper(CALIBRATION)
    hear(mapper, scene)
    send(mapper, scene, stereo=True)
    assert mapper.metric
    assert rms(judge(mapper, scene, metric=True)) < 0.01
    _, poses = mapper.trajectory.poses()
    assert tilt_deg(poses, scene.poses) < 1.0


def test_a_motion_that_tells_no_scale_gives_no_metres(long_scene, make_mapper, send):
    """Without acceleration an IMU feels gravity only."""
    scene = long_scene()
    scene.pose = lambda number: _straight(number)
    scene.poses = np.stack([_straight(number) for number in range(60)])
    mapper = make_mapper(CALIBRATION)
    times = np.arange(-0.1, 6.1, 1 / 200)
    for time, sample in zip(
        times, samples(lambda time: _straight(10 * time), times, DOWN), strict=True
    ):
        mapper.add_imu(scene.begin + round(time * 1e9), sample)
    answers = send(mapper, scene)
    assert not mapper.metric
    assert not any(answer is not None for answer in answers)
    assert mapper.state == "tracking"


def _straight(number):
    pose = np.eye(4)
    pose[:3, 3] = [0.09 * number, 0, 0.03 * number]
    return pose


def test_a_gap_in_the_samples_is_gone_over(long_scene, make_mapper, send, judge):
    scene, mapper = long_scene(), make_mapper(CALIBRATION)
    times = np.arange(-0.1, 6.1, 1 / 200)
    hear(mapper, scene, times[(times < 5.1) | (times > 5.5)])
    send(mapper, scene)
    assert mapper.metric
    assert rms(judge(mapper, scene, metric=True)) < 0.05


def test_without_samples_there_are_no_metres(long_scene, make_mapper, send):
    mapper = make_mapper(CALIBRATION)
    answers = send(mapper, long_scene(), range(30))
    assert not any(answer is not None for answer in answers)
    assert (mapper.state, mapper.metric) == ("tracking", False)


def test_what_is_kept_of_an_imu_does_not_grow_with_time(make_mapper):
    mapper = make_mapper(CALIBRATION)
    for number in range(250_000):
        mapper.add_imu(number * 1_000_000, (0.0,) * 6)
    assert len(mapper._imu._stamps) <= 200_000


GOOD = {
    "T_cam_imu": T_CAM_IMU.tolist(),
    "accelerometer_noise_density": 2e-3,
    "gyroscope_noise_density": 1.7e-4,
    "accelerometer_random_walk": 3e-3,
    "gyroscope_random_walk": 2e-5,
}


def test_a_calibration_is_read(tmp_path):
    (tmp_path / "imu.yaml").write_text(yaml.safe_dump({**GOOD, "gravity": 9.8}))
    found = read_imu_calibration(tmp_path / "imu.yaml")
    np.testing.assert_allclose(found.T_cam_imu, T_CAM_IMU)
    assert (found.gravity, found.timeshift_cam_imu) == (9.8, 0.0)
    assert found.gyroscope_noise_density == 1.7e-4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"T_cam_imu": None}, "T_cam_imu must be four rows of a rotation and a place"),
        ({"T_cam_imu": (2 * np.eye(4)).tolist()}, "four rows of a rotation"),
        ({"T_cam_imu": np.diag([1.0, 1, -1, 1]).tolist()}, "four rows of a rotation"),
        ({"accelerometer_noise_density": 0}, "accelerometer_noise_density is 0; it must be"),
        ({"gyroscope_random_walk": "small"}, "gyroscope_random_walk is 'small'; it must be"),
        ({"gravity": -9.81}, "gravity is -9.81; it must be a number in m/s^2"),
        ({"gyro_noise": 1.0}, "has an unknown gyro_noise; known are T_cam_imu"),
    ],
)
def test_a_calibration_that_cannot_be_is_refused(tmp_path, change, words):
    (tmp_path / "imu.yaml").write_text(yaml.safe_dump({**GOOD, **change}))
    with pytest.raises(D2RosError, match=words.replace("^", r"\^")):
        read_imu_calibration(tmp_path / "imu.yaml")


def test_a_calibration_that_lacks_something_names_it(tmp_path):
    for key in GOOD:
        told = {name: value for name, value in GOOD.items() if name != key}
        (tmp_path / "imu.yaml").write_text(yaml.safe_dump(told))
        with pytest.raises(D2RosError, match=f"lacks {key}"):
            read_imu_calibration(tmp_path / "imu.yaml")
    with pytest.raises(D2RosError, match="cannot be read"):
        read_imu_calibration(tmp_path / "none.yaml")
    (tmp_path / "imu.yaml").write_text("a: [")
    with pytest.raises(D2RosError, match="is no YAML"):
        read_imu_calibration(tmp_path / "imu.yaml")
