"""One camera from image message to published result; runs in the worker's thread."""

from __future__ import annotations

import time
import traceback
from typing import Any, Protocol

from numpy.typing import NDArray
from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import CompressedImage, Image

from d2_ros.camera import Camera
from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.node.calibration import Calibration
from d2_ros.node.diagnostics import CameraStatus
from d2_ros.node.messages import read_image, stamp_of
from d2_ros.node.outputs import Outputs
from d2_ros.records import FrameResult
from d2_ros.timing import CLOCK_JUMP

CALIBRATION_PATIENCE = 2.0
"""Seconds the first image waits for a camera_info that comes a little later."""


class Processor(Protocol):
    """The part of :class:`d2_ros.frontend.FrontEnd` that a stream uses."""

    config: Config

    def process(self, image: NDArray[Any], stamp: int, camera: Camera | None = None) -> FrameResult:
        """Process one frame."""
        ...

    def reset(self) -> None:
        """Drop the keyframe window."""
        ...


class CameraStream:
    """State of one camera between frames."""

    def __init__(
        self,
        name: str,
        frontend: Processor,
        outputs: Outputs,
        calibration: Calibration,
        status: CameraStatus,
        logger: RcutilsLogger,
    ) -> None:
        self.name = name
        self.outputs = outputs
        self.calibration = calibration
        self.status = status
        self._frontend = frontend
        self._logger = logger
        self._camera: Camera | None = None
        self._last_stamp: int | None = None
        self._started = False
        self._told_uncalibrated = False
        # Written by the executor's thread, applied by the worker before its next frame.
        self._next_config: Config | None = None
        self._reset_asked = False

    def ask_config(self, config: Config) -> None:
        """Use `config` from the next frame on."""
        self._next_config = config

    def ask_reset(self) -> None:
        """Drop the window before the next frame."""
        self._reset_asked = True

    def handle(self, message: Image | CompressedImage) -> None:
        """Process and publish one image; whatever is wrong with it is counted and logged."""
        self._apply_requests()
        if not self._admit(stamp_of(message.header)):
            return
        cause = "bad_image"
        try:
            started = time.perf_counter()
            image = read_image(message)
            cause = "bad_calibration"
            camera = self._camera_for(image)
            cause = "refused"
            result = self._frontend.process(image, stamp_of(message.header), camera)
            self.outputs.publish(message.header, image, result, camera)
            self.status.finish(result, (time.perf_counter() - started) * 1e3)
        except D2RosError as error:
            if self.status.refuse(cause, str(error)):
                self._logger.warning(f"{self.name}: frame refused: {error}")
        except Exception as error:  # a bug must not take the robot's node down
            if self.status.refuse("failed", repr(error)):
                self._logger.error(f"{self.name}: internal error\n{traceback.format_exc()}")
            self._reset("after an internal error")

    def _apply_requests(self) -> None:
        if self._next_config is not None:
            self._frontend.config, self._next_config = self._next_config, None
        if self._reset_asked:
            self._reset_asked = False
            self._reset("as asked")

    def _admit(self, stamp: int) -> bool:
        """Return whether a frame of this time is to be processed."""
        last = self._last_stamp
        if last is not None and stamp <= last:
            if last - stamp < CLOCK_JUMP:
                if self.status.refuse("out_of_order", f"frame {stamp} is not after {last}"):
                    self._logger.warning(f"{self.name}: frame {stamp} skipped: not after {last}")
                return False
            self._reset("because time jumped back")
        self._last_stamp = stamp
        return True

    def _camera_for(self, image: NDArray[Any]) -> Camera | None:
        if not self._started and not self.calibration.wait(CALIBRATION_PATIENCE):
            self._tell_uncalibrated("no camera_info has arrived")
        if self.calibration.uncalibrated:
            self._tell_uncalibrated("the driver is not calibrated (K is all zero)")
        camera = self.calibration.camera_for(image.shape[1], image.shape[0])
        if camera is not self._camera and self._started:
            self._reset("because the calibration changed")
        self._camera, self._started = camera, True
        return camera

    def _tell_uncalibrated(self, reason: str) -> None:
        if not self._told_uncalibrated:
            self._told_uncalibrated = True
            self._logger.warning(
                f"{self.name}: {reason}: pixels only, x y z are NaN, "
                "and there is no feature_tracks message for VINS"
            )

    def _reset(self, why: str) -> None:
        self._frontend.reset()
        self.outputs.forget()
        self.status.count("resets")
        self._logger.info(f"{self.name}: keyframe window dropped {why}")
