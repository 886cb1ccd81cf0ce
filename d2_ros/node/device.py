"""The device that all cameras share, and what happens when it fails."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rclpy.impl.rcutils_logger import RcutilsLogger

from d2_ros.camera import Camera
from d2_ros.config import Config, with_values
from d2_ros.errors import D2RosError
from d2_ros.features.batch import BatchResult, respond_together
from d2_ros.features.extractor import Extractor
from d2_ros.frontend import FrontEnd
from d2_ros.records import FrameResult
from d2_ros.workers import IN_TURN, workers_beside

_WORDS = ("CUDA", "cuDNN", "CUDNN", "CUBLAS", "NVML")


class DeviceError(D2RosError):
    """The device cannot go on, and by parameter ``fallback`` no other takes its place."""


class SharedDevice:
    """The network on its device; all front-ends of the node run through here, in one thread.

    Out of memory, a frame is tried once more after unused memory was given back. If that fails
    too, or the device is lost, parameter ``fallback`` decides.

    Attributes
    ----------
    workers
        Who runs the network and solves windows: live beside the frames, in a replay in turn.
    complaint
        Why the device in use is not the one asked for; empty while it is.

    Raises
    ------
    D2RosError
        If the weights or the device cannot be used.
    """

    def __init__(self, config: Config, logger: RcutilsLogger) -> None:
        self.complaint = ""
        self._logger = logger
        live = config.input.qos == "live"
        self.workers = workers_beside(logger.warning) if live else IN_TURN
        try:  # where it will run, for the threads that it starts to have the priority of that one
            self._extractor = self.workers.network.submit(_warm_extractor, config).result()
        except BaseException:
            self.workers.close()
            raise
        self._frontends: list[FrontEnd] = []
        self._batches = True

    @property
    def torch_device(self) -> torch.device:
        """The device in use."""
        return self._extractor.device

    @property
    def name(self) -> str:
        """Name of the device in use."""
        return str(self._extractor.device)

    @property
    def memory_mb(self) -> str:
        """Memory that the process holds on the device, MiB."""
        if not self.name.startswith("cuda"):
            return "0"
        return f"{torch.cuda.memory_reserved(self._extractor.device) / 2**20:.0f}"

    def add_frontend(self, config: Config) -> FrontEnd:
        """Return a new front-end on this device; its frames go through :meth:`process`."""
        self._frontends.append(FrontEnd(config, self._extractor, self.workers))
        return self._frontends[-1]

    def respond(self, images: Sequence[NDArray[Any]]) -> list[BatchResult | None]:
        """Run the network over a group's images in one batch; None where that was not possible.

        Then :meth:`process` runs it image by image, and deals with whatever is wrong with the
        device or one of the images. Where a batch does not fit the memory no other is tried.
        """
        none: list[BatchResult | None] = [None] * len(images)
        if len(images) < 2 or not self._batches:
            return none
        try:
            return [*respond_together(self._extractor, images)]
        except torch.cuda.OutOfMemoryError as error:
            self._batches = False
            self._logger.warning(
                f"{_first_line(error)}; going on with one image at a time instead of {len(images)}"
            )
        except Exception:  # image by image it comes again, and then counts for the right camera
            return none
        give_memory_back()
        return none

    def process(
        self,
        frontend: FrontEnd,
        image: NDArray[Any],
        stamp: int,
        camera: Camera | None,
        batched: BatchResult | None = None,
    ) -> FrameResult:
        """Process one frame, elsewhere if need be.

        Raises
        ------
        DeviceError
            If the device fails and nothing takes its place.
        D2RosError
            As the front-end does.
        """
        try:
            return self._try_twice(frontend, image, stamp, camera, batched)
        except RuntimeError as error:
            if not is_device_error(error):
                raise
            self._fall_back(frontend.config, error)
        return frontend.process(image, stamp, camera)

    def _try_twice(
        self,
        frontend: FrontEnd,
        image: NDArray[Any],
        stamp: int,
        camera: Camera | None,
        batched: BatchResult | None,
    ) -> FrameResult:
        try:
            return frontend.process(image, stamp, camera, batched)
        except torch.cuda.OutOfMemoryError as error:
            self._logger.warning(f"{_first_line(error)}; trying again with unused memory freed")
        give_memory_back()
        return frontend.process(image, stamp, camera, batched)

    def _fall_back(self, config: Config, error: RuntimeError) -> None:
        failure = f"{self.name} failed ({_first_line(error)})"
        if config.fallback == "none":
            raise DeviceError(
                f"{failure}; lower features.max_edge, or set fallback to cpu"
            ) from error
        values = {"device": "cpu", "precision": "auto"}
        if config.runtime == "auto":  # a model of 8 bits may have to be made first, for minutes
            values["runtime"] = "torch"
        self._extractor = Extractor(with_values(config, values))
        for frontend in self._frontends:
            frontend.use(self._extractor)
        self.complaint = f"{failure}; going on with the CPU, a few seconds per frame"
        self._logger.error(f"{self.complaint}; configure the node anew to try the device again")


def _warm_extractor(config: Config) -> Extractor:
    extractor = Extractor(config)
    extractor.extract([np.zeros((64, 64), np.uint8)])  # first use of a GPU is slow
    return extractor


def is_device_error(error: BaseException) -> bool:
    """Return whether torch says that its device, not the program, has failed."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def give_memory_back() -> None:
    """Return what nobody uses any more to the device; one that is lost cannot take it."""
    gc.collect()
    if torch.cuda.is_initialized():
        with suppress(RuntimeError):
            torch.cuda.empty_cache()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
