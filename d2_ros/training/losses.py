"""D2-Net's joint loss: a triplet margin on descriptors, weighted by soft detection scores.

Dusmanu et al., CVPR 2019, sections 3.1 and 4.1; the equations named below are theirs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

MARGIN = 1.0
"""M of equation 10, on squared distances of unit descriptors."""

_TINY = 1e-12
_SHORTEST = 1e-6  # norm of a descriptor below which it counts as zero: bounds the gradient


class JointLoss(NamedTuple):
    """The loss of one pair of images and what it is made of, all scalars.

    Attributes
    ----------
    loss
        Equation 13, without points that have no negative. It is exactly the margin where all
        descriptors are equal, or all zero.
    positive, negative
        Mean squared distance of the corresponding, and of the hardest other, descriptors.
    """

    loss: Tensor
    positive: Tensor
    negative: Tensor


def distillation_loss(response: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference from a teacher's response, relative to that; mean over images.

    Parameters
    ----------
    response, teacher
        ``(B, C, h, w)``. The loss is 0 where they agree and 1 for a response of zero.
    """
    off = (response - teacher).square().sum((1, 2, 3))
    size = teacher.square().sum((1, 2, 3))
    return (off / torch.where(size > 0, size, 1)).mean()


def soft_scores(response: Tensor) -> Tensor:
    """Soft detection scores of every cell (equations 3 to 6).

    ``alpha`` compares a value with the 3x3 cells around it in its own channel, by a softmax;
    ``beta`` with the other channels of its cell, as a share of the strongest; the score is the
    largest product of the two over the channels, normalised over the image. The response is
    divided by the image's strongest before the softmax. Outside the map it counts as zero.

    Parameters
    ----------
    response
        ``(B, C, h, w)``, not negative.

    Returns
    -------
    ``(B, h, w)``, each image's scores sum to 1; zero where a cell is all zero, and everywhere
    where an image is.
    """
    strongest = response.amax((1, 2, 3), keepdim=True)
    exponential = (response / torch.where(strongest > 0, strongest, 1)).exp()
    around = 9 * F.avg_pool2d(F.pad(exponential, (1, 1, 1, 1), value=1.0), 3, stride=1)
    alpha = exponential / around
    of_cell = response.amax(1, keepdim=True)
    beta = response / torch.where(of_cell > 0, of_cell, 1)
    score = (alpha * beta).amax(1)
    total = score.sum((1, 2), keepdim=True)
    return score / torch.where(total > 0, total, 1)


def at(values: Tensor, cells: Tensor) -> Tensor:
    """Bilinear samples of a map.

    Parameters
    ----------
    values
        ``(C, h, w)``, at least 2 x 2 cells.
    cells
        ``(N, 2)`` (column, row); beyond the rim the nearest place within the map counts.

    Returns
    -------
    ``(N, C)``.
    """
    channels, height, width = values.shape
    column = cells[:, 0].to(values.dtype).clamp(0, width - 1)
    row = cells[:, 1].to(values.dtype).clamp(0, height - 1)
    left, top = column.long().clamp(max=width - 2), row.long().clamp(max=height - 2)
    right, down = (column - left)[:, None], (row - top)[:, None]
    rows = values.reshape(channels, -1).T
    corner = top * width + left
    above = torch.lerp(rows[corner], rows[corner + 1], right)
    below = torch.lerp(rows[corner + width], rows[corner + width + 1], right)
    return torch.lerp(above, below, down)


def wrong_similarities(
    descriptors: Tensor, response: Tensor, cells: Tensor, safe_radius: float
) -> Tensor:
    """Cosine with every cell away from the right one (the negatives of equations 8 and 9).

    Parameters
    ----------
    descriptors
        ``(N, C)`` of unit length, from the other image.
    response
        ``(C, h, w)``, whose every cell is a candidate.
    cells
        ``(N, 2)`` (column, row) where the right one lies.
    safe_radius
        Candidates no further than this from it in column and row are none, cells.

    Returns
    -------
    ``(N, h w)``; minus infinity for cells that are no candidates.
    """
    channels, height, width = response.shape
    dense = F.normalize(response.reshape(channels, -1), dim=0, eps=_SHORTEST)
    column = torch.arange(width, device=cells.device) - cells[:, :1]
    row = torch.arange(height, device=cells.device) - cells[:, 1:]
    near = (row.abs() <= safe_radius)[:, :, None] & (column.abs() <= safe_radius)[:, None]
    return (descriptors @ dense).masked_fill(near.flatten(1), -torch.inf)


def contrast(right: Tensor, wrong: Tensor, temperature: float) -> Tensor:
    """How surely a softmax over all candidates finds the right one: its negative logarithm.

    van den Oord et al., arXiv 1807.03748 (InfoNCE). All wrong candidates push, each as much as it
    is in the way; that descriptors become equal is no way out, unlike with the hardest one alone.

    Parameters
    ----------
    right
        ``(N,)`` cosine of the right pair.
    wrong
        ``(N, M)`` cosines of the wrong ones; minus infinity for none.
    temperature
        Difference of cosines that makes one candidate e times as likely as another.
    """
    candidates = torch.cat([right[:, None], wrong], 1) / temperature
    return candidates.logsumexp(1) - right / temperature


def joint_loss(
    responses: tuple[Tensor, Tensor],
    cells: tuple[Tensor, Tensor],
    margin: float = MARGIN,
    safe_radius: float = 4.0,
    temperature: float = 0.0,
) -> JointLoss:
    """The loss of one pair of images (equations 7 to 13).

    Parameters
    ----------
    responses
        ``(C, h, w)`` of either image, not negative.
    cells
        ``(N, 2)`` corresponding places (column, row) in either, N at least 1.
    margin
        By how much a wrong descriptor has to be further away than the right one.
    safe_radius
        Cells around the right place that are no negatives (K of equation 9).
    temperature
        0 for the paper's margin to the hardest negative, which `margin` is for; otherwise
        :func:`contrast` takes its place, mean of both directions.
    """
    descriptors = [
        F.normalize(at(values, places), dim=1, eps=_SHORTEST)
        for values, places in zip(responses, cells, strict=True)
    ]
    right = (descriptors[0] * descriptors[1]).sum(1)
    wrong = [
        wrong_similarities(descriptors[0], responses[1], cells[1], safe_radius),
        wrong_similarities(descriptors[1], responses[0], cells[0], safe_radius),
    ]
    positive = 2 - 2 * right
    negative = 2 - 2 * torch.maximum(wrong[0].amax(1), wrong[1].amax(1))
    scores = [
        at(soft_scores(values[None]), places)[:, 0]
        for values, places in zip(responses, cells, strict=True)
    ]
    judged = negative.isfinite()
    positive, negative = positive[judged], negative[judged]
    # The tiny part gives a dead network, all zero, the loss of one that has collapsed.
    weight = (scores[0] * scores[1])[judged] + _TINY
    if temperature:
        ways = [contrast(right[judged], way[judged], temperature) for way in wrong]
        each = (ways[0] + ways[1]) / 2
    else:
        each = F.relu(margin + positive - negative)
    loss = (weight * each).sum() / weight.sum().clamp(min=_TINY)
    return JointLoss(loss, positive.mean().detach(), negative.mean().detach())
