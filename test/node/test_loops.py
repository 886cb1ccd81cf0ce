"""Loops over DDS: a place that is known again, also by the next run, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import PoseWithCovarianceStamped
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger

from d2_ros import records
from d2_ros.camera import Camera
from d2_ros.node import device
from d2_ros.node.messages import make_camera_info, make_header, stamp_of

pytest.importorskip("faiss", reason="faiss is not installed (extra places)")

SECOND = 1_000_000_000
CAMERA = Camera(320, 240, np.array([[210, 0, 160], [0, 210, 120], [0, 0, 1]]), np.zeros(5))
IMAGE = np.full((240, 320), 90, np.uint8)
LAP = (0.0, 2.0, 60.0, 62.0, 64.0)


@pytest.fixture
def seen(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the front-end see the same 200 points in every image, all of them keyframes."""
    rng = np.random.default_rng(0)
    points = rng.uniform([-3, -2, 4], [3, 2, 9], (200, 3))
    descriptors = np.abs(rng.normal(size=(200, 512))).astype(np.float32)

    def process(front: Any, image: Any, stamp: int, *given: Any) -> records.FrameResult:
        rows = np.zeros(200, records.FEATURES)
        rows["u"], rows["v"] = CAMERA.project(points + np.array([0.02 * stamp / SECOND, 0, 0])).T
        rows["sigma_uu"] = rows["sigma_vv"] = 1.0
        noisy = descriptors + 0.01 * rng.standard_normal(descriptors.shape).astype(np.float32)
        noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
        nothing = np.zeros(0, records.MATCHES)
        return records.FrameResult(stamp, True, rows, nothing, None, noisy, {"network": 1.0})

    monkeypatch.setattr(device.FrontEnd, "process", process)


@pytest.fixture
def run(graph: Any, make_driver: Any) -> Callable[..., Any]:
    """Return a function that lets a node see images at given seconds."""

    def start(node: Any) -> Any:
        graph.run(node.trigger_configure)
        graph.run(node.trigger_activate)
        driver = make_driver()
        driver.listen(PointCloud2, "loops")
        driver.listen(PoseWithCovarianceStamped, "loop_pose")
        graph.wait(driver.connected)
        driver.infos.publish(make_camera_info(make_header(0, "eye"), CAMERA, 320, 240))
        graph.wait(lambda: node._pipelines["camera"].calibration.camera_for(320, 240))
        return driver

    return start


def drive(graph: Any, node: Any, driver: Any, seconds: tuple[float, ...]) -> None:
    for second in seconds:
        before = graph.status(node)["processed"]
        driver.send_image(round(second * SECOND), IMAGE)
        graph.wait(lambda before=before: graph.status(node)["processed"] == before + 1)


def read(cloud: PointCloud2) -> Any:
    fields = [(field.name, field.offset, field.datatype, field.count) for field in cloud.fields]
    return records.unpack(fields, cloud.point_step, cloud.data, records.LOOPS, False)


