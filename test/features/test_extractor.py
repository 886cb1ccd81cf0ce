import dataclasses

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d2_ros.config import Config, FeaturesConfig
from d2_ros.errors import D2RosError
from d2_ros.features.device import pick_device, pick_dtype
from d2_ros.features.extractor import Extractor, ResponseMap, describe, redetect


def blob(center, sigma, size=(104, 88)):
    """Gray image of one bright Gaussian at `center` (u, v)."""
    width, height = size
    v, u = np.mgrid[:height, :width]
    square = (u - center[0]) ** 2 + (v - center[1]) ** 2
    return (120 + 130 * np.exp(-square / (2 * sigma**2))).round().astype(np.uint8)


@pytest.fixture(scope="module")
def blurring():
    """An extractor whose every layer only blurs, so that a blob stays one symmetric peak."""
    extractor = Extractor(Config(device="cpu"))
    with torch.no_grad():
        for layer in extractor.network.children():
            layer.weight.fill_(1 / layer.weight[0].numel())
            layer.bias.zero_()
    return extractor


@pytest.fixture(scope="module")
def symmetric():
    """The shipped weights made symmetric, so that no channel prefers a side."""
    extractor = Extractor(Config(device="cpu"))
    with torch.no_grad():
        for layer in extractor.network.children():
            weight = layer.weight
            layer.weight.copy_((weight + weight.flip(2) + weight.flip(3) + weight.flip(2, 3)) / 4)
    return extractor


@pytest.fixture(scope="module")
def features(extractor, response):
    return extractor.features(response)


def places(period, count):
    """`count` x `count` places near the middle, evenly over one period of the cell grid."""
    phase = (np.arange(count) + 0.3) / count * period
    return np.stack(np.meshgrid(48 + phase, 40 + phase), 2).reshape(-1, 2)


@pytest.mark.parametrize("max_edge", [1600, 75])
def test_keypoints_are_unbiased_on_a_blob_of_known_place(blurring, max_edge):
    """Through network, detector and Newton step; also where the image was reduced."""
    blurring.config = Config(device="cpu", features=FeaturesConfig(max_edge=max_edge))
    where = places(4 * max(1, 104 / max_edge), 4)
    found = blurring.extract([blob(place, 5.0) for place in where])
    assert [len(features.keypoints) for features in found] == [1] * len(where)
    errors = np.array([features.keypoints[0] for features in found]) - where
    assert np.abs(errors.mean(0)).max() < 0.02
    assert np.abs(errors).max() < 0.1


def test_cell_centres_are_unbiased_with_the_shipped_weights(symmetric):
    """Centre of mass of what a blob changes in all 512 channels of the real weights."""
    errors = []
    where = places(4, 3)
    responses = symmetric.respond([blob(place, 4.0) for place in where])
    for place, response in zip(where, responses, strict=True):
        values = response.values.numpy()
        change = ((values - values[:, :1, :1]) ** 2).sum(0)
        row, column = np.indices(change.shape)
        centre = [(change * column).sum() / change.sum(), (change * row).sum() / change.sum()]
        errors.append(response.cells_to_pixels([centre])[0] - place)
    assert np.abs(np.mean(errors, 0)).max() < 0.05


def test_cell_centres_are_four_i_plus_three_and_a_half():
    response = ResponseMap(torch.zeros(1, 3, 3), np.ones(2))
    assert response.cells_to_pixels([[0, 0], [2, 5]]).tolist() == [[3.5, 3.5], [11.5, 23.5]]


@given(
    st.lists(st.tuples(st.floats(-10, 5000), st.floats(-10, 5000)), min_size=1, max_size=5),
    st.floats(0.05, 1.0),
    st.floats(0.05, 1.0),
)
@settings(max_examples=50, deadline=None)
def test_pixels_to_cells_and_back(pixels, scale_u, scale_v):
    response = ResponseMap(torch.zeros(1, 3, 3), np.array([scale_u, scale_v]))
    cells = response.pixels_to_cells(pixels)
    np.testing.assert_allclose(response.cells_to_pixels(cells), pixels, atol=1e-8)


