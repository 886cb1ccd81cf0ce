"""What can be chosen of the synthetic sequence, and what follows from it alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.sources.synthetic.room import flight

_LIMITS = {
    "frames": (2, 2000),
    "seed": (0, 2**31 - 1),
    "rate_hz": (1, 200),
    "baseline_mm": (0, 1000),
    "night": (0, 1),
    "cover_ms": (0, 5000),
}


@dataclass(frozen=True)
class SyntheticOptions:
    """Size, length and randomness of the sequence.

    Attributes
    ----------
    width, height
        Image size, px: 4:3, from 160x120 to 640x480. The field of view stays the same.
    frames
        Length of the sequence.
    seed
        Draws sensor noise and hand-held shake.
    rate_hz
        Frames per second; the flight itself takes its time whatever the rate.
    baseline_mm
        More than 0: the right camera of a stereo pair, so far to the right of the one of 0.
    night
        1: the room by night, lit by two lamps; the camera exposes for 30 ms and amplifies.
    cover_ms
        Something lies on the lens for so long, after a third of the frames.

    Raises
    ------
    D2RosError
        If a value is out of range.
    """

    width: int = 640
    height: int = 480
    frames: int = 90
    seed: int = 0
    rate_hz: int = 20
    baseline_mm: int = 0
    night: int = 0
    cover_ms: int = 0

    def __post_init__(self) -> None:
        if not 160 <= self.width <= 640 or self.width * 3 != self.height * 4:
            raise D2RosError(
                f"synthetic size {self.width}x{self.height} is not possible; "
                "use a 4:3 size from 160x120 to 640x480"
            )
        for name, (low, high) in _LIMITS.items():
            if not low <= getattr(self, name) <= high:
                value = getattr(self, name)
                raise D2RosError(f"synthetic {name} is {value}; it must be {low} to {high}")

    @property
    def period(self) -> int:
        """Time between two frames, integer nanoseconds."""
        return round(1e9 / self.rate_hz)

    @property
    def blur_frames(self) -> range:
        """Frames taken with the shutter open long: motion blur of half the motion per frame."""
        return range(round(0.35 * self.frames), round(0.45 * self.frames))

    @property
    def exposure_frames(self) -> range:
        """Frames over which gain, gamma and offset change and come back."""
        return range(round(0.6 * self.frames), round(0.8 * self.frames))

    @property
    def covered_frames(self) -> range:
        """Frames that show nothing but read-out noise."""
        begin = round(self.frames / 3)
        return range(begin, begin + round(self.cover_ms * 1e6 / self.period))

    def response(self, frame: int) -> tuple[float, float, float]:
        """Gain, gamma and offset (gray values) of the camera in a frame."""
        if self.night or frame not in self.exposure_frames:
            return 1.0, 1.0, 0.0
        place = (frame - self.exposure_frames.start + 0.5) / len(self.exposure_frames)
        depth = float(1 - np.cos(2 * np.pi * place)) / 2
        return 1 - 0.5 * depth, 1 + 0.25 * depth, 12 * depth

    def pose(self, position: float) -> NDArray[np.float64]:
        """Exact ``(4, 4)`` T_world_camera at a frame; fractions lie between frames."""
        pose = flight(position * self.period * 1e-9, self.seed)
        pose[:3, 3] += self.baseline_mm * 1e-3 * pose[:3, 0]
        return pose

    def camera(self) -> Camera:
        """Scale the calibration of the 640x480 image, in centre-of-pixel coordinates."""
        scale = self.width / 640
        matrix = np.diag([421.3 * scale, 420.6 * scale, 1.0])
        matrix[:2, 2] = (np.array([324.7, 236.2]) + 0.5) * scale - 0.5
        return Camera(self.width, self.height, matrix, np.array([-0.18, 0.045, 5e-4, -3e-4]))


def parse_options(spec: str) -> SyntheticOptions:
    """Read text such as ``size=320x240,frames=40,seed=0,rate=20``; what is left out is default.

    ``baseline`` is in mm, ``cover`` in ms; ``night=1`` is the room by night.

    Raises
    ------
    D2RosError
        For an unknown key or a value that is no number or out of range.
    """
    values: dict[str, int] = {}
    names = {name.partition("_")[0]: name for name in _LIMITS}
    for item in spec.split(",") if spec else ():
        key, _, text = item.partition("=")
        try:
            if key == "size":
                width, height = text.split("x")
                values |= {"width": int(width), "height": int(height)}
            else:
                values[names[key]] = int(text)
        except (KeyError, ValueError):
            raise D2RosError(
                f"synthetic option {item!r} is not understood; "
                "write for example size=640x480,frames=90,seed=0,rate=20"
            ) from None
    return SyntheticOptions(**values)
