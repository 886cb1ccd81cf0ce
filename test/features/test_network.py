import numpy as np
import pytest
import torch
from torch.nn import functional as F

from d2_ros.features.network import CHANNELS, LAYERS, OFFSET, STRIDE, Network, normalise


def shape_of(width, height):
    network = Network().to("meta")
    return network(torch.empty(1, 3, height, width, device="meta"))


@pytest.mark.parametrize("size", [(640, 480), (641, 483), (64, 64), (65, 67), (752, 480)])
def test_output_has_stride_four_and_loses_half_a_cell_to_the_average_pool(size):
    width, height = size
    maps = shape_of(width, height)
    assert maps.response.shape == (1, CHANNELS, height // STRIDE - 1, width // STRIDE - 1)
    assert maps.conv1_2.shape == (1, 64, height, width)
    assert maps.conv2_2.shape == (1, 128, height // 2, width // 2)


def test_costs_172_giga_multiply_adds_at_vga():
    count = 0

    def add(layer, _, output):
        nonlocal count
        count += output[0].numel() * layer.in_channels * 9

    network = Network().to("meta")
    for layer in network.children():
        layer.register_forward_hook(add)
    network(torch.empty(1, 3, 480, 640, device="meta"))
    assert count / 1e9 == pytest.approx(172, rel=0.03)


@torch.inference_mode()
def test_equals_the_layers_of_the_paper_away_from_the_rim(extractor, photograph):
    """The stack written out plainly, with zero padding, which differs only near the rim."""
    state = extractor.network.state_dict()
    x = torch.from_numpy(photograph[:192, :192].astype(np.float32))
    x = (x - torch.tensor([103.939, 116.779, 123.68])).permute(2, 0, 1)[None].contiguous()
    early = {}
    for name in LAYERS:
        if name in ("conv2_1", "conv3_1"):
            x = F.max_pool2d(x, 2, 2)
        if name == "conv4_1":
            x = F.avg_pool2d(x, 2, 1)
        step = 2 if name[4] == "4" else 1
        x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=step, dilation=step)
        x = early[name] = x.relu()
    crop = torch.from_numpy(photograph[None, :192, :192].copy())
    maps = extractor.network(normalise(crop, torch.float32))
    rim = 13  # cells; the receptive field reaches 50 px
    inner = (..., slice(rim, -rim), slice(rim, -rim))
    assert x[inner].shape[-1] > 10
    torch.testing.assert_close(maps.response[inner], x[inner], rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(
        maps.conv2_2[..., 8:-8, 8:-8], early["conv2_2"][..., 8:-8, 8:-8], rtol=1e-4, atol=1e-2
    )
    torch.testing.assert_close(
        maps.conv1_2[..., 8:-8, 8:-8], early["conv1_2"][..., 8:-8, 8:-8], rtol=1e-4, atol=1e-2
    )


@torch.inference_mode()
def test_every_map_stays_channels_last_and_not_negative(extractor, photograph):
    images = normalise(torch.from_numpy(photograph[None, :96, :128].copy()), torch.float32)
    for values in extractor.network(images):
        assert values.is_contiguous(memory_format=torch.channels_last)
        assert values.min() >= 0


@pytest.mark.parametrize("gray", [0, 77, 255])
def test_a_uniform_image_gives_the_same_response_everywhere_and_no_keypoint(extractor, gray):
    features = extractor.extract([np.full((80, 96), gray, np.uint8)])[0]
    values = features.response.values
    assert (values - values[:, :1, :1]).abs().max() < 1e-2
    assert len(features.keypoints) == 0
    assert features.descriptors.shape == (0, CHANNELS)


@torch.inference_mode()
def test_stride_eight_is_the_papers_stack_with_the_same_weights(extractor, photograph):
    """A third max-pool and no dilation; the rim apart."""
    state = extractor.network.state_dict()
    coarse = Network(2 * STRIDE)
    coarse.load_state_dict(state)
    images = normalise(torch.from_numpy(photograph[None, :192, :192].copy()), torch.float32)
    x = images.contiguous()
    for name in LAYERS:
        if name in ("conv2_1", "conv3_1", "conv4_1"):
            x = F.max_pool2d(x, 2, 2)
        x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1).relu()
    response = coarse(images).response
    assert response.shape == (1, CHANNELS, 24, 24)
    inner = (..., slice(7, -7), slice(7, -7))
    torch.testing.assert_close(response[inner], x[inner], rtol=1e-4, atol=1e-2)
    with pytest.raises(ValueError, match="stride 4 or 8, not 2"):
        Network(2)


@torch.inference_mode()
@pytest.mark.parametrize("stride", [4, 8])
def test_cells_of_both_strides_lie_where_their_offset_says(extractor, photograph, stride):
    """With mirrored filters a mirrored image gives a mirrored response, about the same pixel."""
    network = Network(stride)
    state = extractor.network.state_dict()
    network.load_state_dict(
        {key: (v + v.flip(-1)) / 2 if v.ndim == 4 else v for key, v in state.items()}
    )
    half = photograph[:64, :48].astype(np.float32)
    image = np.concatenate([half, half[:, ::-1]], axis=1)[None]
    response = network(normalise(torch.from_numpy(image), torch.float32)).response
    torch.testing.assert_close(response, response.flip(-1), rtol=1e-4, atol=1e-2)
    middle_cell = (response.shape[-1] - 1) / 2
    assert stride * middle_cell + OFFSET == (image.shape[2] - 1) / 2
