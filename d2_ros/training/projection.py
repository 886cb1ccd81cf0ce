"""Fit a projection of the descriptors to fewer values, in closed form."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from d2_ros.errors import D2RosError
from d2_ros.features import detection
from d2_ros.features.backbones import build_network
from d2_ros.features.network import OFFSET, STRIDE
from d2_ros.features.projection import DescriptorProjection
from d2_ros.features.weights import load_weights
from d2_ros.training.config import TrainingConfig
from d2_ros.training.dataset import Draws
from d2_ros.training.frozen import Frozen, open_cache
from d2_ros.training.opening import open_pairs
from d2_ros.training.pairs import Pair, true_places
from d2_ros.training.validation import keypoints

Descriptors = NDArray[np.float64]
"""``(N, C)`` of unit length."""


def same_points(
    config: TrainingConfig, weights: str, pairs: int
) -> Iterator[tuple[Descriptors, Descriptors]]:
    """Descriptors of keypoints in either image of the pairs that a training draws.

    Parameters
    ----------
    config
        Uses what decides the pairs, the cache, and ``validation.max_keypoints``.
    weights
        Name or path of the weights to describe with, at the stride in use.
    pairs
        How many to draw.

    Yields
    ------
    For each pair of images the descriptors of the same points, row by row: those that the first
    image's keypoints have there and in the second, and the other way round.
    """
    network = build_network(load_weights(weights)).requires_grad_(False)
    split = config.network.layers[0] if config.network.layers != ("all",) else None
    frozen = Frozen(network, split, False, open_cache(config))
    data = config.data
    sources = [open_pairs(name, "training", config) for name in data.sources]
    draws = Draws(sources, config.seed, data.crop, None, data.draws)
    for number in range(pairs):
        pair = draws[number]
        with torch.inference_mode():
            x = frozen(torch.from_numpy(np.stack([pair.first, pair.second])))
            first, second = network.after(x, split) if split else x
            there = _described(pair, first, second, config.validation.max_keypoints)
            back = Pair(pair.second, pair.first, pair.pixels_second, pair.pixels)
            here = _described(back, second, first, config.validation.max_keypoints)
        yield np.concatenate([there[0], here[1]]), np.concatenate([there[1], here[0]])


def _described(
    pair: Pair, first: Tensor, second: Tensor, most: int
) -> tuple[Descriptors, Descriptors]:
    """What the keypoints of the first response look like there and at their true places."""
    pixels, descriptors = keypoints(first, most)
    places = true_places(pair, pixels)
    known = np.isfinite(places).all(axis=1)
    cells = torch.from_numpy((places[known] - OFFSET) / STRIDE).float()
    found = detection.sample(second, cells.to(second.device))
    return (
        descriptors[torch.from_numpy(known)].cpu().numpy().astype(np.float64),
        found.cpu().numpy().astype(np.float64),
    )


def fit(
    parts: list[tuple[Descriptors, Descriptors]], size: int, shrinkage: float
) -> DescriptorProjection:
    """:func:`discriminative` of what :func:`same_points` yields.

    Raises
    ------
    D2RosError
        If those are too few points to span so many values.
    """
    first, second = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    if len(first) <= size:
        raise D2RosError(
            f"{len(first)} points are too few to fit a projection to {size} values; raise --pairs, "
            "data.crop or validation.max_keypoints"
        )
    return discriminative(first, second, size, shrinkage)


def principal(descriptors: Descriptors, size: int) -> DescriptorProjection:
    """Keep the directions along which descriptors vary most (PCA, centred).

    Parameters
    ----------
    descriptors
        Of N keypoints, more than `size`.
    size
        Values to keep.
    """
    mean = descriptors.mean(axis=0)
    axes = _axes(_covariance(descriptors), size)
    return _projection(axes, mean)


def discriminative(
    first: Descriptors, second: Descriptors, size: int, shrinkage: float
) -> DescriptorProjection:
    """Keep the directions that tell points apart best, against how one point's descriptors differ.

    Fisher's linear discriminant with every point a class: descriptors are weighed so that the
    differences within points become equal in all directions, then the directions of largest
    variance are kept.

    Parameters
    ----------
    first, second
        Of the same N points in two images, row by row.
    size
        Values to keep.
    shrinkage
        By how much of their mean the variances within points are raised before dividing by them:
        0 trusts them fully, a large number gives :func:`principal`.
    """
    every = np.concatenate([first, second])
    between = (first - second) / np.sqrt(2)
    within = between.T @ between / len(between)
    raised = within + shrinkage * np.trace(within) / len(within) * np.eye(len(within))
    values, vectors = np.linalg.eigh(raised)
    whiten = vectors / np.sqrt(values) @ vectors.T
    axes = _axes(whiten @ _covariance(every) @ whiten, size) @ whiten
    return _projection(axes / np.linalg.norm(axes, axis=1).mean(), every.mean(axis=0))


def _covariance(descriptors: Descriptors) -> NDArray[np.float64]:
    return np.asarray(np.cov(descriptors.T), np.float64)


def _axes(covariance: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """``(size, C)`` eigenvectors of the largest eigenvalues, each with its largest entry > 0."""
    vectors = np.linalg.eigh(covariance)[1][:, ::-1][:, :size].T
    largest = np.abs(vectors).argmax(axis=1, keepdims=True)
    return np.asarray(vectors * np.sign(np.take_along_axis(vectors, largest, axis=1)))


def _projection(axes: NDArray[np.float64], mean: NDArray[np.float64]) -> DescriptorProjection:
    weight, bias = (torch.from_numpy(np.ascontiguousarray(x)).float() for x in (axes, -axes @ mean))
    return DescriptorProjection(weight, bias)
