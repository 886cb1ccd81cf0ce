"""The frames of one camera, or of a synchronised group, on their way through the shared network."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import CompressedImage, Image

from d2_ros.config import Config, OutputConfig
from d2_ros.features.batch import BatchResult
from d2_ros.matching.stereo import StereoView, find_right
from d2_ros.node.camera_pipeline import CameraPipeline, DecodedFrame
from d2_ros.node.device import SharedDevice
from d2_ros.node.status import LOG_INTERVAL
from d2_ros.records import FrameResult

Entry = tuple[Image | CompressedImage, int]
"""An image, and when it came, ``time.monotonic_ns()``."""


def stereo_pair(config: Config) -> tuple[str, str] | None:
    """Return the names of the left and the right camera, if there is a stereo pair."""
    return (config.cameras[0], config.cameras[1]) if config.input.stereo else None


def output_of(camera: str, config: Config) -> tuple[OutputConfig, int]:
    """Return which topics a camera has, and of how many cameras its topics tell.

    In a stereo pair the left camera's list what the right one sees.
    """
    left, right = stereo_pair(config) or (None, None)
    if camera == right:
        return replace(config.output, vins_format="none"), 1
    return config.output, 2 if camera == left else 1


class MultiCameraPipeline:
    """All cameras of the node; runs in the worker's thread.

    Parameters
    ----------
    pipelines
        By camera.
    device
        The network that they share.
    pair
        Left and right camera of a stereo pair.
    logger
        Where to say what no single camera can.
    """

    def __init__(
        self,
        pipelines: Mapping[str, CameraPipeline],
        device: SharedDevice,
        pair: tuple[str, str] | None,
        logger: RcutilsLogger,
    ) -> None:
        self._pipelines = pipelines
        self._device = device
        self._pair = pair
        self._logger = logger

    def handle(self, entries: Mapping[str, Entry], cancelled: Callable[[], bool]) -> None:
        """Process and publish images of one time, the network running once for all of them.

        Where frames may be followed, each camera runs it for itself when it needs to.

        One that cannot be used is dropped for its own reasons, and the others go on.
        """
        frames, results = {}, {}
        for camera, (message, received) in entries.items():
            frame = self._pipelines[camera].open(message, received, cancelled)
            if frame is not None:
                frames[camera] = frame
        batch_results: list[BatchResult | None] = [None] * len(frames)
        if not any(self._pipelines[camera].may_follow for camera in frames):
            batch_results = self._device.respond([frame.image for frame in frames.values()])
        for (camera, frame), batched in zip(frames.items(), batch_results, strict=True):
            result = self._pipelines[camera].process(frame, batched, cancelled)
            if result is not None:
                results[camera] = result
        right = self._find_right(frames, results)
        for camera, result in results.items():
            seen = right if self._pair and camera == self._pair[0] else None
            self._pipelines[camera].publish(frames[camera], result, seen, cancelled)

    def _find_right(
        self, frames: Mapping[str, DecodedFrame], results: dict[str, FrameResult]
    ) -> NDArray[np.void] | None:
        """Return what the right camera sees of the left one's features; adds its time to those."""
        if self._pair is None or not results.keys() >= set(self._pair):
            return None
        begin = time.perf_counter()
        views = []
        for name in self._pair:
            camera = frames[name].camera
            if camera is None:  # without bearings there is nothing to list
                return None
            views.append(StereoView(frames[name].image, camera, results[name]))
        pipeline = self._pipelines[self._pair[0]]
        try:
            found = find_right(views[0], views[1], pipeline.config, self._device.torch_device)
        except Exception:  # the left camera's own tracks are still good
            self._logger.error(
                f"{pipeline.name}: no stereo matches\n{traceback.format_exc()}",
                throttle_duration_sec=LOG_INTERVAL,
            )
            return None
        spent = {"stereo": (time.perf_counter() - begin) * 1e3}
        result = results[pipeline.name]
        results[pipeline.name] = replace(result, timings_ms={**result.timings_ms, **spent})
        return found
