"""Isolation of the ROS graph and a stand-in for the front-end, for the tests of the node."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

# Before rclpy starts: parallel runs on one machine must not hear each other. Domains up to
# 101 are safe from the kernel's ephemeral ports.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")

from lifecycle_msgs.srv import ChangeState  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402

from d2_ros import records  # noqa: E402
from d2_ros.camera import Camera  # noqa: E402
from d2_ros.config import Config  # noqa: E402
from d2_ros.errors import D2RosError  # noqa: E402
from d2_ros.node.messages import make_camera_info, make_header, make_image  # noqa: E402

PATIENCE = 20.0
CAMERA = Camera(64, 48, np.array([[50, 0, 31.5], [0, 50, 23.5], [0, 0, 1]]), np.zeros(5))


class FakeFrontEnd:
    """Takes frames like the real front-end; one keypoint per eight pixels of width."""

    made: list[FakeFrontEnd] = []  # noqa: RUF012

    def __init__(self, config: Config, extractor: Any, workers: Any = None) -> None:
        self.config = config
        self.stamps: list[int] = []
        self.cameras: list[Camera | None] = []
        self.configs: list[Config] = []
        self.images: list[Any] = []
        self.batched: list[Any] = []
        self.resets = 0
        self.gate = threading.Event()
        self.gate.set()
        FakeFrontEnd.made.append(self)

    def process(
        self, image: Any, stamp: int, camera: Camera | None = None, batched: Any = None
    ) -> records.FrameResult:
        assert self.gate.wait(PATIENCE)
        self.stamps.append(stamp)
        self.cameras.append(camera)
        self.configs.append(self.config)
        self.images.append(image)
        self.batched.append(batched)
        return make_result(stamp, image.shape[1] // 8, is_keyframe=len(self.stamps) % 2 == 1)

    @property
    def settled(self):
        return self.config

    def reset(self) -> None:
        self.resets += 1

    def use(self, extractor: Any) -> None:
        self.extractor = extractor
        self.reset()


class FakeExtractor:
    """Has a device and does nothing."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.device = "cpu" if config.device == "auto" else config.device
        if config.weights != "off_the_shelf":
            raise D2RosError(f"weights {config.weights} not found")

    def extract(self, images: Any) -> None:
        pass

    def respond(self, images: Any, watch: Any = None) -> list[Any]:
        self.batches = [*getattr(self, "batches", []), len(images)]
        return [f"response to {image[0, 0]}" for image in images]


def make_result(stamp: int, count: int, is_keyframe: bool) -> records.FrameResult:
    """Return a result whose every field holds other numbers."""
    rng = np.random.default_rng(count)

    def fill(layout: np.dtype, rows: int) -> Any:
        table = np.zeros(rows, layout)
        for name in layout.names or ():
            table[name] = rng.integers(0, 200, rows)
        return table

    descriptors = np.abs(rng.normal(size=(count, 512))).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return records.FrameResult(
        stamp,
        is_keyframe,
        fill(records.FEATURES, count),
        fill(records.MATCHES, 2 * count),
        fill(records.TRACKS, 3 * count) if is_keyframe else None,
        descriptors,
        {"network": 1.0},
    )


class Driver(Node):
    """A camera driver and a listener in one."""

    calibration = CAMERA

    def __init__(self, camera: str = "camera", latched: bool = False) -> None:
        super().__init__(f"driver_{camera.replace('/', '_')}", use_global_arguments=False)
        info_qos = QoSProfile(depth=10)
        if latched:
            info_qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        self.images = self.create_publisher(Image, f"{camera}/image_raw", 100)
        self.infos = self.create_publisher(CameraInfo, f"{camera}/camera_info", info_qos)
        self.heard: dict[str, list[Any]] = {}
        self._camera = camera

    def listen(self, kind: type, topic: str) -> list[Any]:
        messages: list[Any] = self.heard.setdefault(topic, [])
        name = topic if topic.startswith("/") else f"/d2_frontend/{self._camera}/{topic}"
        self.create_subscription(kind, name, messages.append, 100)
        return messages

    def send(self, stamp: int, shape: tuple[int, ...] = (48, 64), value: int = 0) -> None:
        self.send_image(stamp, np.full(shape, value, np.uint8))

    def send_image(self, stamp: int, image: Any) -> None:
        self.images.publish(make_image(make_header(stamp, "left_optical"), image))

    def send_info(self, camera: Camera = CAMERA) -> None:
        self.infos.publish(make_camera_info(make_header(0, "left_optical"), camera, 64, 48))

    def connected(self) -> bool:
        # camera_info has two subscriptions, one of which only hears latched publishers.
        return self.images.get_subscription_count() > 0 and self.infos.get_subscription_count() > 0


