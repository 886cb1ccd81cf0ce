"""The parameters of the mapper: default, unit, range and meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _param(
    default: Any,
    description: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """Declare a field as :func:`d2_ros.config.param` does, which a mapper may not know."""
    known = {"description": description, "unit": unit, "low": low, "high": high}
    return field(default=default, metadata={**known, "choices": (), "live": False})


KEEP_ALL = 2**31
"""``keep_keyframes`` of a recording, where nothing waits."""


@dataclass(frozen=True)
class MapperConfig:
    """How the mapper starts, follows and smooths."""

    window: int = _param(
        16, "Keyframes whose observations are used together; more drift less and cost more.",
        low=3, high=100,
    )  # fmt: skip
    free: int = _param(
        6, "The newest keyframes of the window that move; the older ones hold them.",
        low=2, high=100,
    )  # fmt: skip
    max_landmarks: int = _param(
        300, "Tracks that move the keyframes, those that tell most by their covariances first.",
        low=20, high=5000,
    )  # fmt: skip
    sigma_floor: float = _param(
        0.1, "Error of calibration and model, added to every published covariance (standard "
        "deviation).",
        unit="px", low=0.0, high=10.0,
    )  # fmt: skip
    max_error: float = _param(
        4.0, "Observations further than this from where they are expected are wrong.",
        unit="px", low=0.1, high=100.0,
    )  # fmt: skip
    min_points: int = _param(
        15, "Landmarks that must be seen where they are expected, or else a frame is lost.",
        low=6, high=1000,
    )  # fmt: skip
    start_points: int = _param(40, "Landmarks that a new map must begin with.", low=10, high=1000)
    start_parallax: float = _param(
        0.02, "Median parallax between the two keyframes that a map begins with, rotation removed.",
        unit="rad", low=0.001, high=0.5,
    )  # fmt: skip
    max_depth_error: float = _param(
        0.3, "Landmarks whose depth is less certain than this share of it are not yet used to "
        "place a frame.",
        low=0.01, high=10.0,
    )  # fmt: skip
    coast: float = _param(
        1.0, "Time over which the last motion is taken to go on where a map has to be begun anew.",
        unit="s", low=0.0, high=60.0,
    )  # fmt: skip
    clock_jump: float = _param(
        1.0, "A stamp this much before the last one means that the recording starts over.",
        unit="s", low=0.001, high=3600.0,
    )  # fmt: skip
    keep_landmarks: int = _param(
        100_000, "Landmarks that the map keeps; the oldest are forgotten.", low=100, high=10_000_000
    )
    keep_frames: int = _param(
        100_000, "Frames whose poses are kept, about; the oldest are forgotten.",
        low=1000, high=10_000_000,
    )  # fmt: skip
    keep_keyframes: int = _param(
        0, "Keyframes whose observations are kept (64 kB each), all of which are smoothed together "
        "when the map is saved: 15 to 180 ms each, for which frames wait. d2-ros map keeps all.",
        low=0, high=100_000,
    )  # fmt: skip
    loops: bool = _param(
        False,
        "Put the map right where the front-end knows a place again (its topic loops; "
        "places.enabled). The node then has its odometry in odom_frame, which never jumps.",
    )
    odom_frame: str = _param("odom", "Frame of the odometry where `loops` is true (node only).")
    stereo: bool = _param(
        False, "The front-end's camera is the left one of a pair (node only): in metres."
    )
    imu_topic: str = _param(
        "", "sensor_msgs/Imu on the camera's body (node only): in metres. Empty: none."
    )
    imu_calibration: str = _param(
        "", "YAML file of that IMU's place and noise; docs/mappers/d2_mapper.md (node only)."
    )
    frame: str = _param(
        "map", "Frame of the map (node only): x forward, y left, z up as the first keyframe looks."
    )
    path_length: int = _param(
        1000, "Keyframes on the path topic, the newest (node only).", low=1, high=100_000
    )
    folder: str = _param("d2_map", "Folder that ~/save_map writes (node only).")
    rectified: bool = _param(
        False, "As the front-end's input.rectified: use P and no distortion (node only)."
    )