@pytest.mark.usefixtures("seen")
def test_a_place_is_known_again_in_this_run_and_the_next(
    graph: Any, make_node: Any, run: Any, tmp_path: Path
) -> None:
    given = {"places__enabled": True, "places__folder": str(tmp_path), "input__qos": "replay"}
    node = make_node(**given)
    driver = run(node)
    drive(graph, node, driver, LAP)
    graph.wait(lambda: driver.heard["loops"] and driver.heard["loop_pose"])
    (cloud,), (pose,) = driver.heard["loops"], driver.heard["loop_pose"]
    assert stamp_of(cloud.header) == stamp_of(pose.header) == 62 * SECOND
    assert cloud.header.frame_id == pose.header.frame_id == "left_optical"
    rows = read(cloud)
    assert len(rows) > 100
    assert set(rows["keyframe_sec"]) <= {0, 2}
    assert set(rows["session"]) == {0}
    np.testing.assert_array_equal(rows["index"], rows["keyframe_index"])  # the same points
    where, covariance = pose.pose.pose.position, np.reshape(pose.pose.covariance, (6, 6))
    assert where.x == pytest.approx(1, abs=0.01)  # the points have moved along x
    assert np.linalg.eigvalsh(covariance).min() > -1e-12
    save = driver.create_client(Trigger, "/d2_frontend/save_places")
    answer = graph.call(save, Trigger.Request())
    assert (answer.success, answer.message) == (
        True, f"5 places of camera in {tmp_path / 'camera.places'}"
    )  # fmt: skip
    assert graph.status(node)["loops"] == 1

    graph.run(node.trigger_deactivate)
    graph.run(node.trigger_cleanup)
    graph.run(node.trigger_configure)
    graph.run(node.trigger_activate)
    driver.infos.publish(make_camera_info(make_header(0, "eye"), CAMERA, 320, 240))
    graph.wait(lambda: node._pipelines["camera"].calibration.camera_for(320, 240))
    driver.heard["loops"].clear()
    drive(graph, node, driver, (100.0, 102.0))
    graph.wait(lambda: driver.heard["loops"])
    assert set(read(driver.heard["loops"][0])["session"]) == {1}


@pytest.mark.usefixtures("seen")
def test_places_that_cannot_be_saved_or_loaded_are_told(
    graph: Any, make_node: Any, run: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no places")
    node = make_node(places__enabled=True, places__folder=str(tmp_path / "file" / "below"))
    driver = run(node)
    drive(graph, node, driver, (0.0,))
    for verb, words in (("save", "Not a directory"), ("load", "is no file")):
        client = driver.create_client(Trigger, f"/d2_frontend/{verb}_places")
        answer = graph.call(client, Trigger.Request())
        assert not answer.success
        assert words in answer.message
    drive(graph, node, driver, (1.0,))  # it goes on


@pytest.mark.usefixtures("seen")
def test_a_file_that_is_damaged_keeps_the_node_from_starting_with_it(
    graph: Any, make_node: Any, tmp_path: Path
) -> None:
    (tmp_path / "camera.places").write_bytes(b"no places")
    node = make_node(places__enabled=True, places__folder=str(tmp_path))
    graph.run(node.trigger_configure)
    assert node._state == "unconfigured"
    assert "camera.places is no file of places" in node._last_error


@pytest.mark.usefixtures("seen")
def test_without_places_there_is_no_topic_and_the_services_say_so(
    graph: Any, make_node: Any, run: Any
) -> None:
    node = make_node()
    driver = run(node)
    names = {name for name, _ in driver.get_topic_names_and_types()}
    publishers = driver.get_publishers_info_by_topic("/d2_frontend/camera/loops")
    assert "/d2_frontend/camera/features" in names
    assert publishers == []
    answer = graph.call(
        driver.create_client(Trigger, "/d2_frontend/save_places"), Trigger.Request()
    )
    assert not answer.success
    assert "places.enabled" in answer.message


@pytest.mark.usefixtures("seen")
def test_keyframes_that_come_too_fast_are_left_out_and_counted(
    graph: Any, make_node: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threading import Event

    from d2_ros.node import loops

    gate = Event()
    monkeypatch.setattr(loops, "BACKLOG", 2)
    monkeypatch.setattr(loops.Keeper, "take", lambda *given: gate.wait(20) and None)
    node = make_node(places__enabled=True)
    driver = run(node)
    drive(graph, node, driver, (0.0, 1.0, 2.0, 3.0))
    assert graph.status(node)["not_looked_up"] == 2
    gate.set()


@pytest.mark.usefixtures("seen")
def test_what_goes_wrong_in_a_look_is_counted_and_frames_go_on(
    graph: Any, make_node: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from d2_ros.node import loops

    def fails(*given: Any) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(loops.Keeper, "take", fails)
    node = make_node(places__enabled=True, input__qos="replay")
    driver = run(node)
    drive(graph, node, driver, (0.0, 1.0))
    graph.wait(lambda: graph.status(node)["not_looked_up"] == 2)
