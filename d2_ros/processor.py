"""The interface of the front-end, for whoever feeds it with frames or stands in for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

if TYPE_CHECKING:
    from d2_ros.camera import Camera
    from d2_ros.config import Config
    from d2_ros.records import FrameResult


class Processor(Protocol):
    """The part of :class:`d2_ros.frontend.FrontEnd` that takes frames one by one."""

    config: Config

    def process(self, image: NDArray[Any], stamp: int, camera: Camera | None = None) -> FrameResult:
        """Process one frame."""
        ...

    def reset(self) -> None:
        """Drop the keyframe window."""
        ...
