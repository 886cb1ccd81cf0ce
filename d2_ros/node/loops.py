"""One camera's places: keyframes looked up beside the frames, and told where they are known."""

from __future__ import annotations

import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from geometry_msgs.msg import PoseWithCovarianceStamped
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from d2_ros.camera import Camera
from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.node.messages import make_cloud, make_pose_with_covariance
from d2_ros.node.outputs import OUTPUT_QOS, destroy_publishers
from d2_ros.node.status import CameraStatus
from d2_ros.places.keeper import Keeper
from d2_ros.places.loops import loop_pose, loop_rows
from d2_ros.places.memory import PlaceMemory
from d2_ros.places.place import Place
from d2_ros.places.revisit import Revisit
from d2_ros.places.storage import load_places, save_places
from d2_ros.places.vlad import load_vocabulary
from d2_ros.records import FrameResult

BACKLOG = 10
"""Keyframes that may wait to be looked up; where more do, the next one is left out and counted."""


class Loops:
    """Topics ``~/<camera>/loops`` and ``~/<camera>/loop_pose``, and what they come from.

    Keyframes are looked up in a thread of their own; with ``input.qos: replay`` each is waited for.

    Parameters
    ----------
    node, camera, config, status
        Who publishes, for which camera, with which parameters; where keyframes are counted.

    Raises
    ------
    D2RosError
        If faiss is missing, or the places of other runs cannot be read.
    """

    def __init__(
        self, node: LifecycleNode, camera: str, config: Config, status: CameraStatus
    ) -> None:
        self._node, self._camera, self._status, self._config = node, camera, status, config
        self._vocabulary = load_vocabulary()
        folder = config.places.folder
        self._path = Path(folder) / f"{camera}.places" if folder else None
        known = self._path is not None and self._path.is_file()
        self._keeper = self._open(self._stored() if known else [])
        self._clouds = node.create_lifecycle_publisher(PointCloud2, f"~/{camera}/loops", OUTPUT_QOS)
        self._poses = node.create_lifecycle_publisher(
            PoseWithCovarianceStamped, f"~/{camera}/loop_pose", OUTPUT_QOS
        )
        self._thread = ThreadPoolExecutor(1, "d2_places")
        self._pending: list[Future[None]] = []

    def take(
        self, header: Header, image: NDArray[Any], result: FrameResult, camera: Camera | None
    ) -> None:
        """Have a frame looked up if it is a keyframe; `header` is the image's own."""
        if not result.is_keyframe:
            return
        self._pending = [future for future in self._pending if not future.done()]
        if len(self._pending) >= BACKLOG:
            self._status.count("not_looked_up")
            return
        self._pending.append(self._thread.submit(self._look, header, image, result, camera))
        if self._config.input.qos == "replay":
            self._pending[-1].result()

    def begin_run(self) -> None:
        """Count what follows as another run: time has jumped back."""
        self._thread.submit(lambda: self._keeper.begin_run())

    def save(self) -> str:
        """Write all places to the file of this camera; say what was written, and where.

        Raises
        ------
        D2RosError
            If there is no folder, nothing to write, or it cannot be written.
        """
        path = self._file()
        path.parent.mkdir(parents=True, exist_ok=True)

        def write() -> int:
            places = self._keeper.memory.places
            save_places(path, places, self._vocabulary)
            return len(places)

        return f"{self._thread.submit(write).result()} places of {self._camera} in {path}"

    def load(self) -> str:
        """Know the places of the file instead of those so far; say how many, and whence.

        Raises
        ------
        D2RosError
            If there is no folder, or its file cannot be read: then all is as it was.
        """
        path = self._file()

        def read() -> int:
            self._keeper = self._open(self._stored())
            return len(self._keeper.memory)

        return f"{self._thread.submit(read).result()} places of {self._camera} from {path}"

    def destroy(self) -> None:
        """End the thread and remove the publishers from the node."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        destroy_publishers(self._node, (self._clouds, self._poses))

    def _open(self, known: list[Place]) -> Keeper:
        return Keeper(PlaceMemory(known), self._vocabulary, self._config)

    def _stored(self) -> list[Place]:
        return load_places(self._file(), self._vocabulary)

    def _file(self) -> Path:
        if self._path is None:
            raise D2RosError("parameter places.folder is empty; set it to a folder of places")
        return self._path

    def _look(
        self, header: Header, image: NDArray[Any], result: FrameResult, camera: Camera | None
    ) -> None:
        try:
            found = self._keeper.take(result, image, camera)
            if found is not None:
                self._publish(header, found)
        except Exception as error:  # frames go on without
            known = isinstance(error, D2RosError)
            reason = str(error) if known else traceback.format_exc()
            if self._status.refuse("not_looked_up", str(error)):
                self._node.get_logger().warning(f"{self._camera}: keyframe not looked up: {reason}")

    def _publish(self, header: Header, found: Revisit) -> None:
        self._status.count("loops")
        pose = loop_pose(found)
        if pose is not None:
            self._poses.publish(make_pose_with_covariance(header, *pose))
        self._clouds.publish(make_cloud(header, loop_rows(found)))
