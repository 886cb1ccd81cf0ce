"""Images -> features: keypoints, covariances, scores and descriptors (D2-Net)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from d2_ros.config import Config
from d2_ros.features import detection
from d2_ros.features.backbones import build_network
from d2_ros.features.device import keep_memory, to_device
from d2_ros.features.early import EarlyMap, Projection, build_projection
from d2_ros.features.images import prepare
from d2_ros.features.network import OFFSET, STRIDE, Network, normalise
from d2_ros.features.projection import DescriptorProjection, projection_of
from d2_ros.features.runtime import open_runtime, plan
from d2_ros.features.weights import load_weights
from d2_ros.timing import Stopwatch

SIGMA_PER_WIDTH = 0.15
"""Standard deviation of a detected position over the width of its peak.

Measured on 6682 matches of photographs under known similarities and noise: 0.12 fits the median of
the errors (1.8 px), 0.17 their mean square; the error grows with the width as this says.
"""


@dataclass(frozen=True)
class ResponseMap:
    """The network's output for one image, and where its cells lie in that image.

    Attributes
    ----------
    values
        ``(512, h, w)`` on the device, after ReLU, in the network's arithmetic, channels-last.
    scale
        ``(2,)`` float64, network px per raw px, (u, v).
    projection
        What shortens its descriptors; None leaves them as they are.
    """

    values: Tensor
    scale: NDArray[np.float64]
    projection: DescriptorProjection | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or np.shape(self.scale) != (2,):
            raise ValueError("a response map is (C, h, w) with a scale (u, v)")

    def descriptors(self, cells: Tensor) -> Tensor:
        """Descriptors at ``(N, 2)`` cells (column, row) on the device; ``(N, K)``, unit length."""
        sampled = detection.sample(self.values, cells)
        return self.projection(sampled) if self.projection else sampled

    def cells_to_pixels(self, cells: ArrayLike) -> NDArray[np.float64]:
        """``(N, 2)`` (column, row) cells -> raw pixels (u, v)."""
        network = np.asarray(cells, np.float64) * STRIDE + OFFSET
        return (network + 0.5) / self.scale - 0.5  # a resize keeps the corners, not the centres

    def pixels_to_cells(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """``(N, 2)`` raw pixels (u, v) -> (column, row) cells."""
        network = (np.asarray(pixels, np.float64) + 0.5) * self.scale - 0.5
        return (network - OFFSET) / STRIDE


@dataclass(frozen=True)
class Features:
    """The features of one image, best first, in rounds over a grid.

    Attributes
    ----------
    keypoints
        ``(N, 2)`` float32 raw pixels (u, v).
    covariances
        ``(N, 2, 2)`` float32 of the keypoints, px^2, positive definite.
    scores
        ``(N,)`` float32 soft detection score, 1/9 to 1.
    descriptors
        ``(N, K)`` float32 on the device, of unit length; K is 512, or that of the weights'
        projection.
    channels
        ``(N,)`` int64 on the device, the channel each keypoint was found in.
    response
        Where they come from.
    """

    keypoints: NDArray[np.float32]
    covariances: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: Tensor
    channels: Tensor
    response: ResponseMap

    def __post_init__(self) -> None:
        if len({len(self.keypoints), len(self.covariances), len(self.scores)}) > 1 or not (
            len(self.keypoints) == len(self.descriptors) == len(self.channels)
        ):
            raise ValueError("the arrays of a Features must have the same number of rows")


class Extractor:
    """The network with its weights, on its device.

    Parameters
    ----------
    config
        Uses ``weights``, ``device``, ``precision``, ``runtime``, ``threads``, ``keep_memory`` and
        ``features``.

    Raises
    ------
    D2RosError
        If the weights or the runtime cannot be used, or the device is not there.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.plan = plan(config)
        self.device, self.dtype = self.plan.device, self.plan.dtype
        if self.device.type == "cpu" and config.keep_memory:
            keep_memory()
        if config.threads:
            torch.set_num_threads(config.threads)
        weights = load_weights(config.weights)
        network = build_network(weights)
        network.requires_grad_(False).eval()
        network = network.to(self.device, self.dtype)
        # torch's stubs lack this overload
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        projection = projection_of(weights)
        self._shorten = (
            DescriptorProjection(*(part.to(self.device) for part in projection))
            if projection
            else None
        )
        self.runtime = open_runtime(self.plan, self.network, config.threads)

    @torch.inference_mode()
    def extract(
        self, images: Sequence[NDArray[Any]], watch: Stopwatch | None = None
    ) -> list[Features]:
        """Features of every image; images of one size and type share a forward pass.

        Parameters
        ----------
        images
            Each ``(H, W)`` gray or ``(H, W, 3)`` BGR, uint8 or uint16, at least 64 px.
        watch
            Gets the timing sections ``upload``, ``network``, ``detection`` and ``description``.

        Raises
        ------
        D2RosError
            For an image that cannot be used, before any work is done.
        """
        return [self.features(response, watch) for response in self.respond(images, watch)]

    @torch.inference_mode()
    def respond(
        self, images: Sequence[NDArray[Any]], watch: Stopwatch | None = None
    ) -> list[ResponseMap]:
        """Run the network only; arguments and errors as in :meth:`extract`."""
        watch = watch or Stopwatch()
        prepared = [prepare(image, self.config.features.max_edge) for image in images]
        groups: dict[tuple[Any, ...], list[int]] = {}
        for index, (image, _) in enumerate(prepared):
            groups.setdefault((image.shape, image.dtype), []).append(index)
        responses: dict[int, ResponseMap] = {}
        for members in groups.values():
            batch = to_device(np.stack([prepared[index][0] for index in members]), self.device)
            watch.end_section("upload")
            maps = self.runtime.respond(batch)
            watch.end_section("network")
            for index, values in zip(members, maps, strict=True):
                responses[index] = ResponseMap(values, prepared[index][1], self._shorten)
        return [responses[index] for index in range(len(prepared))]

    @property
    def has_early_maps(self) -> bool:
        """Whether :meth:`early` works with these weights: the light network has no such layer."""
        return isinstance(self.network, Network)

    @cached_property
    def _projection(self) -> Projection:
        return build_projection(self.network, self.device, self.dtype)

    @torch.inference_mode()
    def early(self, image: NDArray[Any]) -> EarlyMap:
        """Run the first two layers only; arguments and errors as in :meth:`extract`."""
        prepared, scale = prepare(image, self.config.features.max_edge)
        batch = to_device(prepared[None], self.device)
        response = self.network.early(normalise(batch, self.dtype))
        return EarlyMap(self._projection(response)[0], scale)

    @torch.inference_mode()
    def features(self, response: ResponseMap, watch: Stopwatch | None = None) -> Features:
        """Detect and describe in a response map; `watch` as in :meth:`extract`."""
        watch = watch or Stopwatch()
        settings = self.config.features
        peaks = detection.detect(response.values)
        _, height, width = response.values.shape
        chosen = detection.spread(
            peaks.cells,
            peaks.scores,
            max(height, width) / settings.grid_cells,
            settings.max_keypoints,
        )
        cells, channels = peaks.cells[chosen], peaks.channels[chosen]
        watch.end_section("detection")
        descriptors = response.descriptors(cells)
        table = torch.cat([cells, peaks.scores[chosen, None], peaks.spreads[chosen].flatten(1)], 1)
        host = table.cpu().numpy()  # the one transfer back
        watch.end_section("description")
        return Features(
            keypoints=response.cells_to_pixels(host[:, :2]).astype(np.float32),
            covariances=_covariances(host[:, 3:].reshape(-1, 2, 2), response.scale),
            scores=host[:, 2].copy(),
            descriptors=descriptors,
            channels=channels,
            response=response,
        )


