"""The right camera of a stereo pair in ``d2-ros replay``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from d2_ros.frontend import FrontEnd
    from d2_ros.records import FrameResult
    from d2_ros.sources.base import Frame

TOLERANCE = 0.003
"""Seconds, where ``input.sync_tolerance`` is 0: cameras that are triggered together."""


class RightCamera:
    """Looks for the left camera's features in the frames of the right one.

    Parameters
    ----------
    frames
        Of the right camera, in time order.
    frontend
        Of the right camera; shares the left one's network.
    T_left_right
        ``(4, 4)`` where it is, m; None where that is not known.

    Attributes
    ----------
    T_left_right
        As given.
    pairs
        How many frames have had a partner.
    seen
        What the front-end says of the last of these.
    """

    def __init__(
        self,
        frames: Iterable[Frame],
        frontend: FrontEnd,
        T_left_right: NDArray[np.float64] | None = None,
    ) -> None:
        from d2_ros.sources.pairs import Partners

        tolerance = frontend.config.input.sync_tolerance or TOLERANCE
        self._frontend = frontend
        self._partners = Partners(frames, round(tolerance * 1e9))
        self.pairs, self.T_left_right = 0, T_left_right
        self.seen: FrameResult | None = None

    def reset(self) -> None:
        """Begin anew: the left camera's window was dropped."""
        self._frontend.reset()

    def find(self, left: Frame, result: FrameResult) -> tuple[Frame, NDArray[np.void]] | None:
        """Return the right frame of the left one's time and what it shows of its features.

        None where there is no such frame, or one of both has no calibration.

        Raises
        ------
        D2RosError
            For a right frame that cannot be used.
        """
        from d2_ros.matching.stereo import StereoView, find_right

        right = self._partners.at(left.stamp)
        if right is None or left.camera is None or right.camera is None:
            return None
        seen = self.seen = self._frontend.process(right.image, right.stamp, right.camera)
        self.pairs += 1
        views = (
            StereoView(left.image, left.camera, result),
            StereoView(right.image, right.camera, seen),
        )
        return right, find_right(*views, self._frontend.config, self._frontend.device)
