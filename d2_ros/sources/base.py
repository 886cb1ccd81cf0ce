"""The value a source yields, and what every source offers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError

MAKER = "d2_ros"
"""Whom the head of a bag written here names as its maker."""

END_OF_TIME = 2**31 * 10**9
"""What ROS cannot say any more, ns: ``builtin_interfaces/Time`` counts seconds in an int32."""


@dataclass(frozen=True)
class Frame:
    """One camera image.

    Attributes
    ----------
    stamp
        Integer nanoseconds, from 0 to below :data:`END_OF_TIME`.
    image
        ``(H, W)`` gray or ``(H, W, 3)`` BGR, uint8 or uint16.
    camera
        The calibration for this very image size, or None where there is none. One that says no
        size is taken for the image's.
    frame_id
        The camera's optical frame.
    recorded
        When a bag has recorded it, integer nanoseconds; None elsewhere.
    """

    stamp: int
    image: NDArray[np.uint8] | NDArray[np.uint16]
    camera: Camera | None
    frame_id: str = "camera"
    recorded: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.stamp < END_OF_TIME:
            raise D2RosError(
                f"an image is stamped {self.stamp} ns; ROS can say 0 to {END_OF_TIME - 1}, that "
                "is to the year 2038"
            )
        height, width = self.image.shape[:2]
        camera = self.camera and self.camera.at_size(width, height)
        object.__setattr__(self, "camera", camera)
        if camera is not None and (camera.width, camera.height) != (width, height):
            raise D2RosError(
                f"the image at {self.stamp} ns is {width}x{height} but its calibration is for "
                f"{camera.width}x{camera.height}; give the calibration of this very resolution"
            )


class UnusableFrame(D2RosError):
    """One frame cannot be used; the iterator that raised it goes on with the next one."""


class Source(Protocol):
    """Frames of one camera in time order; iterating twice gives the same frames.

    An iterator raises :class:`UnusableFrame` in place of a frame that cannot be used, and may be
    asked for the next frame then (so it is no generator). Any other :class:`D2RosError` tells that
    the source is damaged: it comes after all frames that could be had.
    """

    @property
    def name(self) -> str:
        """What was opened, for reports."""
        ...

    def __len__(self) -> int:
        """Return the number of frames."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in time order."""
        ...

    def poses(self) -> NDArray[np.float64] | None:
        """Ground truth ``T_world_camera``, ``(len, 4, 4)``, NaN where unknown; None without.

        The rows are those of the frames in their order, the unusable ones among them.
        """
        ...
