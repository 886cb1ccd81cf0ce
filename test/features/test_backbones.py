"""Networks in D2-Net's place: recognised by their weights, on the same grid, at their cost."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.features.backbones import BACKBONES, build_network, recognise, weight_shapes
from d2_ros.features.extractor import Extractor
from d2_ros.features.mobile import MobileNetwork
from d2_ros.features.network import CHANNELS, Network, normalise
from d2_ros.features.weights import import_weights, load_weights


@pytest.mark.parametrize("name", BACKBONES)
def test_weights_say_which_network_they_belong_to(name):
    state = BACKBONES[name](4).state_dict()
    assert recognise(state) == name
    assert type(build_network(state)) is type(BACKBONES[name](4))
    assert {key: tuple(value.shape) for key, value in state.items()} == weight_shapes(name)
    assert recognise({}) == "vgg16"


@pytest.mark.parametrize("stride", [4, 8])
@pytest.mark.parametrize("size", [(64, 64), (65, 67), (96, 72)])
def test_all_have_one_grid(stride, size):
    images = torch.empty(1, 3, *size, device="meta")
    shapes = {
        make(stride).to("meta")(images).response.shape for make in BACKBONES.values()
    }  # fmt: skip
    assert len(shapes) == 1
    assert shapes.pop()[1] == CHANNELS


@torch.inference_mode()
@pytest.mark.parametrize("stride", [4, 8])
def test_the_light_network_has_its_cells_where_d2_net_has_them(stride):
    """With mirrored filters a mirrored image gives a mirrored response."""
    torch.manual_seed(0)
    network = MobileNetwork(stride)
    state = network.state_dict()
    network.load_state_dict({k: v + v.flip(-1) if v.ndim == 4 else v for k, v in state.items()})
    half = torch.rand(1, 48, 40, 3) * 255
    image = torch.cat([half, half.flip(2)], 2)
    response = network(normalise(image, torch.float32)).response
    torch.testing.assert_close(response, response.flip(-1), rtol=1e-3, atol=0.05)
    assert response.std() > 0


def test_the_light_network_costs_less_than_an_eighth_of_d2_net():
    def cost(network):
        count = 0

        def add(layer, _, output):
            nonlocal count
            count += output.numel() * layer.weight[0].numel()

        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.register_forward_hook(add)
        network.to("meta")(torch.empty(1, 3, 480, 640, device="meta"))
        return count

    light = cost(MobileNetwork())
    assert light < cost(Network()) / 8
    assert light / 1e9 == pytest.approx(10.3, abs=0.1)  # as its docstring says


def test_the_extractor_runs_what_it_is_given(tmp_path, monkeypatch, photograph):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    torch.manual_seed(0)
    path = tmp_path / "light.safetensors"
    save_file(MobileNetwork().state_dict(), path)
    import_weights(path, "light")
    extractor = Extractor(Config(device="cpu", weights="light"))
    assert isinstance(extractor.network, MobileNetwork)
    features = extractor.extract([photograph])[0]
    assert features.response.values.shape == (CHANNELS, 240 // 4 - 1, 320 // 4 - 1)
    norms = F.normalize(features.descriptors, dim=1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_incomplete_weights_of_either_are_refused(tmp_path):
    state = MobileNetwork().state_dict()
    state.pop("stem.bias")
    path = tmp_path / "light.safetensors"
    save_file(state, path)
    with pytest.raises(D2RosError, match=r"lack stem\.bias"):
        load_weights(str(path))
