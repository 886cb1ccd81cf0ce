"""Projections of descriptors, fitted in closed form to data whose answer is known."""

import numpy as np
import pytest
import torch

from d2_ros.training.projection import discriminative, principal

SIZE, CHANNELS = 4, 24


@pytest.fixture(scope="module")
def points():
    """Two descriptors each of 2000 points: told apart by the first 4 values only.

    The next 8 vary more, but as much within a point as between points.
    """
    rng = np.random.default_rng(0)
    spread = np.r_[np.full(4, 0.5), np.full(8, 1.0), np.full(12, 0.05)]
    noise = np.r_[np.full(4, 0.02), np.full(8, 1.0), np.full(12, 0.05)]
    centres = 3 + rng.normal(size=(2000, CHANNELS)) * spread
    return tuple(centres + rng.normal(size=centres.shape) * noise for _ in range(2))


def right(projection, points):
    """Share of the first 300 points whose most similar descriptor is the right one."""
    first, second = (projection(torch.from_numpy(x[:300]).float()) for x in points)
    return float(((first @ second.T).argmax(1) == torch.arange(300)).float().mean())


def test_principal_axes_keep_the_largest_variance(points):
    every = np.concatenate(points)
    projection = principal(every, 8)
    energy = projection.weight.square().sum(0).numpy()
    assert energy[4:12].sum() > 7.9
    torch.testing.assert_close(projection.weight @ projection.weight.T, torch.eye(8), atol=1e-5,
                               rtol=0)  # fmt: skip
    centred = torch.nn.functional.linear(torch.from_numpy(every).float(), *projection)
    assert centred.mean(0).abs().max() < 1e-3


def test_discriminative_axes_keep_what_tells_points_apart(points):
    projection = discriminative(*points, SIZE, 0.0)
    energy = (projection.weight / projection.weight.norm(dim=1, keepdim=True)).square().sum(0)
    assert energy[:4].sum() > 3.9
    assert right(projection, points) > 0.9
    assert right(principal(np.concatenate(points), SIZE), points) < 0.1
    assert projection.weight.norm(dim=1).mean() == pytest.approx(1)  # half precision holds it


def test_much_shrinkage_is_no_discrimination(points):
    shrunk = discriminative(*points, SIZE, 1e6)
    plain = principal(np.concatenate(points), SIZE)
    torch.testing.assert_close(shrunk.weight, plain.weight, atol=1e-3, rtol=0)


def test_a_fit_is_repeatable(points):
    once, again = (discriminative(*points, SIZE, 0.1) for _ in range(2))
    assert all(map(torch.equal, once, again))