def test_features_have_their_shapes_and_invariants(features, photograph):
    count = len(features.keypoints)
    height, width = photograph.shape[:2]
    assert count > 100
    assert features.keypoints.dtype == features.covariances.dtype == np.float32
    assert features.descriptors.shape == (count, 512)
    assert features.descriptors.dtype == torch.float32
    assert features.channels.dtype == torch.int64
    np.testing.assert_allclose(features.descriptors.norm(dim=1), 1, atol=1e-5)
    assert (features.keypoints > 5).all()
    assert (features.keypoints < [width - 6, height - 6]).all()
    assert len(np.unique(features.keypoints, axis=0)) == count
    sigmas = np.sqrt(np.linalg.eigvalsh(features.covariances.astype(np.float64)))
    assert sigmas.min() > 0.3
    assert sigmas.max() < 12
    assert 0.7 < np.median(sigmas) < 2.5


def test_covariances_hold_for_a_photograph_turned_and_scaled(extractor, photograph, features):
    """Position errors of descriptor matches under a known similarity, in units of their sigma."""
    height, width = photograph.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 10, 1.1)
    other = cv2.warpAffine(photograph, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
    a, b = features, extractor.extract([other])[0]
    similarity = a.descriptors @ b.descriptors.T
    best = similarity.argmax(1).numpy()
    mutual = similarity.argmax(0).numpy()[best] == np.arange(len(best))
    error = a.keypoints @ turn[:, :2].T + turn[:, 2] - b.keypoints[best]
    good = mutual & (np.linalg.norm(error, axis=1) < 8)
    assert good.sum() > 60
    total = turn[:, :2] @ a.covariances @ turn[:, :2].T + b.covariances[best]
    squared = np.einsum("ni,nij,nj->n", error, np.linalg.inv(total), error)[good]
    assert 0.3 < np.median(squared) / 1.386 < 2  # 1.386: median of chi-square with 2 degrees


def test_equal_content_gives_equal_features_whatever_the_encoding(extractor, photograph):
    gray = photograph[:128, :128, 1]
    as_color = np.repeat(gray[:, :, None], 3, 2)
    sixteen = gray.astype(np.uint16) * 257
    one, two, three = extractor.extract([gray, as_color, sixteen])
    for other in (two, three):
        np.testing.assert_allclose(other.keypoints, one.keypoints, atol=1e-3)
        torch.testing.assert_close(other.descriptors, one.descriptors, atol=1e-4, rtol=0)


def test_a_batch_of_mixed_sizes_keeps_its_order(extractor, photograph):
    images = [photograph[:100, :97], photograph[100:181, :64], photograph[120:220, 50:147]]
    together = extractor.extract(images)
    for features, image in zip(together, images, strict=True):
        alone = extractor.extract([image])[0]
        assert len(alone.keypoints) > 3
        np.testing.assert_allclose(features.keypoints, alone.keypoints, atol=1e-3)
        torch.testing.assert_close(features.descriptors, alone.descriptors, atol=1e-4, rtol=0)
    assert extractor.extract([]) == []


def test_extraction_is_deterministic(extractor, photograph):
    one, two = (extractor.extract([photograph[:96, :128]])[0] for _ in range(2))
    np.testing.assert_array_equal(one.keypoints, two.keypoints)
    assert torch.equal(one.descriptors, two.descriptors)


def test_at_most_max_keypoints_and_spread_over_the_image(extractor, response):
    few = FeaturesConfig(max_keypoints=40)
    limited = Extractor.__new__(Extractor)
    limited.config = dataclasses.replace(extractor.config, features=few)
    spread = limited.features(response)
    limited.config = dataclasses.replace(limited.config, features=FeaturesConfig(40, 1600, 1))
    best = limited.features(response)
    assert len(spread.keypoints) == len(best.keypoints) == 40
    assert (np.diff(best.scores) <= 0).all()

    def boxes(features):
        return len({tuple(box) for box in (features.keypoints // 20).astype(int)})

    assert boxes(spread) > boxes(best)


def test_describe_at_the_keypoints_returns_their_descriptors(features):
    again = describe(features.response, features.keypoints)
    torch.testing.assert_close(again, features.descriptors, atol=1e-4, rtol=0)
    assert describe(features.response, np.empty((0, 2))).shape == (0, 512)


def test_redetect_finds_each_keypoint_from_a_pixel_away(features):
    moved = features.keypoints + np.float32([0.4, -0.4])
    found, pixels, scores = redetect(features.response, moved, features.channels, 1)
    assert found.mean() > 0.98
    same = np.linalg.norm(pixels - features.keypoints, axis=1) < 0.01
    assert same.mean() > 0.9
    np.testing.assert_allclose(scores[same], features.scores[same], rtol=1e-4)
    nothing = redetect(features.response, np.empty((0, 2)), features.channels[:0], 1)
    assert [len(array) for array in nothing] == [0, 0, 0]


def test_places_that_are_not_finite_are_a_bug_of_the_caller(response):
    with pytest.raises(ValueError, match="finite"):
        describe(response, [[np.nan, 3.0]])


def test_redetect_in_a_reduced_image_returns_raw_pixels(extractor, photograph):
    large = cv2.resize(photograph, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    reduced = Extractor.__new__(Extractor)
    reduced.config = Config(features=FeaturesConfig(max_edge=320))
    reduced.device, reduced.dtype = extractor.device, extractor.dtype
    reduced.runtime, reduced._shorten = extractor.runtime, None
    features = reduced.extract([large])[0]
    assert features.response.scale.tolist() == [0.5, 0.5]
    assert features.keypoints.max() > 400
    found, pixels, _ = redetect(features.response, features.keypoints, features.channels, 0)
    assert found.all()
    np.testing.assert_allclose(pixels, features.keypoints, atol=1e-3)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_low_precision_finds_about_the_same_keypoints(extractor, photograph, precision):
    image = photograph[:96, :96]
    full = extractor.extract([image])[0].keypoints
    low = Extractor(Config(device="cpu", precision=precision)).extract([image])[0]
    distance = np.linalg.norm(full[:, None] - low.keypoints, axis=2).min(1)
    assert np.mean(distance < 2) > {"fp16": 0.9, "bf16": 0.6}[precision]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("precision", "share"), [("fp32", 0.95), ("fp16", 0.9), ("bf16", 0.6)])
def test_cuda_finds_about_the_same_keypoints(extractor, photograph, precision, share):
    full = extractor.extract([photograph])[0]
    other = Extractor(Config(device="cuda", precision=precision)).extract([photograph])[0]
    assert other.descriptors.is_cuda
    assert other.response.values.is_cuda
    distance = np.linalg.norm(full.keypoints[:, None] - other.keypoints, axis=2).min(1)
    assert np.mean(distance < 2) > share
    found, _, _ = redetect(other.response, other.keypoints, other.channels, 0)
    assert found.all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_said_plainly():
    assert pick_device("auto").type == "cpu"
    with pytest.raises(D2RosError, match="device is 'cuda'"):
        pick_device("cuda")


def test_auto_precision_follows_the_device():  # conftest.py hides bf16 in hardware
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32
    assert pick_dtype("auto", torch.device("cuda")) == torch.float16
    assert pick_dtype("bf16", torch.device("cpu")) == torch.bfloat16


def test_a_bad_image_in_a_batch_is_refused_before_the_network_runs(extractor, photograph):
    with pytest.raises(D2RosError, match="float64"):
        extractor.extract([photograph, photograph.astype(np.float64)])
