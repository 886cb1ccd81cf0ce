"""Cached pairs: whole or missing, found by what they show alone, without a bit lost."""

import numpy as np
import pytest
import torch

from d2_ros.errors import D2RosError
from d2_ros.features.mobile import MobileNetwork
from d2_ros.features.network import Network, normalise
from d2_ros.features.weights import load_weights
from d2_ros.training import cache as module
from d2_ros.training.cache import Cache
from d2_ros.training.frozen import Frozen

VALUE = torch.arange(600, dtype=torch.float16).reshape(2, 3, 100)


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache", 1e7)


@pytest.fixture(scope="module")
def network():
    network = Network(8)
    network.load_state_dict(load_weights("off_the_shelf"))
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def images(photograph):
    return torch.from_numpy(np.stack([photograph[:48, :48], photograph[60:108, 60:108]]))


def test_an_entry_comes_back_to_the_bit(cache):
    assert cache.get("a") is None
    cache.put("a", VALUE)
    again = Cache(cache.folder, 0)
    found = again.get("a")
    assert found.dtype == torch.float16
    assert torch.equal(found, VALUE)
    assert (again.hits, again.size) == (1, cache.size)
    assert cache.size == sum(path.stat().st_size for path in cache.folder.iterdir())


@pytest.mark.parametrize("damage", ["cut", "changed", "foreign", "of another key", "empty"])
def test_an_entry_that_is_not_whole_is_made_anew(cache, damage):
    cache.put("a", VALUE)
    cache.put("b", VALUE + 1)
    path, other = cache.folder / "a.pair", cache.folder / "b.pair"
    data = path.read_bytes()
    path.write_bytes({
        "cut": data[:-1],
        "changed": data[:-1] + bytes([data[-1] ^ 1]),
        "foreign": b"something else" * 100,
        "of another key": other.read_bytes(),
        "empty": b"",
    }[damage])  # fmt: skip
    assert cache.get("a") is None
    cache.put("a", VALUE)
    assert torch.equal(cache.get("a"), VALUE)


def test_a_cache_stays_within_its_limit(tmp_path):
    cache = Cache(tmp_path, 2 * VALUE.nbytes + 500)
    for name in "abc":
        cache.put(name, VALUE)
    assert (cache.added, cache.full) == (2, True)
    assert cache.get("c") is None
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= cache.limit


def test_a_full_disk_stops_nothing(cache, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "replace", no_space)
    cache.put("a", VALUE)
    assert cache.full
    assert list(cache.folder.iterdir()) == []


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(D2RosError, match=r"parameter cache is .*file, which cannot be used"):
        Cache(tmp_path / "file", 1e6)


@pytest.mark.parametrize("end", ["conv1_1", "conv3_1", "conv4_1", "conv4_3", None])
def test_the_frozen_part_is_the_same_with_and_without_a_cache(network, images, cache, end):
    plain = Frozen(network, end, False, None)(images)
    made, found = (Frozen(network, end, False, cache)(images) for _ in range(2))
    assert torch.equal(made, plain)
    assert torch.equal(found, plain)
    assert found.stride() == made.stride() == plain.stride()  # and the same bits behind it
    assert cache.hits == (end != "conv1_1")  # where nothing is frozen, nothing is kept
    response = network(normalise(images, torch.float32)).response
    after = network.after(plain, end) if end else plain
    torch.testing.assert_close(after, response, rtol=5e-3, atol=1.0)  # of up to 1400


def test_whatever_changes_the_result_changes_the_key(network, images, cache):
    Frozen(network, "conv2_1", False, cache)(images)
    other, trained, fine = Network(8), Network(8), Network(4)
    for copy in (other, trained, fine):
        copy.load_state_dict(network.state_dict())
        copy.requires_grad_(False)
    trained.conv2_1.weight += 1
    Frozen(trained, "conv2_1", False, cache)(images)
    assert cache.hits == 1  # what is trained does not matter
    other.conv1_2.bias[0] += 1e-3
    changed = images.clone()
    changed[1, 0, 0, 0] ^= 1
    for part, windows in (
        (Frozen(other, "conv2_1", False, cache), images),
        (Frozen(fine, "conv2_1", False, cache), images),
        (Frozen(network, "conv2_2", False, cache), images),
        (Frozen(network, "conv2_1", True, cache), images),
        (Frozen(network, "conv2_1", False, cache), changed),
        (Frozen(network, "conv2_1", False, cache), images.reshape(2, 24, 96, 3)),
    ):
        part(windows)
    assert (cache.hits, cache.added) == (1, 7)


def test_activations_too_large_for_half_precision_stay_finite(images):
    network = Network(8).requires_grad_(False)
    network.conv1_1.bias.fill_(1e6)
    assert Frozen(network, "conv1_2", False, None)(images).max() == 65504


@pytest.mark.parametrize("layer", ["stem", "early", "middle", "late", "head"])
@pytest.mark.parametrize("stride", [4, 8])
def test_the_light_network_can_be_split_anywhere(images, layer, stride):
    torch.manual_seed(0)
    network = MobileNetwork(stride).requires_grad_(False)
    x = normalise(images, torch.float32)
    assert torch.equal(network.after(network.before(x, layer), layer), network(x).response)
