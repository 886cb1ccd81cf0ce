"""Fit a projection of the descriptors to fewer values, in closed form."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from d2_ros.features.projection import DescriptorProjection

Descriptors = NDArray[np.float64]
"""``(N, C)`` of unit length."""


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
    axes = _axes(np.cov(descriptors.T), size)
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
    axes = _axes(whiten @ np.cov(every.T) @ whiten, size) @ whiten
    return _projection(axes / np.linalg.norm(axes, axis=1).mean(), every.mean(axis=0))


def _axes(covariance: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """``(size, C)`` eigenvectors of the largest eigenvalues, each with its largest entry > 0."""
    vectors = np.linalg.eigh(covariance)[1][:, ::-1][:, :size].T
    largest = np.abs(vectors).argmax(axis=1, keepdims=True)
    return np.asarray(vectors * np.sign(np.take_along_axis(vectors, largest, axis=1)))


def _projection(axes: NDArray[np.float64], mean: NDArray[np.float64]) -> DescriptorProjection:
    weight, bias = (torch.from_numpy(np.ascontiguousarray(x)).float() for x in (axes, -axes @ mean))
    return DescriptorProjection(weight, bias)
