"""One camera from image message to published result; runs in the worker's thread."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from d2_ros.camera import Camera, HeldCamera
from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.features.batch import BatchResult
from d2_ros.frontend import FrontEnd
from d2_ros.node.calibration import Calibration
from d2_ros.node.device import DeviceError, SharedDevice
from d2_ros.node.loops import Loops
from d2_ros.node.messages import read_image, stamp_of
from d2_ros.node.outputs import Outputs
from d2_ros.node.status import CameraStatus, FrameTimes
from d2_ros.records import FrameResult
from d2_ros.timing import CLOCK_JUMP
from d2_ros.tracks.policy import may_follow

CALIBRATION_PATIENCE = 2.0
"""Seconds the first image waits for a camera_info that comes a little later."""


@dataclass(frozen=True)
class DecodedFrame:
    """A frame that may be processed: the image, its header, stamp and calibration.

    `received` and `started` are when it came and when its turn came, ``time.monotonic_ns()``.
    """

    header: Header
    image: NDArray[Any]
    stamp: int
    camera: Camera | None
    received: int
    started: int


class CameraPipeline:
    """State of one camera between frames.

    A frame is opened, processed and published, one step after the other, so that the frames of
    several cameras can take each step together. Whatever is wrong with it is counted and logged,
    the step returns None, and the frame is done with.

    Parameters
    ----------
    name
        The camera's name.
    frontend, device, outputs, calibration, status, logger
        What the pipeline works with.
    loops
        Takes keyframes, where places are kept.
    now
        Gives the node's time, integer nanoseconds.
    """

    def __init__(
        self,
        name: str,
        frontend: FrontEnd,
        device: SharedDevice,
        outputs: Outputs,
        calibration: Calibration,
        status: CameraStatus,
        logger: RcutilsLogger,
        now: Callable[[], int],
        loops: Loops | None = None,
    ) -> None:
        self.name = name
        self.outputs = outputs
        self.calibration = calibration
        self.status = status
        self.loops = loops
        self._frontend = frontend
        self._device = device
        self._logger = logger
        self._now = now
        self._held = HeldCamera()
        self._last_stamp: int | None = None
        self._started = False
        self._told: set[str] = set()
        # Written by the executor's thread, applied by the worker before its next frame.
        self._next_config: Config | None = None
        self._reset_asked = False

    @property
    def config(self) -> Config:
        """The parameters of the last frame."""
        return self._frontend.config

    @property
    def may_follow(self) -> bool:
        """Whether the next frame may do without the network."""
        return may_follow(self._frontend.settled)

    def ask_config(self, config: Config) -> None:
        """Use `config` from the next frame on."""
        self._next_config = config

    def ask_reset(self) -> None:
        """Drop the window before the next frame."""
        self._reset_asked = True

    def open(
        self, message: Image | CompressedImage, received: int, cancelled: Callable[[], bool]
    ) -> DecodedFrame | None:
        """Decode an image and find its calibration.

        Parameters
        ----------
        message
            The image.
        received
            When it came, ``time.monotonic_ns()``.
        cancelled
            Whether the node was deactivated meanwhile, so that the result is not wanted.
        """
        self._apply_requests()
        stamp, started = stamp_of(message.header), time.monotonic_ns()
        if not self._admit(stamp):
            return None
        with self._faults_counted("bad_image", cancelled):
            image = read_image(message)
            with self._faults_counted("bad_calibration", cancelled):
                camera = self._camera_for(image)
                return DecodedFrame(message.header, image, stamp, camera, received, started)
        return None

    def process(
        self, frame: DecodedFrame, batched: BatchResult | None, cancelled: Callable[[], bool]
    ) -> FrameResult | None:
        """Run the front-end, on the frame's batch result if there is one."""
        if cancelled():
            self.status.count("stopped")
            return None
        with self._faults_counted("refused", cancelled):
            return self._device.process(
                self._frontend, frame.image, frame.stamp, frame.camera, batched
            )
        return None

    def publish(
        self,
        frame: DecodedFrame,
        result: FrameResult,
        right: NDArray[np.void] | None,
        cancelled: Callable[[], bool],
    ) -> None:
        """Send a result; `right` as in :meth:`Outputs.publish`."""
        if cancelled():
            self.status.count("stopped")
            return
        with self._faults_counted("refused", cancelled):
            self.outputs.publish(frame.header, frame.image, result, frame.camera, right)
            if self.loops is not None:
                self.loops.take(frame.header, frame.image, result, frame.camera)
            done = time.monotonic_ns()
            age = self._now() - frame.stamp
            spans = (frame.started - frame.received, done - frame.started, age)
            self.status.finish(result, FrameTimes(*(span * 1e-6 for span in spans)), right)

    @contextmanager
    def _faults_counted(self, cause: str, cancelled: Callable[[], bool]) -> Iterator[None]:
        """Count what goes wrong within, under `cause` if the input is to blame."""
        try:
            yield
        except D2RosError as error:
            cause = "device_failed" if isinstance(error, DeviceError) else cause
            self.drop(cause, f"frame refused: {error}")
        except Exception as error:  # a bug must not take the robot's node down
            if cancelled():  # the topics may be gone by now
                self.status.count("stopped")
                return
            if self.status.refuse("failed", repr(error)):
                self._logger.error(f"{self.name}: internal error\n{traceback.format_exc()}")
            self._reset("after an internal error")

    def drop(self, cause: str, reason: str) -> None:
        """Count a dropped frame, and say why now and then."""
        self._complain(cause, reason)

    def _complain(self, cause: str, reason: str) -> None:
        if self.status.refuse(cause, reason):
            self._logger.warning(f"{self.name}: {reason}")

    def _apply_requests(self) -> None:
        if self._next_config is not None:
            self._frontend.config, self._next_config = self._next_config, None
        if self._reset_asked:
            self._reset_asked = False
            self._reset("as asked")

    def _admit(self, stamp: int) -> bool:
        """Return whether a frame of this time is to be processed."""
        age, max_age = (self._now() - stamp) * 1e-9, self._frontend.config.input.max_age
        if 0 < max_age < age:
            self.drop("too_old", f"frame {stamp} is {age:.3f} s old, input.max_age is {max_age:g}")
            return False
        last = self._last_stamp
        if last is not None and stamp <= last:
            if last - stamp < CLOCK_JUMP:
                self.drop("out_of_order", f"frame {stamp} is not after {last}")
                return False
            self._reset("because time jumped back")
            if self.loops is not None:
                self.loops.begin_run()
        self._last_stamp = stamp
        return True

    def _camera_for(self, image: NDArray[Any]) -> Camera | None:
        if not self._started and not self.calibration.wait(CALIBRATION_PATIENCE):
            self._tell_uncalibrated("no camera_info has arrived")
        if self.calibration.uncalibrated:
            self._tell_uncalibrated("the driver is not calibrated (K is all zero)")
        height, width = image.shape[:2]
        own = self.calibration.camera_for(width, height)
        if self.calibration.sizeless:
            self._tell_once(f"camera_info has no size; taking the images', {width}x{height}")
        camera, change = self._held.update(own, (width, height))
        if change:
            self._drop_window(f"because {change}")
        if camera is None and self._held.calibrated:
            self._complain(
                "calibration_lost",
                "camera_info has become zero, as of a driver that is not calibrated; "
                "until it is back there are no bearings (do two nodes publish it?)",
            )
        self._started = True
        return camera

    def _tell_uncalibrated(self, reason: str) -> None:
        self._tell_once(
            f"{reason}: pixels only, x y z are NaN, and nothing of it in feature_tracks for VINS",
            "uncalibrated",
        )

    def _tell_once(self, words: str, topic: str = "") -> None:
        """Warn, unless these words, or others on the same topic, have been said."""
        if (topic or words) not in self._told:
            self._told.add(topic or words)
            self._logger.warning(f"{self.name}: {words}")

    def _reset(self, why: str) -> None:
        self._held.forget()
        self._drop_window(why)

    def _drop_window(self, why: str) -> None:
        self._frontend.reset()
        self.outputs.forget()
        due, piled = self.status.reset(why)
        said = f"{self.name}: keyframe window dropped {why}"
        if due and piled:  # a call of its own: rclpy allows a line of code one severity
            self._logger.warning(said)
        elif due:
            self._logger.info(said)
