"""The mean of weights."""

import pytest
import torch

from d2_ros.errors import D2RosError
from d2_ros.features.averaging import average
from d2_ros.features.mobile import MobileNetwork
from d2_ros.features.network import Network


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    return [Network().state_dict() for _ in range(2)]


def test_the_mean_is_by_shares_of_their_sum_in_any_order(pair):
    mean, turned = average(pair, (3.0, 1.0)), average(pair[::-1], (0.25, 0.75))
    for key, value in mean.items():
        assert torch.equal(value, turned[key])
        assert torch.allclose(value, 0.75 * pair[0][key] + 0.25 * pair[1][key], atol=1e-7)


def test_a_share_of_zero_leaves_the_others_as_they_are(pair):
    assert all(torch.equal(v, pair[1][k]) for k, v in average(pair, (0.0, 2.0)).items())


@pytest.mark.parametrize("shares", [(1.0,), (1.0, -0.5), (0.0, 0.0), (1.0, float("nan"))])
def test_shares_that_make_no_mean_are_refused(pair, shares):
    with pytest.raises(D2RosError, match="one for each, none below zero"):
        average(pair, shares)


def test_what_has_no_mean_is_refused(pair):
    with pytest.raises(D2RosError, match="different networks \\(mobile, vgg16\\)"):
        average([pair[0], MobileNetwork(4).state_dict()], (1.0, 1.0))
    projection = {"projection.weight": torch.eye(512)[:8], "projection.bias": torch.zeros(8)}
    with pytest.raises(D2RosError, match="carry a projection"):
        average([{**pair[0], **projection}, pair[1]], (1.0, 1.0))
