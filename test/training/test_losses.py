"""The joint loss: cases computed by hand, numerical gradients, blank images."""

import math

import pytest
import torch

from d2_ros.training.losses import (
    at,
    contrast,
    distillation_loss,
    joint_loss,
    soft_scores,
    wrong_similarities,
)


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def some(random, *shape):
    """Values of a response map, some of them zero, as after ReLU."""
    return (torch.rand(shape, generator=random, dtype=torch.float64) * 3 - 1).relu()


def test_score_of_a_single_peak_is_what_the_equations_say():
    response = torch.zeros(1, 2, 3, 3)
    response[0, 0, 1, 1] = 7.0
    response[0, 1, 1, 1] = 3.5
    response[0, 1, 0, 0] = 1.75
    e = math.e
    # The peak wins in channel 0: alpha = e / (e + 8), beta = 1. The corner has only channel 1:
    # alpha = e^(1/4) / (e^(1/4) + e^(1/2) + 7), five of its neighbours being outside, beta = 1.
    peak = e / (e + 8)
    corner = e**0.25 / (e**0.25 + e**0.5 + 7)
    scores = soft_scores(response)[0]
    assert scores[1, 1] == pytest.approx(peak / (peak + corner), rel=1e-5)
    assert scores[0, 0] == pytest.approx(corner / (peak + corner), rel=1e-5)
    assert scores.sum() == pytest.approx(1.0)
    assert (scores > 0).sum() == 2  # cells that are all zero score zero


def test_scores_do_not_depend_on_the_units_of_the_response(random):
    response = some(random, 2, 5, 6, 7)
    torch.testing.assert_close(soft_scores(1000 * response), soft_scores(response))


def test_beta_takes_the_share_of_the_strongest_channel():
    # Two channels without contrast: alpha is the same in both, so the strongest decides.
    response = torch.ones(1, 2, 5, 5)
    response[0, 1] = 0.5
    scores = soft_scores(response)[0]
    assert scores[2, 2] == pytest.approx(float(scores[1, 3]))
    assert scores.sum() == pytest.approx(1.0)


def test_samples_are_bilinear_and_stay_within_the_map():
    values = torch.arange(12.0).view(1, 3, 4)  # column + 4 row
    cells = torch.tensor([[0.0, 0.0], [1.25, 0.5], [3.0, 2.0], [9.0, -5.0]])
    torch.testing.assert_close(at(values, cells)[:, 0], torch.tensor([0.0, 3.25, 11.0, 3.0]))


def test_negatives_are_sought_outside_the_safe_square():
    response = torch.zeros(2, 1, 6)
    response[:, 0] = torch.tensor([[1, 1, 1, 0.0, 0.6, 0], [0, 0, 0, 1.0, 0.8, 1]])
    descriptor, cell = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    found = [wrong_similarities(descriptor, response, cell, k).max().item() for k in (0, 1, 3, 4)]
    assert found[0] == pytest.approx(1.0)  # the neighbours are just as good
    assert found[1] == pytest.approx(0.6)  # the cell that is right to 0.6
    assert found[2] == pytest.approx(0.0)
    assert found[3] == -math.inf


def test_contrast_is_the_negative_logarithm_of_a_softmax():
    right, wrong = torch.tensor([0.9, 0.5]), torch.tensor([[0.8, -math.inf], [-math.inf] * 2])
    loss = contrast(right, wrong, 0.1)
    assert loss[0] == pytest.approx(-math.log(math.e**9 / (math.e**9 + math.e**8)), rel=1e-5)
    assert loss[1] == 0  # nothing to be mistaken for


def test_equal_descriptors_are_no_way_out_of_the_contrast(random):
    """Where the margin to the hardest negative has it that points are better told apart less."""
    near = torch.ones(3, 1, 9, dtype=torch.float64)
    near[0] += 0.3 * torch.rand(1, 9, generator=random, dtype=torch.float64)
    cells = torch.tensor([[0.0, 0.0], [8.0, 0.0]])
    wrong = cells.flip(0)  # as an untrained network has it: the wrong ones look more alike
    equal = torch.ones_like(near)

    def loss(response, temperature):
        return joint_loss((response, response), (cells, wrong), 1.0, 0.5, temperature).loss

    assert loss(equal, 0.0) < loss(near, 0.0)
    assert loss(equal, 0.05) == pytest.approx(math.log(9), rel=1e-6)  # of nine, eight wrong
    far = torch.eye(3, dtype=torch.float64)[:, None, [0, 0, 0, 0, 1, 2, 2, 2, 2]]
    told_apart = joint_loss((far, far), (cells, cells), 1.0, 3.5, 0.05).loss
    assert told_apart < 1e-6


