"""What an IMU on a moving camera would measure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from d2_ros.imu import ImuCalibration

STEP = 1e-4  # s, of the difference quotients

T_CAM_IMU = np.eye(4)
T_CAM_IMU[:3, :3] = Rotation.from_rotvec([0.3, -1.2, 0.8]).as_matrix()
T_CAM_IMU[:3, 3] = [0.05, -0.08, 0.03]

CALIBRATION = ImuCalibration(T_CAM_IMU, 2e-3, 1.7e-4, 3e-3, 2e-5)
"""Noise of EuRoC's sensor, an ADIS16448."""


def samples(
    pose: Callable[[float], Any],
    times: Any,
    down: Any = (0.0, 0.0, -1.0),
    seed: int | None = 0,
    calibration: ImuCalibration = CALIBRATION,
    bias: Any = (0.004, -0.003, 0.002, 0.06, -0.04, 0.05),
) -> Any:
    """Angular velocity and specific force, ``(N, 6)``, along ``pose(time)``, T_world_camera.

    Noise as the calibration says, and constant biases; exact with ``seed=None``.
    """
    values = []
    for time in times:
        before, now, after = (
            pose(time + shift) @ calibration.T_cam_imu for shift in (-STEP, 0.0, STEP)
        )
        turn = Rotation.from_matrix(before[:3, :3].T @ after[:3, :3]).as_rotvec() / (2 * STEP)
        force = (before[:3, 3] - 2 * now[:3, 3] + after[:3, 3]) / STEP**2
        force = now[:3, :3].T @ (force - calibration.gravity * np.asarray(down))
        values.append([*turn, *force])
    exact = np.array(values)
    if seed is None:
        return exact
    rate = 1 / np.median(np.diff(times))
    told = calibration
    densities = (told.gyroscope_noise_density, told.accelerometer_noise_density)
    sigma = np.repeat(densities, 3) * np.sqrt(rate)
    noise = np.random.default_rng(seed).normal(size=exact.shape) * sigma
    return exact + noise + np.asarray(bias)
