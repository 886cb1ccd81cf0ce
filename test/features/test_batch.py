"""Several cameras' images through the network at once, against one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from d2_ros.config import Config, with_values
from d2_ros.errors import D2RosError
from d2_ros.features.batch import features_of, respond_together
from d2_ros.features.extractor import Extractor
from d2_ros.frontend import FrontEnd
from d2_ros.sources.synthetic import open_synthetic
from d2_ros.timing import Stopwatch


@pytest.fixture(scope="module")
def config() -> Config:
    return with_values(Config(), {"device": "cpu", "precision": "fp32"})


@pytest.fixture(scope="module")
def extractor(config: Config) -> Extractor:
    return Extractor(config)


@pytest.fixture(scope="module")
def frames() -> list[Any]:
    return list(open_synthetic("size=160x120,frames=6,seed=0"))


def test_two_cameras_in_a_batch_give_what_each_gives_alone(
    config: Config, extractor: Extractor, frames: list[Any]
) -> None:
    alone, together = ([FrontEnd(config, extractor) for _ in range(2)] for _ in range(2))
    for first, second in zip(frames[:3], frames[3:], strict=True):
        pair = (first, second)
        results = respond_together(extractor, [frame.image for frame in pair])
        for number, (frame, batched) in enumerate(zip(pair, results, strict=True)):
            one = alone[number].process(frame.image, frame.stamp, frame.camera)
            two = together[number].process(frame.image, frame.stamp, frame.camera, batched)
            # Bit for bit here; what a batch does to the last bits is the libraries' affair.
            assert list(one.timings_ms) == list(two.timings_ms)
            np.testing.assert_array_equal(one.features["track_id"], two.features["track_id"])
            for name in ("u", "v", "u_detected", "v_detected"):
                np.testing.assert_allclose(one.features[name], two.features[name], atol=1e-3)
            np.testing.assert_array_equal(one.matches["index"], two.matches["index"])
            assert one.is_keyframe == two.is_keyframe


def test_images_of_several_sizes_each_get_their_own_response(
    extractor: Extractor, frames: list[Any]
) -> None:
    images = [frames[0].image, np.zeros((64, 96), np.uint8), frames[1].image]
    results = respond_together(extractor, images)
    for image, batched in zip(images, results, strict=True):
        single = extractor.respond([image])[0]
        assert batched.response.values.shape == single.values.shape
        torch.testing.assert_close(batched.response.values, single.values)


def test_times_of_the_batch_are_shared_out_equally(extractor: Extractor, frames: list[Any]) -> None:
    watch = Stopwatch()
    results = respond_together(extractor, [frame.image for frame in frames[:3]], watch)
    assert list(watch.sections_ms) == ["upload", "network"]
    for stage, spent in watch.sections_ms.items():
        assert sum(batched.timings_ms[stage] for batched in results) == pytest.approx(spent)


def test_the_batch_result_of_another_network_is_not_used(
    config: Config, extractor: Extractor, frames: list[Any]
) -> None:
    """As after a fall-back to the CPU between the batch and the second camera's turn."""
    blank = respond_together(Extractor(config), [np.zeros((120, 160), np.uint8)])[0]
    features = features_of(extractor, frames[0].image, blank, Stopwatch())
    expected = extractor.extract([frames[0].image])[0]
    np.testing.assert_array_equal(features.keypoints, expected.keypoints)


def test_an_image_that_cannot_be_used_is_told_before_any_work(extractor: Extractor) -> None:
    with pytest.raises(D2RosError, match="64"):
        respond_together(extractor, [np.zeros((120, 160), np.uint8), np.zeros((9, 9), np.uint8)])