def describe(response: ResponseMap, pixels: ArrayLike) -> Tensor:
    """Descriptors at any place.

    Parameters
    ----------
    response
        From :meth:`Extractor.extract` or :meth:`Extractor.respond`.
    pixels
        ``(M, 2)`` raw pixels (u, v); beyond the map the nearest place within it counts.

    Returns
    -------
    ``(M, K)`` float32 on the device, of unit length, as those of the response's features.
    """
    return response.descriptors(_to_device(response, pixels))


def redetect(
    response: ResponseMap, pixels: ArrayLike, channels: Tensor, radius_cells: int
) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
    """Find the strongest peak of a given channel near each predicted place.

    Parameters
    ----------
    response
        Of the image to look in.
    pixels
        ``(M, 2)`` predicted raw pixels (u, v).
    channels
        ``(M,)`` int64, the channel of each keypoint where it was first detected.
    radius_cells
        Cells searched to each side; a cell is 4 network px.

    Returns
    -------
    found
        ``(M,)`` bool.
    pixels
        ``(M, 2)`` float32 raw pixels (u, v); the predicted place where nothing was found.
    scores
        ``(M,)`` float32; 0 where nothing was found.
    """
    channels = torch.as_tensor(channels, device=response.values.device)
    found, cells, scores = detection.redetect(
        response.values, _to_device(response, pixels), channels, radius_cells
    )
    host = torch.cat([found[:, None], cells, scores[:, None]], 1).cpu().numpy()
    places = response.cells_to_pixels(host[:, 1:3]).astype(np.float32)
    return host[:, 0] > 0, places, host[:, 3].copy()


def _to_device(response: ResponseMap, pixels: ArrayLike) -> Tensor:
    cells = response.pixels_to_cells(np.reshape(pixels, (-1, 2))).astype(np.float32)
    if not np.isfinite(cells).all():
        raise ValueError("pixels must be finite")
    return to_device(cells, response.values.device)


def _covariances(spreads: NDArray[np.float32], scale: NDArray[np.float64]) -> NDArray[np.float32]:
    """Squared peak widths, cells^2 -> covariances, raw px^2."""
    factor = SIGMA_PER_WIDTH * STRIDE / scale
    return (spreads * factor[:, None] * factor).astype(np.float32)