def test_loss_of_two_cells_computed_by_hand():
    # One channel per direction; each image has two far cells with other descriptors.
    first = torch.zeros(2, 1, 9)
    first[0, 0, 0], first[1, 0, 8] = 1.0, 1.0
    second = first.clone()
    cells = torch.tensor([[0.0, 0.0], [8.0, 0.0]])
    result = joint_loss((first, second), (cells, cells), safe_radius=4)
    # Right ones at distance 0, the nearest wrong ones at 2: 1 + 0 - 2 < 0.
    assert result.loss == 0
    assert (result.positive, result.negative) == (0, 2)
    # A wider margin: each misses it by 1; the weights cancel.
    assert joint_loss((first, second), (cells, cells), margin=3).loss == pytest.approx(1.0)


def test_weights_follow_both_scores():
    first = torch.zeros(2, 1, 9)
    first[0, 0, 0], first[1, 0, 8], first[1, 0, 7] = 1.0, 1.0, 0.9
    cells = torch.tensor([[0.0, 0.0], [8.0, 0.0]])
    crossed = cells.flip(0)
    scores = [soft_scores(first[None])[0, 0, index] for index in (0, 8)]
    # Swapped cells: both positives are at 2, both negatives at 0, so every term is 3.
    assert joint_loss((first, first), (cells, crossed)).loss == pytest.approx(3.0)
    # One right, one wrong: the wrong one's share of the weights counts.
    cells_second = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    right, wrong = scores[0] ** 2, scores[0] * scores[1]
    expected = 3 * wrong / (right + wrong)
    got = joint_loss((first, first), (cells, cells_second), safe_radius=0.5).loss
    assert got == pytest.approx(float(expected), rel=1e-5)


def test_gradient_is_that_of_finite_differences(random):
    # No two equal values: a maximum of equals has no derivative.
    first, second = (
        (torch.rand(3, 6, 7, generator=random, dtype=torch.float64) + 0.1).requires_grad_()
        for _ in range(2)
    )
    cells = tuple(
        torch.rand(8, 2, generator=random, dtype=torch.float64) * torch.tensor([6.0, 5.0])
        for _ in range(2)
    )
    assert torch.autograd.gradcheck(
        lambda a, b: joint_loss((a, b), cells, safe_radius=1.5).loss, (first, second)
    )
    assert torch.autograd.gradcheck(
        lambda a, b: joint_loss((a, b), cells, 1.0, 1.5, 0.1).loss, (first, second)
    )
    assert torch.autograd.gradcheck(lambda a: soft_scores(a[None]), (first,))


def test_gradient_reaches_scores_and_descriptors(random):
    first, second = (some(random, 4, 8, 8).requires_grad_() for _ in range(2))
    cells = torch.rand(9, 2, generator=random, dtype=torch.float64) * 7
    scores = soft_scores(first[None])
    (by_score,) = torch.autograd.grad(scores[0, 3, 3], first, retain_graph=True)
    assert by_score.abs().sum() > 0
    joint_loss((first, second), (cells, cells)).loss.backward()
    assert first.grad.abs().sum() > 0
    assert second.grad.abs().sum() > 0


@pytest.mark.parametrize("value", [0.0, 1.0, 1500.0])
def test_blank_images_give_the_margin_and_finite_gradients(value):
    first = torch.full((4, 8, 8), value, requires_grad=True)
    second = torch.full((4, 8, 8), value, requires_grad=True)
    cells = torch.rand(20, 2, generator=torch.Generator().manual_seed(0)) * 7
    result = joint_loss((first.relu(), second.relu()), (cells, cells))
    assert result.loss.item() == pytest.approx(1.0, abs=1e-6)
    result.loss.backward()
    assert first.grad.isfinite().all()
    assert second.grad.isfinite().all()


def test_one_empty_cell_is_harmless(random):
    response = some(random, 4, 8, 8).float()
    response[:, 2:4, 2:4] = 0
    response.requires_grad_()
    cells = torch.tensor([[2.0, 2.0], [2.5, 3.0], [6.0, 6.0]])
    result = joint_loss((response, response), (cells, cells))
    result.loss.backward()
    assert result.loss.isfinite()
    assert response.grad.isfinite().all()
    assert response.grad.abs().max() < 1e7


def test_points_without_a_negative_do_not_count(random):
    first, second = some(random, 3, 2, 9), some(random, 3, 2, 9)
    cells = torch.tensor([[0.0, 0.0], [8.0, 0.0], [4.0, 0.0]], dtype=torch.float64)
    within = joint_loss((first, second), (cells, cells), safe_radius=4)
    without = joint_loss((first, second), (cells[:2], cells[:2]), safe_radius=4)
    torch.testing.assert_close(within.loss, without.loss)
    assert joint_loss((first, second), (cells[2:], cells[2:])).loss == 0


def test_distillation_is_relative_to_the_teacher_and_the_same_for_every_image():
    teacher = torch.tensor([3.0, 4.0, 300.0, 400.0]).view(2, 2, 1, 1)
    assert distillation_loss(teacher, teacher) == 0
    assert distillation_loss(0 * teacher, teacher) == 1
    off = teacher.clone()
    off[1] = 0
    assert distillation_loss(off, teacher) == pytest.approx(0.5)
    assert distillation_loss(teacher, 0 * teacher).isfinite()
