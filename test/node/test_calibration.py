"""CameraInfo as it comes: jittering, from two publishers, without a size; wide fisheyes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import CameraInfo, PointCloud, PointCloud2

from d2_ros.node.messages import make_camera_info, make_header
from d2_ros.records import FEATURES, TRACKS
from d2_ros.sources import open_source

SECOND = 1_000_000_000
ZERO = CameraInfo(width=64, height=48)


def info(driver: Any, **changes: Any) -> CameraInfo:
    message = make_camera_info(make_header(0, ""), driver.calibration, 64, 48)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def moved(driver: Any, pixels: float) -> CameraInfo:
    message = info(driver)
    message.k[2] += pixels
    return message


@pytest.fixture
def feed(graph: Any, make_node: Any, make_driver: Any, fake: Any) -> Any:
    """Return a function that sends calibrations, each before a frame of its own."""

    def go(messages: Callable[[Any], Iterator[CameraInfo]]) -> Any:
        node = make_node(input__qos="replay")
        node.trigger_configure()
        node.trigger_activate()
        driver = make_driver()
        said = driver.listen(DiagnosticArray, "/diagnostics")
        graph.wait(driver.connected)
        calibration = node._pipelines["camera"].calibration
        for number, message in enumerate(messages(driver), 1):
            message.header = make_header(0, "")
            driver.infos.publish(message)
            graph.wait(lambda m=message: calibration._message == m)
            driver.send(number * SECOND)
            graph.wait(lambda n=number: graph.status(node)["processed"] == n)
        return node, fake[0], said

    return go


def entry(said: list[Any], of: str = "d2_frontend: camera") -> Any:
    return next(status for status in said[-1].status if status.name == of)


def test_a_calibration_that_jitters_keeps_the_window(feed: Any, graph: Any) -> None:
    jitter = np.random.default_rng(0).uniform(-0.01, 0.01, 12)
    node, front, said = feed(lambda driver: (moved(driver, step) for step in jitter))
    assert front.resets == graph.status(node)["resets"] == 0
    assert len({id(camera) for camera in front.cameras}) == 1  # that of the window
    said.clear()
    graph.wait(lambda: said)
    assert entry(said).level == DiagnosticStatus.OK


def test_zeros_between_two_equal_calibrations_keep_the_window_and_warn(
    feed: Any, graph: Any, capfd: Any
) -> None:
    node, front, said = feed(lambda driver: iter([info(driver), ZERO] * 4))
    assert front.resets == graph.status(node)["resets"] == 0
    assert [camera is None for camera in front.cameras] == [False, True] * 4
    assert graph.status(node)["calibration_lost"] == 4
    graph.wait(lambda: any("calibration_lost" in entry([heard]).message for heard in said))
    assert capfd.readouterr().err.count("camera_info has become zero") == 1


def test_two_publishers_of_different_calibrations_are_a_warning(
    feed: Any, graph: Any, capfd: Any
) -> None:
    node, front, said = feed(lambda driver: (moved(driver, n % 2) for n in range(10)))
    assert front.resets == graph.status(node)["resets"] == 9
    said.clear()
    graph.wait(lambda: said)
    assert entry(said).level == DiagnosticStatus.WARN
    assert "3 resets in 3 frames, the last because the calibration changed" in entry(said).message
    # Once as it happens, once as it piles up, then not for a while.
    assert capfd.readouterr().err.count("window dropped because the calibration changed") == 2


def test_a_calibration_that_drifts_is_held_against_that_of_the_window(
    feed: Any, graph: Any
) -> None:
    # 0.02 px a message: no step shows, 0.05 px do.
    node, front, _ = feed(lambda driver: (moved(driver, 0.02 * n) for n in range(10)))
    assert front.resets == graph.status(node)["resets"] == 3
    used = [camera.matrix[0, 2] - 31.5 for camera in front.cameras]
    np.testing.assert_allclose(used, [0, 0, 0, 0.06, 0.06, 0.06, 0.12, 0.12, 0.12, 0.18])


def test_a_warning_of_resets_ends_when_the_window_lives_on(feed: Any, graph: Any) -> None:
    node, _, said = feed(lambda driver: (moved(driver, n % 2 if n < 6 else 0) for n in range(40)))
    assert graph.status(node)["resets"] == 6
    said.clear()
    graph.wait(lambda: len(said) > 1)
    assert entry(said).level == DiagnosticStatus.OK


def test_camera_info_without_a_size_is_taken_for_the_images_and_that_is_said_once(
    feed: Any, graph: Any, capfd: Any
) -> None:
    node, front, _ = feed(lambda driver: (info(driver, width=0, height=0) for _ in range(3)))
    assert [(camera.width, camera.height) for camera in front.cameras] == [(64, 48)] * 3
    assert graph.status(node)["resets"] == 0
    said = capfd.readouterr().err
    assert said.count("camera_info has no size; taking the images', 64x48") == 1


@pytest.mark.parametrize(
    ("changes", "model"),
    [
        pytest.param({"d": [0.1, 0, 0, 0, 0, 0, 0, 0]}, "plumb_bob", id="padded to 8"),
        pytest.param({"d": [0.1] + [0.0] * 11}, "plumb_bob", id="padded to 12"),
        pytest.param({"distortion_model": "none", "d": []}, "plumb_bob", id="none"),
        pytest.param({"distortion_model": "fisheye", "d": [0.1] * 4}, "equidistant", id="fisheye"),
        pytest.param(
            {"distortion_model": "equidistant", "d": [0.1] * 4 + [0.0]}, "equidistant", id="5"
        ),
    ],
)
def test_the_node_takes_calibrations_as_drivers_send_them(
    feed: Any, graph: Any, changes: Any, model: str
) -> None:
    node, front, _ = feed(lambda driver: iter([info(driver, **changes)]))
    assert front.cameras[0].model == model
    assert graph.status(node)["bad_calibration"] == 0


def test_keypoints_beyond_90_degrees_have_no_bearing_and_no_place_in_feature_tracks(
    graph: Any, make_node: Any, make_driver: Any
) -> None:
    # The real front-end; the lens reaches 90 degrees at 50 px from the middle of 160x120.
    focal = 50 / (np.pi / 2)
    fisheye = CameraInfo(
        width=160, height=120, distortion_model="equidistant", d=[0.0] * 4,
        k=[focal, 0.0, 79.5, 0.0, focal, 59.5, 0.0, 0.0, 1.0],
    )  # fmt: skip
    node = make_node(input__qos="replay", output__vins_format="fusion", threads=1)
    node.trigger_configure()
    node.trigger_activate()
    driver = make_driver()
    features, tracks = driver.listen(PointCloud2, "features"), driver.listen(PointCloud2, "tracks")
    vins = driver.listen(PointCloud, "feature_tracks")
    graph.wait(driver.connected)
    graph.wait(lambda: node.count_subscribers("/d2_frontend/camera/feature_tracks") == 1)
    driver.infos.publish(fisheye)
    for frame in open_source("synthetic:size=160x120,frames=4,seed=0"):
        driver.send_image(frame.stamp, frame.image)
    graph.wait(lambda: len(features) == len(vins) == 4)
    graph.wait(lambda: tracks)
    heard = [*((message, FEATURES) for message in features), *((m, TRACKS) for m in tracks)]
    for message, layout in heard:
        rows = np.frombuffer(message.data, layout)
        far = np.hypot(rows["u"] - 79.5, rows["v"] - 59.5) >= 50
        assert 0 < far.mean() < 1
        assert not message.is_dense
        for axis in "xyz":
            assert np.isnan(rows[axis][far]).all()
            assert np.isfinite(rows[axis][~far]).all()
        # On its own side of the axis, everywhere.
        assert (rows["x"] * (rows["u"] - 79.5))[~far].min() >= 0
        assert (rows["y"] * (rows["v"] - 59.5))[~far].min() >= 0
    for message in vins:
        u, v = (np.array(message.channels[channel].values) for channel in (2, 3))
        assert len(u)
        assert (np.hypot(u - 79.5, v - 59.5) < 50).all()
        assert all(np.isfinite([point.x, point.y]).all() for point in message.points)
