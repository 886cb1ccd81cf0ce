"""The calibration of an IMU on a camera's body."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from d2_ros.errors import D2RosError

_KEYS = {
    "accelerometer_noise_density": "m/s^2/sqrt(Hz)",
    "gyroscope_noise_density": "rad/s/sqrt(Hz)",
    "accelerometer_random_walk": "m/s^3/sqrt(Hz)",
    "gyroscope_random_walk": "rad/s^2/sqrt(Hz)",
}


@dataclass(frozen=True)
class ImuCalibration:
    """An IMU and its place, in Kalibr's terms and units.

    Attributes
    ----------
    T_cam_imu
        ``(4, 4)`` maps points of the IMU's frame into the (left) camera's, m.
    accelerometer_noise_density, gyroscope_noise_density
        White noise, m/s^2/sqrt(Hz) and rad/s/sqrt(Hz).
    accelerometer_random_walk, gyroscope_random_walk
        Of the biases, m/s^3/sqrt(Hz) and rad/s^2/sqrt(Hz).
    gravity
        m/s^2.
    timeshift_cam_imu
        s; the IMU's time is the camera's plus this.
    """

    T_cam_imu: NDArray[np.float64]
    accelerometer_noise_density: float
    gyroscope_noise_density: float
    accelerometer_random_walk: float
    gyroscope_random_walk: float
    gravity: float = 9.81
    timeshift_cam_imu: float = 0.0


def read_imu_calibration(path: Path) -> ImuCalibration:
    """Read a YAML file with the attributes of :class:`ImuCalibration`, all but the last two needed.

    Raises
    ------
    D2RosError
        If it cannot be read, or a value is missing, unknown or impossible.
    """
    try:
        told = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise D2RosError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise D2RosError(f"{path} is no YAML; see docs/mappers/d2_mapper.md") from None
    told = told if isinstance(told, dict) else {}
    known = {"T_cam_imu": "4x4", **_KEYS, "gravity": "m/s^2", "timeshift_cam_imu": "s"}
    if wrong := [str(key) for key in told if key not in known]:
        raise D2RosError(f"{path} has an unknown {wrong[0]}; known are {', '.join(known)}")
    if missing := [key for key in ("T_cam_imu", *_KEYS) if key not in told]:
        raise D2RosError(f"{path} lacks {missing[0]} ({known[missing[0]]}); Kalibr gives it")
    try:
        pose = np.array(told.pop("T_cam_imu"), np.float64)
        rigid = pose.shape == (4, 4) and np.allclose(pose[3], [0, 0, 0, 1])
        rigid = rigid and np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-3)
        if not (rigid and np.isfinite(pose).all() and np.linalg.det(pose[:3, :3]) > 0):
            raise ValueError
    except (TypeError, ValueError):
        raise D2RosError(f"{path}: T_cam_imu must be four rows of a rotation and a place") from None
    for key, value in told.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        least = 1e-12 if key in _KEYS else {"gravity": 1.0}.get(key, -10.0)
        if not number or not least <= value <= (20.0 if key == "gravity" else 10.0):
            raise D2RosError(f"{path}: {key} is {value!r}; it must be a number in {known[key]}")
    return ImuCalibration(pose, **told)