class Graph:
    """Nodes spun in a thread of their own until the test ends."""

    def __init__(self) -> None:
        self.executor = SingleThreadedExecutor()
        self.nodes: list[Any] = []
        self._changers: dict[tuple[Any, str], Any] = {}
        self._thread = threading.Thread(target=self.executor.spin, daemon=True)

    def add(self, node: Any) -> Any:
        self.executor.add_node(node)
        self.nodes.append(node)
        if not self._thread.is_alive():
            self._thread.start()
        return node

    def call(self, client: Any, request: Any) -> Any:
        """Call a service and return its response."""
        assert client.wait_for_service(PATIENCE)
        future = client.call_async(request)
        self.wait(future.done)
        return future.result()

    def status(self, node: Any, camera: str = "camera") -> dict[str, int]:
        """Return the counts of one of the node's cameras."""
        counts: dict[str, int] = node._pipelines[camera].status.counts()
        return counts

    def change(self, node: Any, manager: Any, transition: str) -> bool:
        """Ask for a transition over its service; return whether it succeeded."""
        name = f"{node.get_fully_qualified_name()}/change_state"
        # One client: a node may answer a new one before it has heard that it listens.
        if (manager, name) not in self._changers:
            self._changers[manager, name] = manager.create_client(ChangeState, name)
        client = self._changers[manager, name]
        request = ChangeState.Request()
        request.transition.label = transition
        success: bool = self.call(client, request).success
        return success

    def run(self, function: Callable[[], Any]) -> Any:
        """Run a function in the executor's thread, as services do, and return its result.

        What destroys publishers must not run beside an executor that is about to wait for them.
        """
        task = self.executor.create_task(function)
        self.wait(task.done)
        return task.result()

    def wait(self, condition: Callable[[], Any]) -> None:
        """Wait until `condition` holds, fail if it never does."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "the condition never came true"
            time.sleep(0.01)

    def close(self) -> None:
        self.executor.shutdown()
        if self._thread.is_alive():
            self._thread.join()
        for node in self.nodes:
            getattr(node, "close", node.destroy_node)()


@pytest.fixture(scope="session", autouse=True)
def _ros() -> Iterator[None]:
    rclpy.init(args=[])
    yield
    rclpy.try_shutdown()


@pytest.fixture
def graph() -> Iterator[Graph]:
    made = Graph()
    yield made
    made.close()


@pytest.fixture
def make_driver(graph: Graph) -> Callable[..., Driver]:
    """Return a function that makes a :class:`Driver` and spins it."""
    return lambda *given, **named: graph.add(Driver(*given, **named))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[FakeFrontEnd]:
    """Replace the front-end by the fake; the list holds those that the node makes."""
    from d2_ros.node import device

    monkeypatch.setattr(FakeFrontEnd, "made", [])
    monkeypatch.setattr(device, "FrontEnd", FakeFrontEnd)
    monkeypatch.setattr(device, "Extractor", FakeExtractor)
    return FakeFrontEnd.made


@pytest.fixture
def fail_first() -> Callable[[Any, str, list[Exception]], None]:
    """Return a function that lets a method raise `errors` one after another before it works."""

    def put(owner: Any, method: str, errors: list[Exception]) -> None:
        real = getattr(owner, method)

        def call(*given: Any) -> Any:
            if errors:
                raise errors.pop(0)
            return real(*given)

        setattr(owner, method, call)

    return put


@pytest.fixture
def make_node(graph: Graph) -> Callable[..., Any]:
    """Return a function that makes a node with the given parameters and spins it."""

    def make(**values: Any) -> Any:
        from d2_ros.node.frontend_node import FrontEndNode

        given = [Parameter(name.replace("__", "."), value=v) for name, v in values.items()]
        return graph.add(FrontEndNode(parameter_overrides=given, use_global_arguments=False))

    return make


@pytest.fixture
def result() -> Callable[..., records.FrameResult]:
    return make_result
