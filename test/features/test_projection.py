"""Weights with a projection: shorter descriptors wherever the front-end makes them."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.features.backbones import build_network
from d2_ros.features.extractor import Extractor, describe
from d2_ros.features.projection import PREFIX, DescriptorProjection, projection_of
from d2_ros.features.weights import import_weights, load_weights, read_checkpoint
from d2_ros.frontend import FrontEnd
from d2_ros.records import pack_descriptors

SIZE = 16


@pytest.fixture(scope="module")
def projection():
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(SIZE, 512)), rng.normal(size=SIZE) * 0.1
    return DescriptorProjection(*(torch.from_numpy(part).half().float() for part in parts))


@pytest.fixture(scope="module")
def weights(tmp_path_factory, projection):
    path = tmp_path_factory.mktemp("weights") / "short.safetensors"
    save_file({**load_weights("off_the_shelf"), **projection.state()}, path)
    return path


def test_descriptors_are_projected_and_nothing_else_changes(weights, projection, photograph):
    plain = Extractor(Config(device="cpu")).extract([photograph])[0]
    short = Extractor(Config(device="cpu", weights=str(weights))).extract([photograph])[0]
    np.testing.assert_array_equal(short.keypoints, plain.keypoints)
    assert short.descriptors.shape == (len(plain.keypoints), SIZE)
    expected = plain.descriptors @ projection.weight.T + projection.bias
    expected /= expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(short.descriptors, expected, atol=1e-5, rtol=0)
    again = describe(short.response, short.keypoints[:5])
    torch.testing.assert_close(again, short.descriptors[:5], atol=1e-4, rtol=0)


def test_the_front_end_matches_and_hands_out_what_is_projected(weights, photograph):
    frontend = FrontEnd(Config(device="cpu", weights=str(weights)))
    frontend.process(photograph[:120, :160], 0)
    result = frontend.process(photograph[2:122, 3:163], 10**9)
    assert result.descriptors.shape == (len(result.features), SIZE)
    shift = np.column_stack(
        [result.matches["keyframe_u"] - result.matches["u"],
         result.matches["keyframe_v"] - result.matches["v"]]
    )  # fmt: skip
    inlier = result.matches["inlier"] > 0
    assert inlier.sum() >= 10
    np.testing.assert_allclose(np.median(shift[inlier], axis=0), [3, 2], atol=0.1)


def test_a_projection_survives_an_import_and_is_no_part_of_the_network(
    weights, projection, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    state = read_checkpoint(import_weights(weights, "short").path)
    assert all(map(torch.equal, projection_of(state), projection))
    assert build_network(state).state_dict().keys() == load_weights("off_the_shelf").keys()
    assert projection_of(load_weights("off_the_shelf")) is None


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"weight": (SIZE, 512)}, "lack projection.bias"),
        ({"bias": (SIZE,)}, "lack projection.weight"),
        ({"weight": (SIZE, 256), "bias": (SIZE,)}, r"projection.weight is .*256.*, expected"),
        ({"weight": (SIZE, 512), "bias": (SIZE + 1,)}, "projection.bias is"),
        ({"weight": (512, 512), "bias": (512,)}, r"expected \(511, 512\)"),
        ({"weight": (0, 512), "bias": (0,)}, r"expected \(1, 512\)"),
        ({"weight": (SIZE, 512), "bias": (SIZE,), "scale": (1,)}, "unknown entry projection.scale"),
    ],
)
def test_a_projection_that_cannot_be_is_refused(tmp_path, entries, words):
    path = tmp_path / "odd.safetensors"
    parts = {PREFIX + name: torch.zeros(shape) for name, shape in entries.items()}
    save_file({**load_weights("off_the_shelf"), **parts}, path)
    with pytest.raises(D2RosError, match=words):
        read_checkpoint(path)


def test_signed_descriptors_survive_eight_bits():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, SIZE)).astype(np.float32)
    values[0] = np.eye(SIZE)[0]
    values[1] = -values[0]
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    rows = pack_descriptors(values, "uint8")["descriptor"]
    assert rows.shape == (50, SIZE)
    found = (rows.astype(np.float32) - 128) / 127
    np.testing.assert_allclose(found, values, atol=0.501 / 127)
    np.testing.assert_array_equal(pack_descriptors(values, "float32")["descriptor"], values)
