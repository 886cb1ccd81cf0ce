"""The mapper as a process of its own, over DDS: played to, killed, reset, time set back."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from inertia import CALIBRATION, samples
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from processes import starting_nodes
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from scene import CAMERA, SECOND, T_LEFT_RIGHT, Ring, Scene, tracks
from sensor_msgs.msg import CameraInfo, Imu, PointCloud2
from std_srvs.srv import Trigger

from d2_ros.camera import rectification
from d2_ros.node.mapper_node import MapperNode
from d2_ros.node.mapper_outputs import T_MAP_WORLD
from d2_ros.node.messages import make_camera_info, make_cloud, make_header, stamp_of
from d2_ros.node.source_publisher import INFO_QOS

ROOT = Path(__file__).resolve().parents[2]
ALL = QoSProfile(history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE)


class Front(Node):
    """Says what the front-end would say of a scene, and hears the mapper."""

    def __init__(self) -> None:
        super().__init__("front", use_global_arguments=False)
        advertise = self.create_publisher
        self.features = advertise(PointCloud2, "/d2_frontend/camera/features", ALL)
        self.tracks = advertise(PointCloud2, "/d2_frontend/camera/tracks", ALL)
        self.infos = advertise(CameraInfo, "/camera/camera_info", INFO_QOS)
        self.stereo = advertise(PointCloud2, "/d2_frontend/camera/stereo", ALL)
        self.loops = advertise(PointCloud2, "/d2_frontend/camera/loops", ALL)
        self.right_infos = advertise(CameraInfo, "/right/camera_info", INFO_QOS)
        self.odometry: list[Odometry] = []
        self.paths: list[PathMessage] = []
        self.clouds: list[PointCloud2] = []
        self.statuses: list[dict[str, str]] = []
        listen = self.create_subscription
        listen(Odometry, "/d2_mapper/odometry", self.odometry.append, 1000)
        listen(PathMessage, "/d2_mapper/path", self.paths.append, 1000)
        listen(PointCloud2, "/d2_mapper/landmarks", self.clouds.append, 1000)
        listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "d2_mapper: map":
                values = {entry.key: entry.value for entry in status.values}
                self.statuses.append({**values, "message": status.message})

    def connected(self) -> bool:
        publishers = (self.features, self.tracks, self.infos)
        heard = self.count_publishers("/d2_mapper/odometry") > 0
        return heard and all(each.get_subscription_count() > 0 for each in publishers)

    def listeners(self) -> set[tuple[int, ...]]:
        """Who subscribes to features, tracks and calibration, also the dead for a while."""
        topics = (each.topic_name for each in (self.features, self.tracks, self.infos))
        infos = [info for name in topics for info in self.get_subscriptions_info_by_topic(name)]
        reliable = ReliabilityPolicy.RELIABLE
        own = [i for i in infos if i.qos_profile.reliability == reliable]
        return {tuple(info.endpoint_gid) for info in own}

    def play(self, scene: Scene, numbers: Any = None, pair: Any = None) -> None:
        """Send a scene; `pair` is R and P of both cameras of a pair."""
        for number in range(scene.frames) if numbers is None else numbers:
            stamp, rows = scene.stamp(number), scene.features(number)
            header = make_header(stamp, "camera_optical")
            info = make_camera_info(header, CAMERA, 640, 480)
            if pair is not None:
                self.stereo.publish(make_cloud(header, scene.right(number, rows).rows))
                other = make_camera_info(header, CAMERA, 640, 480)
                for sent, (turn, projection) in zip((info, other), pair, strict=True):
                    sent.r, sent.p = turn.ravel(), projection.ravel()
                self.right_infos.publish(other)
            self.infos.publish(info)
            if number % 4 == 0:
                self.tracks.publish(make_cloud(header, tracks(stamp, rows)))
            self.features.publish(make_cloud(header, rows))

    def stamps(self) -> list[int]:
        return [stamp_of(message.header) for message in self.odometry]


@pytest.fixture
def front(graph: Any) -> Front:
    made: Front = graph.add(Front())
    return made


@pytest.fixture
def make_node(graph: Any) -> Callable[..., MapperNode]:
    """Return a function that makes a mapper node with parameters and spins it in this process."""

    def make(**values: Any) -> MapperNode:
        given = [Parameter(name, value=value) for name, value in values.items()]
        node = MapperNode(parameter_overrides=given, use_global_arguments=False)
        made: MapperNode = graph.add(node)
        return made

    return make


@pytest.fixture
def spawn() -> Iterator[Any]:
    """Return a function that starts the executable and waits until it listens."""
    with starting_nodes("d2_ros.node.mapper_node") as start:
        yield partial(start, until="waiting for d2_frontend")


def test_every_display_of_rviz_shows_a_topic_of_the_mapper(
    front: Front, make_node: Callable[..., MapperNode]
) -> None:
    config = yaml.safe_load((ROOT / "config" / "mapper.rviz").read_text(encoding="utf-8"))
    node = make_node()
    topics = dict(front.get_publisher_names_and_types_by_node("d2_mapper", "/"))
    shown = {
        display["Topic"]["Value"]: display["Class"].rpartition("/")[2]
        for display in config["Visualization Manager"]["Displays"]
        if "Topic" in display
    }
    assert shown.pop("d2_frontend/camera/overlay") == "Image"
    kinds = {"Path": "nav_msgs", "Odometry": "nav_msgs", "PointCloud2": "sensor_msgs"}
    assert sorted(shown.values()) == sorted(kinds)
    for topic, kind in shown.items():
        assert topics[f"/{topic}"] == [f"{kinds[kind]}/msg/{kind}"]
    fixed = config["Visualization Manager"]["Global Options"]["Fixed Frame"]
    assert fixed == node.get_parameter("frame").value


def positions(messages: list[Odometry]) -> Any:
    places = [message.pose.pose.position for message in messages]
    return np.array([(place.x, place.y, place.z) for place in places])


def test_what_the_front_end_says_becomes_odometry_path_and_landmarks(
    graph: Any, front: Front, make_node: Any
) -> None:
    make_node()
    graph.wait(front.connected)
    scene = Scene()
    front.play(scene)
    graph.wait(lambda: front.stamps()[-1:] == [scene.stamp(39)] and front.clouds)
    assert front.odometry[-1].header.frame_id == "map"
    assert front.odometry[-1].child_frame_id == "camera_optical"
    begun = [number for number in range(40) if scene.stamp(number) in front.stamps()]
    assert len(begun) >= 27  # all but those before the map had begun
    # Up to scale, in the axes of REP 103 as the first keyframe looks.
    true = (scene.poses[begun][:, :3, 3]) @ scene.poses[0][:3, :3] @ T_MAP_WORLD[:3, :3].T
    ours = positions(front.odometry)
    scale = (true * ours).sum() / (ours * ours).sum()
    assert np.abs(scale * ours - true).max() < 0.05  # of a way of 3.6
    assert len(front.paths[-1].poses) == 10
    names = [field.name for field in front.clouds[-1].fields]
    assert names == ["x", "y", "z", "xx", "xy", "xz", "yy", "yz", "zz", "track_id"]
    assert front.clouds[-1].width > 200
    graph.wait(lambda: front.statuses and front.statuses[-1]["frames"] == "40")
    assert front.statuses[-1]["message"] == "tracking"


def test_a_stereo_pair_gives_odometry_in_metres(graph: Any, front: Front, make_node: Any) -> None:
    make_node(stereo=True)
    graph.wait(lambda: front.connected() and front.right_infos.get_subscription_count() > 0)
    graph.wait(lambda: front.stereo.get_subscription_count() > 0)
    scene = Scene()
    front.play(scene, pair=rectification(CAMERA, CAMERA, T_LEFT_RIGHT))
    graph.wait(lambda: front.stamps()[-1:] == [scene.stamp(39)])
    begun = [number for number in range(40) if scene.stamp(number) in front.stamps()]
    assert len(begun) >= 39  # but for the first: its keyframe comes after it
    true = scene.poses[begun][:, :3, 3] @ scene.poses[0][:3, :3] @ T_MAP_WORLD[:3, :3].T
    assert np.abs(positions(front.odometry) - true).max() < 0.05  # of a way of 3.6 m


def test_an_imu_gives_odometry_in_metres(
    graph: Any, front: Front, make_node: Any, tmp_path: Path
) -> None:
    told = {**vars(CALIBRATION), "T_cam_imu": CALIBRATION.T_cam_imu.tolist()}
    (tmp_path / "imu.yaml").write_text(yaml.safe_dump(told))
    make_node(imu_topic="/imu", imu_calibration=str(tmp_path / "imu.yaml"))
    sensor = front.create_publisher(Imu, "/imu", ALL)
    graph.wait(lambda: front.connected() and sensor.get_subscription_count() > 0)
    scene = Scene(frames=60, count=1500)
    scene.points[:, 0] *= 1.6
    times = np.arange(-0.1, 6.1, 1 / 200)
    values = samples(lambda time: Scene.pose(scene, 10 * time), times, (0.0, 1.0, 0.0))
    for time_, value in zip(times, values.tolist(), strict=True):
        message = Imu(header=make_header(scene.begin + round(time_ * 1e9), "imu"))
        for part, numbers in (
            (message.angular_velocity, value[:3]),
            (message.linear_acceleration, value[3:]),
        ):
            part.x, part.y, part.z = numbers
        sensor.publish(message)
    front.play(scene)
    graph.wait(lambda: front.stamps()[-1:] == [scene.stamp(59)])
    begun = [number for number in range(60) if scene.stamp(number) in front.stamps()]
    true = scene.poses[begun][:, :3, 3]
    assert (
        abs(
            np.linalg.norm(np.diff(positions(front.odometry)[[0, -1]], axis=0))
            / np.linalg.norm(true[-1] - true[0])
            - 1
        )
        < 0.02
    )
    graph.wait(lambda: front.statuses and front.statuses[-1]["metric"] == "True")


def test_a_pair_whose_distance_is_not_said_warns(graph: Any, front: Front, make_node: Any) -> None:
    make_node(stereo=True)
    graph.wait(lambda: front.connected() and front.right_infos.get_subscription_count() > 0)
    plain = (np.eye(3), np.column_stack([CAMERA.matrix, np.zeros(3)]))
    front.play(Scene(frames=6), pair=(plain, plain))
    graph.wait(lambda: front.statuses and "how far apart" in front.statuses[-1]["last_error"])


def test_a_mapper_that_is_killed_begins_anew_when_it_is_started_again(
    graph: Any, front: Front, spawn: Any
) -> None:
    scene = Scene(frames=60)
    first = spawn()
    # A message from the mapper says that it has found this process.
    graph.wait(lambda: front.connected() and front.statuses)
    front.play(scene, list(range(30)))
    graph.wait(lambda: front.stamps()[-1:] == [scene.stamp(29)])
    ghosts = front.listeners()
    first.kill()
    first.wait()
    front.statuses.clear()
    second = spawn()
    graph.wait(lambda: len(front.listeners() - ghosts) == 3 and front.statuses)
    front.odometry.clear()
    front.play(scene, list(range(32, 60)))
    graph.wait(lambda: front.stamps()[-1:] == [scene.stamp(59)])
    assert len(front.odometry) > 10
    second.send_signal(signal.SIGINT)
    _, rest = second.communicate(timeout=10)
    assert second.returncode == 0
    assert "Traceback" not in rest


def test_time_that_jumps_back_begins_a_new_map(graph: Any, front: Front, make_node: Any) -> None:
    node = make_node()
    graph.wait(front.connected)
    front.play(Scene())
    graph.wait(lambda: len(front.odometry) > 25)
    again = Scene(first_id=10_000, begin=50 * SECOND)
    front.play(again)
    graph.wait(lambda: front.stamps()[-1:] == [again.stamp(39)])
    assert node.mapper.counts.restarts == 1
    assert stamp_of(front.paths[-1].poses[0].header) == again.stamp(0)


def test_a_gap_and_a_reset_of_the_front_end_begin_a_segment(
    graph: Any, front: Front, make_node: Any
) -> None:
    """Five seconds without a message, and then tracks that nobody knows."""
    node = make_node()
    graph.wait(front.connected)
    front.play(Scene())
    later = Scene(first_id=10_000, begin=109 * SECOND)
    front.play(later)
    graph.wait(lambda: front.stamps()[-1:] == [later.stamp(39)])
    assert (node.mapper.counts.segments, node.mapper.counts.restarts) == (2, 0)
    assert len(node.mapper.trajectory) > 70


def test_the_map_is_saved_and_forgotten_on_request(
    graph: Any, front: Front, make_node: Any, tmp_path: Path
) -> None:
    node = make_node(folder=str(tmp_path / "map"))
    graph.wait(front.connected)
    front.play(Scene())
    graph.wait(lambda: len(front.odometry) > 25)
    save = graph.call(front.create_client(Trigger, "/d2_mapper/save_map"), Trigger.Request())
    assert save.success
    lines = (tmp_path / "map" / "trajectory.tum").read_text().splitlines()
    assert len(lines) == 1 + len(node.mapper.trajectory)
    assert (tmp_path / "map" / "landmarks.ply").stat().st_size > 200 * 40
    assert graph.call(front.create_client(Trigger, "/d2_mapper/reset"), Trigger.Request()).success
    assert (node.mapper.state, len(node.mapper.landmarks)) == ("starting", 0)


def test_a_loop_puts_the_map_right_and_leaves_the_odometry(
    graph: Any, front: Front, make_node: Any
) -> None:
    """The path in the frame map bends; the odometry, in a frame of its own, does not."""
    node, ring = make_node(loops=True), Ring(sigma=0.5)
    graph.wait(lambda: front.connected() and front.loops.get_subscription_count() > 0)
    for number in range(400):  # a lap has 314
        stamp, rows = ring.stamp(number), ring.features(number)
        header = make_header(stamp, "c")
        if number % 20 == 0:
            front.infos.publish(make_camera_info(header, CAMERA, 640, 480))
        front.features.publish(make_cloud(header, rows))
        if number % 4 == 0:
            front.tracks.publish(make_cloud(header, tracks(stamp, rows)))
        if number == 364:
            front.loops.publish(make_cloud(header, ring.loop(364, 52)))
        if number % 40 == 0:  # no faster than it is read
            graph.wait(lambda sent=number: node.mapper.counts.frames > sent)
    graph.wait(lambda: front.stamps()[-1:] == [ring.stamp(399)])
    graph.wait(lambda: front.statuses and front.statuses[-1]["loops"] == "1")
    assert {message.header.frame_id for message in front.odometry} == {"odom"}
    assert {message.header.frame_id for message in front.paths} == {"map"}
    first, last = front.paths[0], front.paths[-1]
    before = [path for path in front.paths if stamp_of(path.header) < ring.stamp(364)][-1]
    assert place(first.poses[0]) == pytest.approx(place(last.poses[0]), abs=1e-6)
    known = {stamp_of(pose.header): place(pose) for pose in before.poses}
    bent = [
        np.subtract(place(p), known[s]) for p in last.poses if (s := stamp_of(p.header)) in known
    ]
    assert np.linalg.norm(bent, axis=1).max() > 0.01
    steps = np.diff([place(message.pose) for message in front.odometry], axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    assert lengths.max() < 2 * np.median(lengths)
    assert np.abs(node.mapper.T_map_odom - np.eye(4)).max() > 1e-3


def place(stamped: Any) -> tuple[float, float, float]:
    """Return x, y, z of a stamped pose, or of one with a covariance."""
    position = stamped.pose.position
    return position.x, position.y, position.z


def test_a_map_that_cannot_be_saved_says_why(
    graph: Any, front: Front, make_node: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    make_node(folder=str(tmp_path / "file"))
    save = graph.call(front.create_client(Trigger, "/d2_mapper/save_map"), Trigger.Request())
    assert not save.success
    assert "set parameter folder" in save.message


def test_without_calibration_the_diagnostics_say_so(
    graph: Any, front: Front, make_node: Any
) -> None:
    make_node()
    graph.wait(front.connected)
    scene = Scene()
    front.features.publish(make_cloud(make_header(scene.stamp(0), "c"), scene.features(0)))
    graph.wait(lambda: front.statuses and "no calibration" in front.statuses[-1]["message"])


def test_a_cloud_of_other_fields_is_left_out_and_told_of(
    graph: Any, front: Front, make_node: Any
) -> None:
    node = make_node()
    graph.wait(front.connected)
    scene = Scene()
    rows = tracks(scene.stamp(0), scene.features(0))
    front.features.publish(make_cloud(make_header(scene.stamp(0), "c"), rows))  # no features
    graph.wait(lambda: "docs/topics.md" in node._last_error)
    front.play(scene)
    graph.wait(lambda: front.stamps()[-1:] == [scene.stamp(39)])


def test_an_unknown_parameter_is_refused() -> None:
    command = [sys.executable, "-m", "d2_ros.node.mapper_node", "--ros-args", "-p", "windw:=3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == (
        "d2_mapper: unknown parameter windw; config/mapper.yaml lists the known ones"
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("imu_topic:=/imu", "set imu_calibration as well"),
        ("imu_calibration:=imu.yaml", "set imu_topic as well"),
    ],
)
def test_half_of_an_imu_is_refused(given: str, words: str) -> None:
    command = [sys.executable, "-m", "d2_ros.node.mapper_node", "--ros-args", "-p", given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 2
    assert words in done.stderr
