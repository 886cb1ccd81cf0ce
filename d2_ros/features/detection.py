"""Keypoints from the response map, looking only at the strongest channel of each cell.

Dusmanu et al., CVPR 2019, section 3: a cell is a keypoint if its strongest channel is a local
maximum there. All of the test can be decided from that channel's 3x3 neighbourhood, nine values
per cell instead of all 512 channels. Cells on the rim of the map have no such neighbourhood (and
saw the network's zero padding), so they are never keypoints.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

EDGE_RATIO = 7.2
"""Largest tr(H)^2 / det(H) of a keypoint: (r + 1)^2 / r for principal curvatures 1 : r = 5."""


_HALF_CELL = 0.5 + 1e-5  # a plateau of two cells, common in fp16, has its top exactly between

SCORE_UNIT = 1000.0
"""Response that counts as one unit in the exponent of the soft score.

About the strongest response of a photograph (1300 to 1900), which the authors' training divides by;
a constant keeps scores comparable between images. The exponential is then nearly linear, so that
the score measures by how much a peak stands out. With a unit of 1 it saturates: among the mutual
matches of the 300 best keypoints of six homography pairs, the right ones (3 px) were 0.24 for 1,
0.28 for 10, 0.35 for 100 and 1000, and 0.32 for the plain response. Textureless places among the
200 best, plain response against this score: 7-Scenes 5 to 2 %, TUM 2 to 0 %, camera 2.5 to 0.5 %.
"""


class Peaks(NamedTuple):
    """Local maxima of the response.

    Attributes
    ----------
    cells
        ``(N, 2)`` float32 (column, row), sub-cell.
    channels
        ``(N,)`` int64, the channel each was found in.
    scores
        ``(N,)`` float32, see :func:`fit`.
    spreads
        ``(N, 2, 2)`` float32, see :func:`fit`, cells^2.
    """

    cells: Tensor
    channels: Tensor
    scores: Tensor
    spreads: Tensor


class Fits(NamedTuple):
    """Result of :func:`fit` for each of N neighbourhoods."""

    is_peak: Tensor
    steps: Tensor
    sharpness: Tensor
    spreads: Tensor


def as_rows(values: Tensor) -> Tensor:
    """View a channels-last ``(C, h, w)`` map as ``(h * w, C)``, one row per cell."""
    return values.permute(1, 2, 0).reshape(-1, len(values))


def detect(values: Tensor) -> Peaks:
    """Find the keypoints of one image.

    Parameters
    ----------
    values
        ``(C, h, w)`` response, not negative, channels-last in memory, any float type.

    Returns
    -------
    Peaks in row-major order of their cells.
    """
    _, height, width = values.shape
    rows = as_rows(values)
    winner = rows.argmax(1).view(height, width)[1:-1, 1:-1].reshape(-1)
    cell = torch.arange(height * width, device=values.device)
    cell = cell.view(height, width)[1:-1, 1:-1].reshape(-1)
    fits = fit(_gather(rows, cell[:, None] + _around(1, width, cell), winner[:, None]))
    keep = fits.is_peak.nonzero()[:, 0]
    cell, winner = cell[keep], winner[keep]
    column_row = torch.stack([cell % width, cell // width], 1)
    return Peaks(column_row + fits.steps[keep], winner, fits.sharpness[keep], fits.spreads[keep])


def _around(radius: int, width: int, like: Tensor) -> Tensor:
    """Offsets of the ``(2 radius + 1)^2`` cells around a cell, row-major, in a flat map."""
    side = torch.arange(-radius, radius + 1, device=like.device)
    return (side[:, None] * width + side).reshape(-1)


def _gather(rows: Tensor, cells: Tensor, channels: Tensor) -> Tensor:
    """Response at flat `cells` in `channels` (broadcast), as float32."""
    return rows.reshape(-1)[cells * rows.shape[1] + channels].float()


def fit(patches: Tensor) -> Fits:
    """Decide whether the middle of each neighbourhood is a peak, and where its top lies.

    Parameters
    ----------
    patches
        ``(N, 9)`` float32, rows of 3x3 neighbourhoods in one channel, row-major.

    Returns
    -------
    is_peak
        ``(N,)`` bool: local maximum (of equal neighbours the first counts), not on an edge
        (det > 0 and tr^2 / det <= 7.2), top of the parabola at most half a cell away.
    steps
        ``(N, 2)`` (column, row) from the middle to the top, cells: one Newton step.
    sharpness
        ``(N,)`` soft detection score.
    spreads
        ``(N, 2, 2)`` the value over its negative Hessian: the squared width of the peak, cells^2.
    """
    a, b, c, d, e, f, g, h, i = patches.unbind(-1)
    xx, yy, xy = d + f - 2 * e, b + h - 2 * e, (a + i - c - g) / 4
    x, y = (f - d) / 2, (h - b) / 2
    det, trace = xx * yy - xy * xy, xx + yy
    safe = torch.where(det > 0, det, 1.0)
    steps = torch.stack([xy * y - yy * x, xy * x - xx * y], -1) / safe[..., None]
    middle = e[..., None]
    is_peak = (
        (patches[..., :4] < middle).all(-1)
        & (patches[..., 5:] <= middle).all(-1)
        & (det > 0)
        & (trace * trace <= EDGE_RATIO * det)
        & (steps.abs() < _HALF_CELL).all(-1)
    )
    inverse = torch.stack([-yy, xy, xy, -xx], -1).unflatten(-1, (2, 2)) / safe[..., None, None]
    sharpness = 1 / ((patches - middle) / SCORE_UNIT).exp().sum(-1)
    return Fits(is_peak, steps, sharpness, e[..., None, None] * inverse)


def redetect(
    values: Tensor, predicted: Tensor, channels: Tensor, radius: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the strongest peak of a given channel near each predicted place.

    Unlike in :func:`detect`, the channel need not be the strongest of its cell.

    Parameters
    ----------
    values
        ``(C, h, w)`` response, channels-last in memory.
    predicted
        ``(M, 2)`` (column, row), cells; places outside the map find nothing.
    channels
        ``(M,)`` int64.
    radius
        Cells searched to each side of the predicted one.

    Returns
    -------
    found
        ``(M,)`` bool.
    cells
        ``(M, 2)`` (column, row); the predicted place where nothing was found.
    scores
        ``(M,)`` soft score, times the response's share of its cell's strongest; 0 where not found.
    """
    _, height, width = values.shape
    rows = as_rows(values)
    side = torch.arange(-radius, radius + 1, device=values.device)
    middle = predicted.clamp(-1e6, 1e6).round().long()
    column = (middle[:, 0, None, None] + side).expand(-1, len(side), -1).flatten(1)
    row = (middle[:, 1, None, None] + side[:, None]).expand(-1, -1, len(side)).flatten(1)
    inside = (column >= 1) & (column < width - 1) & (row >= 1) & (row < height - 1)
    cell = torch.where(inside, row * width + column, width + 1)  # any inner cell: masked below
    fits = fit(_gather(rows, cell[..., None] + _around(1, width, cell), channels[:, None, None]))
    response = _gather(rows, cell, channels[:, None])
    best = response.masked_fill(~(fits.is_peak & inside), -1.0).argmax(1, keepdim=True)
    found = (fits.is_peak & inside).gather(1, best)[:, 0]
    step = fits.steps.gather(1, best[..., None].expand(-1, -1, 2))[:, 0]
    place = torch.stack([column.gather(1, best), row.gather(1, best)], -1)[:, 0] + step
    share = response.gather(1, best)[:, 0] / rows[cell.gather(1, best)[:, 0]].amax(1).float()
    score = fits.sharpness.gather(1, best)[:, 0] * share.nan_to_num(0.0)
    return (
        found,
        torch.where(found[:, None], place, predicted.float()),
        torch.where(found, score, 0.0),
    )


