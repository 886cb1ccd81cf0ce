"""Fuzzed images, compressed images and calibrations, sent to the real node over DDS."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rclpy.logging import LoggingSeverity
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from d2_ros.node import camera_pipeline
from d2_ros.node.messages import byte_array, make_header
from d2_ros.sources.images import ENCODINGS

COUNT = 100_000 if os.environ.get("D2_ROS_FUZZ") else 600
BATCH = 60
GIBIBYTE = 1 << 30
NAMES = [*ENCODINGS, "", "tiger32", "32FC3", "\x01\x7f", "bayer_rggb12"]
SIZES = [0, 1, 2, 7, 64, 65, 480, 2**16, 10**9, 2**31 - 1, 2**32 - 1]
NUMBERS = [0.0, -0.0, 1.0, -1.0, 50.0, 1e-310, 1e308, float("nan"), float("inf"), -float("inf")]
FILES = [
    cv2.imencode(ending, np.random.default_rng(0).integers(0, 256, shape).astype(kind))[1].tobytes()
    for ending, kind in ((".png", np.uint8), (".png", np.uint16), (".jpg", np.uint8))
    for shape in ((48, 64), (48, 64, 3))
]


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Let no allocation take the process more than a gibibyte beyond what it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + GIBIBYTE, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def fuzzed_image(rng: np.random.Generator, stamp: int) -> Image:
    """Return an image in which any field may be anything; in half of them most of it fits."""
    width, height = (int(size) for size in rng.integers(1, 70, 2))
    encoding = str(rng.choice(NAMES))
    layout = ENCODINGS.get(encoding)
    row = width * layout.channels * np.dtype(layout.depth).itemsize if layout else width
    step = row + int(rng.integers(0, 5))
    length = step * height
    if rng.random() < 0.5:
        change = rng.integers(0, 4)
        width = int(rng.choice(SIZES)) if change == 0 else width
        height = int(rng.choice(SIZES)) if change == 1 else height
        step = int(rng.choice(SIZES)) if change == 2 else step
        length = int(rng.integers(0, 10_000)) if change == 3 else length
    return Image(
        header=make_header(stamp, "x" * int(rng.integers(0, 300))),
        width=width,
        height=height,
        step=step,
        encoding=encoding,
        is_bigendian=int(rng.integers(0, 256)),
        data=byte_array(np.frombuffer(rng.bytes(min(length, 40_000)), np.uint8)),
    )


def fuzzed_file(rng: np.random.Generator, stamp: int) -> CompressedImage:
    """Return a compressed image with a few wounds, or rubbish."""
    content = bytearray(FILES[rng.integers(len(FILES))])
    for _ in range(rng.integers(0, 5)):
        place, length = int(rng.integers(len(content))), int(rng.integers(1, 9))
        # Most of what matters stands in the first bytes.
        place = place % 64 if rng.random() < 0.5 else place
        content[place : place + length] = rng.bytes(length)
    if rng.random() < 0.2:
        del content[int(rng.integers(len(content))) :]
    return CompressedImage(
        header=make_header(stamp, ""),
        format=str(rng.choice(["jpeg", "png", "", "h264", "x" * 1000])),
        data=byte_array(np.frombuffer(bytes(content), np.uint8)),
    )


def fuzzed_info(rng: np.random.Generator) -> CameraInfo:
    """Return a calibration in which any field may be anything."""
    info = CameraInfo(
        width=int(rng.choice(SIZES)),
        height=int(rng.choice(SIZES)),
        distortion_model=str(rng.choice(["plumb_bob", "equidistant", "", "fov", "x" * 1000])),
        d=rng.choice(NUMBERS, rng.integers(0, 20)).tolist(),
        k=rng.choice(NUMBERS, 9),
        p=rng.choice(NUMBERS, 12),
        binning_x=int(rng.choice(SIZES)),
    )
    info.roi.x_offset, info.roi.width = (int(size) for size in rng.choice(SIZES, 2))
    return info


@pytest.mark.parametrize("compressed", [False, True], ids=["raw", "compressed"])
def test_fuzzed_messages_are_processed_or_refused(
    graph: Any, make_node: Any, make_driver: Any, fake: Any, little_memory: None,
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, compressed: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(camera_pipeline, "CALIBRATION_PATIENCE", 0.0)
    node = make_node(input__qos="replay", input__compressed=compressed)
    request.addfinalizer(lambda: node.get_logger().set_level(LoggingSeverity.UNSET))
    node.get_logger().set_level(LoggingSeverity.ERROR)
    node.trigger_configure()
    node.trigger_activate()
    driver = make_driver()
    files = driver.create_publisher(CompressedImage, "camera/image_raw/compressed", 100)
    publisher = files if compressed else driver.images
    graph.wait(lambda: publisher.get_subscription_count() and driver.infos.get_subscription_count())
    status = node._pipelines["camera"].status
    rng = np.random.default_rng(1)
    count = COUNT // 2
    for first in range(0, count, BATCH):
        driver.infos.publish(fuzzed_info(rng) if rng.random() < 0.5 else CameraInfo())
        until = min(first + BATCH, count)
        for number in range(first, until):
            fuzzed = fuzzed_file if compressed else fuzzed_image
            publisher.publish(fuzzed(rng, 10**9 + number))
        graph.wait(lambda n=until: status.counts()["received"] == n)
        graph.wait(lambda: status.counts()["waiting"] == 0)
        for image in fake[0].images:
            assert image.dtype in (np.uint8, np.uint16)
            assert image.ndim == 2 or image.shape[2] == 3
        fake[0].images.clear()
    counts = status.counts()
    print({name: times for name, times in counts.items() if times})
    assert counts["failed"] == 0
    assert counts["processed"] + counts["bad_image"] + counts["bad_calibration"] == count
    assert min(counts["processed"], counts["bad_image"]) > 0.05 * count
