"""An IMU beside the camera: what it says between keyframes (GTSAM), gravity and metres."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import gtsam
import numpy as np
from gtsam.symbol_shorthand import B, V
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from d2_ros.imu import ImuCalibration
from d2_ros.mapper.geometry import inverse

_MOST = 100_000
"""Samples that are kept: of 200 a second some eight minutes."""

_LONGEST_GAP = 0.1  # s between two samples; over a longer one nothing is known
_INTEGRATION = 1e-8  # m^2/s, covariance of the integration's own error
_TURN_ON = (0.3, 0.02)  # m/s^2, rad/s: biases that an IMU may begin with (standard deviations)
_FREE = 10.0  # m/s: how loosely a velocity is held
_PLACE = 2e-4  # m: least error of a keyframe's place
_LEAST_KEYFRAMES = 6
_CERTAIN = 0.01
"""Standard deviation of the scale, as a share of it, with which a map is turned to metres."""


class Imu:
    """Samples of an IMU, and what is estimated of its motion.

    Attributes
    ----------
    calibration
        As given.
    aligned
        Whether the map has been turned to gravity and metres.
    bias
        Of accelerometer and gyroscope.
    velocities
        m/s, of the window's keyframes by their stamp, world.
    """

    def __init__(self, calibration: ImuCalibration) -> None:
        self.calibration = calibration
        self._stamps: list[int] = []
        self._values: list[Any] = []
        self.T_imu_cam = inverse(calibration.T_cam_imu)
        self.reset()

    def reset(self) -> None:
        """Begin anew with the map; samples are kept."""
        self.aligned, self.bias = False, gtsam.imuBias.ConstantBias()
        self.velocities: dict[int, NDArray[np.float64]] = {}

    def add(self, stamp: int, values: Sequence[float] | NDArray[np.float64]) -> None:
        """Take a sample: angular velocity x, y, z (rad/s), specific force x, y, z (m/s^2)."""
        stamp -= round(self.calibration.timeshift_cam_imu * 1e9)
        if self._stamps and stamp <= self._stamps[-1]:
            if stamp > self._stamps[-1] - 1_000_000_000:
                return
            self._stamps, self._values = [], []  # time has jumped back
        self._stamps.append(stamp)
        self._values.append(values)
        if len(self._stamps) >= 2 * _MOST:
            del self._stamps[:_MOST], self._values[:_MOST]

    def between(
        self, start: int, stop: int, bias: Any, gravity: float
    ) -> gtsam.PreintegratedImuMeasurements | None:
        """Integrate the samples from `start` to `stop`, ns; None where some are missing.

        `gravity` is along y, m/s^2.
        """
        first, last = bisect_right(self._stamps, start) - 1, bisect_left(self._stamps, stop)
        if first < 0 or last >= len(self._stamps) or stop <= start:
            return None
        times = (np.array(self._stamps[first : last + 1]) - start) * 1e-9
        if np.diff(times).max() > _LONGEST_GAP:
            return None
        values = np.array(self._values[first : last + 1], np.float64)
        edges = np.array([0.0, *times[1:-1], (stop - start) * 1e-9])
        at = np.column_stack([np.interp(edges, times, column) for column in values.T])
        means, steps = (at[1:] + at[:-1]) / 2, np.diff(edges)
        pim = gtsam.PreintegratedImuMeasurements(self._params(gravity), bias)
        for mean, step in zip(means, steps.tolist(), strict=True):
            if step > 0:
                pim.integrateMeasurement(mean[3:], mean[:3], step)
        return pim

    def _params(self, gravity: float) -> gtsam.PreintegrationParams:
        params = gtsam.PreintegrationParams(np.array([0.0, gravity, 0.0]))
        told = self.calibration
        params.setAccelerometerCovariance(told.accelerometer_noise_density**2 * np.eye(3))
        params.setGyroscopeCovariance(told.gyroscope_noise_density**2 * np.eye(3))
        params.setIntegrationCovariance(_INTEGRATION * np.eye(3))
        return params

    def align(
        self, stamps: Sequence[int], poses: NDArray[np.float64], metric: bool
    ) -> tuple[float, NDArray[np.float64]] | None:
        """Find scale and gravity of keyframes that are known up to both (Qin, Shen 2017).

        Parameters
        ----------
        stamps, poses
            ns, and ``(K, 4, 4)`` T_world_camera.
        metric
            The scale is 1.

        Returns
        -------
        scale
            m per unit of `poses`.
        down
            ``(3,)`` direction of gravity, world.
        None where samples are missing or the motion does not tell the scale.
        """
        pairs = list(pairwise(stamps))
        bias = gtsam.imuBias.ConstantBias()
        turns = poses[:, :3, :3] @ self.calibration.T_cam_imu[:3, :3]
        for _ in range(3):
            found = [self.between(*pair, bias, 0.0) for pair in pairs]
            pims = [pim for pim in found if pim is not None]
            if len(pims) < max(len(found), _LEAST_KEYFRAMES - 1):
                return None
            inner = [pim.deltaRij().matrix().T for pim in pims]
            between = turns[:-1].swapaxes(1, 2) @ turns[1:]
            left = np.asarray(Rotation.from_matrix(np.array(inner) @ between).as_rotvec())
            times = np.array([pim.deltaTij() for pim in pims])
            drift = times @ left / (times @ times)
            bias = gtsam.imuBias.ConstantBias(np.zeros(3), bias.gyroscope() - drift)
        gravity: NDArray[np.float64] | None = None
        places = 10 * _PLACE
        for _ in range(4):  # the length of gravity is known: its direction is found step by step
            system = _System(len(stamps), gravity, places)
            for number, pim in enumerate(pims):
                system.add(number, pim, poses, turns, bias, self.calibration)
            solution, covariance = system.solve(metric)
            down, places = system.gravity(solution), system.place_error(solution)
            length = float(np.linalg.norm(down))
            if gravity is None and abs(length / self.calibration.gravity - 1) > 0.3:
                return None
            gravity = down * self.calibration.gravity / length
        assert gravity is not None  # after four rounds
        scale = 1.0 if metric else float(solution[-1])
        if not metric and not 0 < np.sqrt(covariance[-1, -1]) < _CERTAIN * scale:
            return None
        accelerometer = solution[system.bias]
        self.bias = gtsam.imuBias.ConstantBias(accelerometer, bias.gyroscope())
        self.velocities = {}
        self.aligned = True
        return scale, gravity / self.calibration.gravity


@dataclass(frozen=True)
class ImuMotion:
    """An IMU between the keyframes of a window, whose poses in the graph are 0, 1, ...

    These are the IMU's own. One bias for all of them: it hardly changes within a
    window.
    """

    imu: Imu
    stamps: Sequence[int]

    def add_to(self, graph: gtsam.NonlinearFactorGraph, values: gtsam.Values) -> None:
        """Add what it says between keyframes."""
        bias, told, stamps = self.imu.bias, self.imu.calibration, self.stamps
        values.insert(B(0), bias)
        span = np.sqrt(max((stamps[-1] - stamps[0]) * 1e-9, 1.0))
        walks = np.repeat([told.accelerometer_random_walk, told.gyroscope_random_walk], 3)
        noise = gtsam.noiseModel.Diagonal.Sigmas(walks * span)
        graph.add(gtsam.PriorFactorConstantBias(B(0), bias, noise))
        free = gtsam.noiseModel.Isotropic.Sigma(3, _FREE)
        velocity: NDArray[np.float64] = np.zeros(3)
        for number, stamp in enumerate(stamps):
            pim = (
                self.imu.between(stamps[number - 1], stamp, bias, told.gravity) if number else None
            )
            if pim is not None:
                before = gtsam.NavState(values.atPose3(number - 1), velocity)
                velocity = pim.predict(before, bias).velocity()
                graph.add(gtsam.ImuFactor(number - 1, V(number - 1), number, V(number), B(0), pim))
            velocity = self.imu.velocities.get(stamp, velocity)
            values.insert(V(number), velocity)
            graph.add(gtsam.PriorFactorVector(V(number), velocity, free))

    def take(self, solved: gtsam.Values) -> None:
        """Take over velocities and bias of a solution."""
        self.imu.bias = solved.atConstantBias(B(0))
        self.imu.velocities = {s: solved.atVector(V(n)) for n, s in enumerate(self.stamps)}


class _System:
    """Linear equations for velocities, gravity, accelerometer bias and scale, in this order."""

    def __init__(self, count: int, gravity: NDArray[np.float64] | None, places: float) -> None:
        self._places = places
        self._known = np.zeros(3) if gravity is None else gravity
        # With its length known gravity moves in the plane across it.
        self._basis = np.eye(3) if gravity is None else np.linalg.svd(gravity[None])[2][1:].T
        begin = 3 * count
        self._g = slice(begin, begin + self._basis.shape[1])
        self.bias = slice(self._g.stop, self._g.stop + 3)
        self._size = self.bias.stop + 1
        prior = np.zeros((3, self._size))
        prior[:, self.bias] = np.eye(3) / _TURN_ON[0]
        self._rows, self._right = [prior], [np.zeros(3)]
        self._spread: list[NDArray[np.float64]] = []

    def gravity(self, solution: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self._known + self._basis @ solution[self._g])

    def add(
        self,
        number: int,
        pim: gtsam.PreintegratedImuMeasurements,
        poses: NDArray[np.float64],
        turns: NDArray[np.float64],
        bias: Any,
        calibration: ImuCalibration,
    ) -> None:
        """Add the interval from a keyframe to the next one."""
        first, second = poses[number], poses[number + 1]
        time, turn, lever = pim.deltaTij(), turns[number], calibration.T_cam_imu[:3, 3]
        start = gtsam.NavState()

        def moved(shift: NDArray[np.float64]) -> NDArray[np.float64]:
            """Place and velocity relative to the start, if the bias were another."""
            other = gtsam.imuBias.ConstantBias(shift, bias.gyroscope())
            state = pim.predict(start, other)
            return np.concatenate([turn @ state.position(), turn @ state.velocity()])

        change = moved(np.zeros(3))
        by_bias = np.column_stack([(moved(0.1 * axis) - change) / 0.1 for axis in np.eye(3)])
        rows, here = np.zeros((6, self._size)), slice(3 * number, 3 * number + 3)
        rows[:3, here] = -time * np.eye(3)
        rows[3:, here] = -np.eye(3)
        rows[3:, 3 * number + 3 : 3 * number + 6] = np.eye(3)
        by_gravity = np.vstack([time**2 / 2 * np.eye(3), time * np.eye(3)])
        rows[:, self._g] = -by_gravity @ self._basis
        rows[:, self.bias] = -by_bias
        rows[:3, -1] = second[:3, 3] - first[:3, 3]
        right = change + by_gravity @ self._known
        right[:3] -= (second[:3, :3] - first[:3, :3]) @ lever
        spread = np.sqrt(np.diag(pim.preintMeasCov())[3:] + np.repeat([self._places**2, 0.0], 3))
        self._rows.append(rows / spread[:, None])
        self._right.append(right / spread)
        self._spread.append(spread)

    def place_error(self, solution: NDArray[np.float64]) -> float:
        """Error of the keyframes' places, m: what a solution leaves unexplained."""
        full = np.append(solution, np.ones(self._size - len(solution)))
        left = (np.concatenate(self._right[1:]) - np.concatenate(self._rows[1:]) @ full).reshape(
            -1, 6
        )
        left = (left * np.array(self._spread))[:, :3]
        return max(float(np.sqrt((left**2).mean())), _PLACE)

    def solve(self, metric: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Solution and covariance; the latter no less than the residuals say."""
        rows, right = np.concatenate(self._rows), np.concatenate(self._right)
        if metric:
            right, rows = right - rows[:, -1], rows[:, :-1]
        inner = np.linalg.pinv(rows.T @ rows)
        solution = inner @ (rows.T @ right)
        left = right - rows @ solution
        freedom = max(len(right) - len(solution), 1)
        return solution, np.asarray(inner * max(float(left @ left) / freedom, 1.0))
