"""The node ``d2_mapper``: the front-end's topics in, odometry and a map out."""

from __future__ import annotations

import sys
import traceback
from collections import deque
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Imu, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from d2_ros.camera import right_of
from d2_ros.config import with_values
from d2_ros.errors import D2RosError
from d2_ros.imu import ImuCalibration, read_imu_calibration
from d2_ros.mapper.config import MapperConfig
from d2_ros.mapper.inbox import Inbox
from d2_ros.mapper.mapper import Mapper
from d2_ros.mapper.observations import Right
from d2_ros.node.calibration import Calibration
from d2_ros.node.diagnostics import make_array, make_status, process_memory_mb
from d2_ros.node.executor import run_node
from d2_ros.node.inputs import INFO_QOS, LATCHED, LATCHED_INFO_QOS, LOOK_PERIOD, WaitWhile
from d2_ros.node.mailbox import Mailbox, Worker
from d2_ros.node.mapper_outputs import MapperOutputs
from d2_ros.node.messages import stamp_of
from d2_ros.node.parameters import declare_all, overrides
from d2_ros.records import FEATURES, LOOPS, STEREO, TRACKS, landmark_rows, unpack
from d2_ros.sources.imu import sample_of
from d2_ros.sources.ply import ply_bytes
from d2_ros.sources.trajectories import tum_lines

