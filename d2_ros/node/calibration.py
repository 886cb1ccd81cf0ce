"""What the node knows of one camera's calibration, from its CameraInfo messages."""

from __future__ import annotations

from threading import Event

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from d2_ros.camera import Camera, on_pair
from d2_ros.errors import D2RosError
from d2_ros.node.messages import read_camera


class Calibration:
    """The newest calibration, whether it came once, latched, or with every image."""

    def __init__(self, rectified: bool) -> None:
        self._rectified = rectified
        self._message: CameraInfo | None = None
        self._state: Camera | D2RosError | None = None
        self._arrived = Event()

    @property
    def arrived(self) -> bool:
        """Whether any message has come."""
        return self._arrived.is_set()

    @property
    def uncalibrated(self) -> bool:
        """Whether the driver says that it has no calibration (K all zero)."""
        return self._message is not None and self._state is None

    @property
    def sizeless(self) -> bool:
        """Whether the calibration does not say of what image size it is."""
        return isinstance(self._state, Camera) and not (self._state.width and self._state.height)

    def receive(self, message: CameraInfo) -> None:
        """Take over a message; a repetition costs only the comparison."""
        message.header = Header()
        if message == self._message:
            return
        try:
            self._state = read_camera(message, self._rectified)
        except D2RosError as error:
            self._state = error
        self._message = message
        self._arrived.set()

    @property
    def camera(self) -> Camera | None:
        """The camera at the size that its calibration says; None without one that is usable."""
        return self._state if isinstance(self._state, Camera) else None

    @property
    def mount(self) -> NDArray[np.float64] | None:
        """``(4, 4)`` T_pair_camera where the camera is one of a stereo pair, by R and P."""
        message = self._message
        return None if message is None else on_pair(message.r, message.p, self._rectified)

    def wait(self, seconds: float) -> bool:
        """Wait for the first message; return whether one has come by now."""
        return self._arrived.wait(seconds)

    def camera_for(self, width: int, height: int) -> Camera | None:
        """Return the camera of an image of this size, None where there is no calibration.

        One that does not say its own size, as some drivers send it, is taken for the image's.

        Raises
        ------
        D2RosError
            If the calibration is unusable or belongs to another image size.
        """
        state = self._state
        if isinstance(state, D2RosError):
            raise state
        if state is None:
            return None
        state = state.at_size(width, height)
        if (state.width, state.height) != (width, height):
            raise D2RosError(
                f"camera_info is for {state.width}x{state.height} but the image is "
                f"{width}x{height}; set binning and roi in camera_info or calibrate at this size"
            )
        return state