def sample(values: Tensor, cells: Tensor) -> Tensor:
    """Descriptors: bilinear in the map, then L2-normalised.

    Parameters
    ----------
    values
        ``(C, h, w)`` map, channels-last in memory.
    cells
        ``(M, 2)`` (column, row), moved to the nearest place within the map.

    Returns
    -------
    ``(M, C)`` float32 rows of unit length (zero where the map is zero).
    """
    _, height, width = values.shape
    rows = as_rows(values)
    column = cells[:, 0].float().clamp(0, width - 1)
    row = cells[:, 1].float().clamp(0, height - 1)
    left, top = column.long().clamp(max=width - 2), row.long().clamp(max=height - 2)
    right, down = column - left, row - top
    corner = top * width + left
    mixed = torch.zeros(len(cells), len(values), device=values.device)
    for offset, weight in (
        (0, (1 - right) * (1 - down)),
        (1, right * (1 - down)),
        (width, (1 - right) * down),
        (width + 1, right * down),
    ):
        mixed.addcmul_(rows[corner + offset].float(), weight[:, None])
    return torch.nn.functional.normalize(mixed, dim=1)


def spread(cells: Tensor, scores: Tensor, size: float, most: int) -> Tensor:
    """Choose the best keypoints, spread over a grid.

    First comes the best of every grid cell, then every second best, and so on; within such a
    round the higher score is first, among equal scores the earlier row.

    Parameters
    ----------
    cells
        ``(N, 2)`` positions, not negative.
    scores
        ``(N,)``.
    size
        Side of a grid cell, in the unit of `cells`.
    most
        How many to choose at most.

    Returns
    -------
    ``(min(N, most),)`` int64 indices, best first.
    """
    order = scores.argsort(descending=True, stable=True)
    column, row = (cells[order] / size).long().unbind(1)
    box = row * (column.max() + 1 if len(column) else 1) + column
    sorted_box, by_box = box.sort(stable=True)
    position = torch.arange(len(box), device=box.device)
    rank = torch.empty_like(position)
    rank[by_box] = position - torch.searchsorted(sorted_box, sorted_box)
    return order[rank.argsort(stable=True)[:most]]
