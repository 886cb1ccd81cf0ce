"""Pictures that give a front-end nothing to hold on to, through the real node and network."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
from sensor_msgs.msg import PointCloud2

from d2_ros.node import camera_pipeline
from d2_ros.node.messages import make_header, make_image
from d2_ros.sources import open_source

SIZE = (72, 96)
SECOND = 1_000_000_000
RNG = np.random.default_rng(0)
TEXTURE = RNG.integers(0, 256, (9, 12), np.uint8).repeat(8, 0).repeat(8, 1)


@pytest.fixture
def show(graph: Any, make_node: Any, make_driver: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that shows pictures to the real node and returns what it says of them."""
    monkeypatch.setattr(camera_pipeline, "CALIBRATION_PATIENCE", 0.0)

    def go(*pictures: Any, **parameters: Any) -> Any:
        node = make_node(**{"input__qos": "replay", "threads": 1, **parameters})
        node.trigger_configure()
        node.trigger_activate()
        driver = make_driver()
        features = driver.listen(PointCloud2, "features")
        matches = driver.listen(PointCloud2, "matches")
        tracks = driver.listen(PointCloud2, "tracks")
        graph.wait(driver.connected)
        graph.wait(lambda: node.count_subscribers("/d2_frontend/camera/features") == 1)
        for number, picture in enumerate(pictures, 1):
            driver.images.publish(make_image(make_header(number * SECOND, "optical"), picture))
        graph.wait(
            lambda: (
                graph.status(node)["received"] == len(pictures)
                and not graph.status(node)["waiting"]
            )
        )
        graph.wait(lambda: len(features) == len(matches) == graph.status(node)["processed"])
        return graph.status(node), features, matches, tracks

    return go


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(np.zeros(SIZE, np.uint8), id="black"),
        pytest.param(np.full(SIZE, 255, np.uint8), id="white"),
        pytest.param(np.full(SIZE, 77, np.uint8), id="constant gray"),
        pytest.param(np.full((*SIZE, 3), (0, 0, 255), np.uint8), id="constant red"),
        pytest.param(np.full(SIZE, 65535, np.uint16), id="white in 16 bit"),
        pytest.param(np.clip(TEXTURE.astype(int) * 8, 0, 255).astype(np.uint8), id="saturated"),
        pytest.param(RNG.integers(0, 256, SIZE, np.uint8), id="noise"),
    ],
)
def test_a_picture_without_a_hold(show: Any, picture: Any) -> None:
    status, features, _, _ = show(TEXTURE, picture, picture, TEXTURE)
    assert status["processed"] == 4
    assert status["dropped"] == 0
    assert features[0].width > 0
    assert features[3].width > 0


def test_no_keypoints_give_empty_messages(show: Any) -> None:
    status, features, matches, _ = show(*[np.zeros(SIZE, np.uint8)] * 3)
    assert status["processed"] == 3
    assert [message.width for message in features] == [0, 0, 0]
    assert [message.width for message in matches] == [0, 0, 0]
    assert [len(message.fields) for message in features] == [14, 14, 14]


def test_a_camera_that_teleports_starts_new_tracks(show: Any) -> None:
    frames = [frame.image for frame in open_source("synthetic:size=160x120,frames=3,seed=0")]
    elsewhere = np.ascontiguousarray(np.rot90(frames[0], 2)) // 2 + 100
    status, features, _, _ = show(frames[0], frames[1], elsewhere, elsewhere, frames[2])
    assert status["processed"] == 5
    assert status["dropped"] == 0

    def tracks(message: Any) -> set[int]:
        rows = np.frombuffer(message.data, np.uint8).reshape(message.width, -1)
        field = next(item for item in message.fields if item.name == "track_id")
        ids = np.ascontiguousarray(rows[:, field.offset : field.offset + 4]).view("<u4")
        return set(ids.ravel().tolist()) - {0}

    before, after, then = tracks(features[1]), tracks(features[2]), tracks(features[3])
    assert len(before) > 20
    assert len(after & before) < 0.2 * len(before)
    assert len(then) > 20


@pytest.mark.parametrize("size", [(32, 24), (63, 640), (1, 1)])
def test_images_too_small_for_the_network_are_refused(show: Any, size: Any) -> None:
    status, features, _, _ = show(np.zeros(size, np.uint8), TEXTURE)
    assert (status["processed"], status["refused"]) == (1, 1)
    assert features[0].width > 0


def test_a_change_of_resolution_goes_on_with_a_new_window(show: Any) -> None:
    large = TEXTURE.repeat(2, 0).repeat(2, 1)
    status, _, matches, _ = show(TEXTURE, TEXTURE, large, large, TEXTURE)
    assert (status["processed"], status["resets"]) == (5, 2)
    assert matches[1].width > 0
    assert matches[2].width == matches[4].width == 0


def test_cleaning_up_gives_the_network_and_the_window_back(
    graph: Any, make_node: Any, make_driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera_pipeline, "CALIBRATION_PATIENCE", 0.0)
    node = make_node(input__qos="replay", threads=1)
    driver = make_driver()
    for number in (1, 2):
        node.trigger_configure()
        node.trigger_activate()
        graph.wait(driver.connected)
        driver.images.publish(make_image(make_header(number * SECOND, "optical"), TEXTURE))
        graph.wait(lambda: graph.status(node)["processed"] == 1)
        frontend = node._device._frontends[0]
        held = [weakref.ref(frontend), weakref.ref(frontend.extractor.network)]
        del frontend
        graph.run(node.trigger_deactivate)
        graph.run(node.trigger_cleanup)
        assert [reference() for reference in held] == [None, None]