LAYOUTS = {"features": FEATURES, "tracks": TRACKS, "stereo": STEREO, "loops": LOOPS}
CAMERA_INFO, RIGHT_CAMERA_INFO = "camera/camera_info", "right/camera_info"
INPUT_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
IMU_QOS = QoSProfile(depth=10_000, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Samples wait for the worker's next message."""

INFO_PATIENCE = 2.0
"""Seconds for which the first message waits for its camera's calibration."""

DIAGNOSTICS_PERIOD = 1.0
STOP_PATIENCE = 1.0


class MapperNode(Node):
    """Hands messages over to one worker thread, which runs the mapper and publishes.

    A message waits in the middleware until the one before it on its topic has been taken.

    Raises
    ------
    D2RosError
        If a parameter is unknown or invalid.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("d2_mapper", **kwargs)
        try:
            self.config = with_values(MapperConfig(), overrides(self), "config/mapper.yaml lists")
            calibration = _imu_calibration(self.config)
        except D2RosError:
            self.destroy_node()
            raise
        declare_all(self, self.config)
        self.mapper = Mapper(self.config, calibration)
        self._lock = Lock()  # of the mapper: the services are called in the executor's thread
        # Played fast, the few `tracks` would overtake the many `features`: they wait for theirs.
        self._inbox: Inbox[tuple[Header, Any]] = Inbox(self.config.stereo)
        self._last_error, self._failed, self._uncalibrated = "", 0, 0
        self._calibrations = {CAMERA_INFO: Calibration(self.config.rectified)}
        if self.config.stereo:
            self._calibrations[RIGHT_CAMERA_INFO] = Calibration(self.config.rectified)
        odom_frame = self.config.odom_frame if self.config.loops else self.config.frame
        self._outputs = MapperOutputs(self, self.config.frame, odom_frame, self.config.path_length)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_service(Trigger, "~/save_map", self._on_save)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self._mailbox: Mailbox[PointCloud2] = Mailbox()
        self._worker = Worker(self._mailbox, self._handle, self._wake)
        wanted = {"stereo": self.config.stereo, "loops": self.config.loops}
        for topic in (topic for topic in LAYOUTS if wanted.get(topic, True)):
            self.create_subscription(
                PointCloud2,
                f"d2_frontend/camera/{topic}",
                partial(self._receive, topic),
                INPUT_QOS,
                callback_group=WaitWhile(partial(self._mailbox.full, topic)),
            )
        for topic, known in self._calibrations.items():
            self.create_subscription(CameraInfo, topic, known.receive, INFO_QOS)
        self._first = list(self._calibrations.values())
        self._samples: deque[Imu] = deque(maxlen=IMU_QOS.depth)
        if self.config.imu_topic:
            self.create_subscription(Imu, self.config.imu_topic, self._on_imu, IMU_QOS)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # use_sim_time may stand still
        self.create_timer(DIAGNOSTICS_PERIOD, self.publish_diagnostics, clock=steady)
        self._look = self.create_timer(LOOK_PERIOD, self._look_for_latched, clock=steady)
        self.get_logger().info("waiting for d2_frontend")

    def _receive(self, topic: str, message: PointCloud2) -> None:
        self._mailbox.put(topic, message)

    def _on_imu(self, message: Imu) -> None:
        self._samples.append(message)

    def _wake(self) -> None:
        if self.executor is not None:
            self.executor.wake()

    def _look_for_latched(self) -> None:
        """Also hear a latched camera_info, where somebody offers one, until any has come."""
        waiting = 0
        for topic, calibration in self._calibrations.items():
            publishers = self.get_publishers_info_by_topic(self.resolve_topic_name(topic))
            latched = any(info.qos_profile.durability == LATCHED for info in publishers)
            if latched and not calibration.arrived:
                receive = calibration.receive
                self.create_subscription(CameraInfo, topic, receive, LATCHED_INFO_QOS)
            waiting += not (latched or calibration.arrived)
        if not waiting:
            self._look.cancel()

    def _handle(self, topic: str, message: PointCloud2) -> None:
        """Let the mapper read a message (worker's thread)."""
        while self._first:  # messages are kept meanwhile, and a best-effort camera_info is not
            self._first.pop().wait(INFO_PATIENCE)
        try:
            fields = [(f.name, f.offset, f.datatype, f.count) for f in message.fields]
            rows = unpack(fields, message.point_step, bytes(message.data), LAYOUTS[topic])
            with self._lock:
                self._update(topic, message.header, rows)
        except Exception as error:  # the thread must go on with the next message
            self._failed += 1
            known = isinstance(error, D2RosError)
            self._last_error = str(error) if known else repr(error)
            trace = "" if known else f"\n{traceback.format_exc()}"
            text = f"{topic} left out: {self._last_error}{trace}"
            self.get_logger().error(text, throttle_duration_sec=10.0)

    def _update(self, topic: str, header: Header, rows: Any) -> None:
        camera = self._calibrations[CAMERA_INFO].camera
        while self._samples:
            sample = self._samples.popleft()
            self.mapper.add_imu(stamp_of(sample.header), sample_of(sample))
        if camera is None:
            self._uncalibrated += 1
            return
        for ready in self._inbox.put(topic, stamp_of(header), (header, rows)):
            stamp, (own, told) = ready.stamp, ready.message
            if ready.topic == "tracks":
                if self.mapper.add_tracks(stamp, told, camera):
                    self._outputs.publish_map(stamp, self.mapper)
                continue
            if ready.topic == "loops":
                if self.mapper.add_loops(stamp, told, camera):
                    self._outputs.publish_map(stamp, self.mapper)
                continue
            right = None if ready.stereo is None else self._right(ready.stereo[1])
            pose = self.mapper.add_features(stamp, told, camera, right)
            if pose is not None:
                T_map_odom = self.mapper.T_map_odom
                self._outputs.publish_pose(stamp, own.frame_id, pose, T_map_odom)

    def _right(self, rows: Any) -> Right | None:
        """What the right camera sees, where its calibration says where it is."""
        left, right = (self._calibrations[name] for name in (CAMERA_INFO, RIGHT_CAMERA_INFO))
        camera, T_left_right = right.camera, right_of(left.mount, right.mount)
        if camera is not None and T_left_right is not None:
            return Right(rows, camera, T_left_right)
        text = "the camera_info of the pair does not say how far apart its cameras are (R and P as "
        self._last_error = text + "a stereo calibration gives them); without it there are no metres"
        self.get_logger().warning(self._last_error, throttle_duration_sec=10.0)
        return None

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            self.mapper.reset()
        response.success, response.message = True, "the map is forgotten; the next one begins"
        return response

    def _on_save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            made = self.mapper.adjusted()
            stamps, poses = made.trajectory.poses()
            marks = made.landmarks
            rows = landmark_rows(marks.ids, marks.places, marks.covariances)
        folder = Path(self.config.folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "trajectory.tum").write_text(tum_lines(stamps, poses), encoding="utf-8")
            (folder / "landmarks.ply").write_bytes(ply_bytes(rows))
        except OSError as error:
            response.message = f"cannot write {folder}: {error.strerror}; set parameter folder"
            return response
        response.success = True
        response.message = f"{len(stamps)} poses and {len(rows)} landmarks in {folder.resolve()}"
        return response

    def publish_diagnostics(self) -> None:
        """Send the state of the map: a warning while a camera is lost or has no calibration."""
        with self._lock:
            mapper, counts = self.mapper, self.mapper.counts
            names = ("frames", "keyframes", "lost", "segments", "restarts", "out_of_order")
            values: dict[str, object] = {name: getattr(counts, name) for name in names}
            values |= {"landmarks": len(mapper.landmarks), "state": mapper.state}
            values |= {"metric": mapper.metric}
            graph = mapper.loops.graph
            values |= {"loops": len(graph.loops), "loops_refused": graph.refused}
            values |= {f"{name}_p50_ms": f"{t:.1f}" for name, t in counts.medians().items()}
        values |= {"failed": self._failed, "last_error": self._last_error}
        values |= {"uncalibrated": self._uncalibrated, "process_memory_mb": process_memory_mb()}
        complaint = "lost" if mapper.state == "lost" else ""
        if self._calibrations[CAMERA_INFO].camera is None and self._uncalibrated:
            complaint = "no calibration: no camera_info that is usable has come"
        level = DiagnosticStatus.WARN if complaint else DiagnosticStatus.OK
        status = make_status(level, "map", complaint or mapper.state, values, "d2_mapper")
        header = Header(stamp=self.get_clock().now().to_msg())
        self._diagnostics.publish(make_array(header, [status]))

    def close(self) -> None:
        """Stop the worker."""
        self._worker.stop(STOP_PATIENCE)
        self._worker.join()
        self.destroy_node()


def _imu_calibration(config: MapperConfig) -> ImuCalibration | None:
    if bool(config.imu_topic) != bool(config.imu_calibration):
        missing = "imu_calibration" if config.imu_topic else "imu_topic"
        raise D2RosError(f"an IMU needs its topic and its calibration; set {missing} as well")
    return read_imu_calibration(Path(config.imu_calibration)) if config.imu_topic else None


def _make() -> tuple[MapperNode, Executor]:
    return MapperNode(), SingleThreadedExecutor()


def main(args: list[str] | None = None) -> int:
    """Run the node; the exit code is 2 where a parameter or an argument is refused."""
    return run_node("d2_mapper", _make, args)


if __name__ == "__main__":
    sys.exit(main())
