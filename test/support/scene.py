"""A scene of points and a way through it, as the rows of the front-end's topics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from d2_ros.camera import Camera
from d2_ros.mapper.mapper import Mapper
from d2_ros.mapper.observations import Right
from d2_ros.records import FEATURES, LOOPS, STEREO, TRACKS

SECOND = 1_000_000_000
BASELINE = 0.5
T_LEFT_RIGHT = np.eye(4)
T_LEFT_RIGHT[:3, :3] = Rotation.from_rotvec([0.01, -0.03, 0.02]).as_matrix()
T_LEFT_RIGHT[:3, 3] = [BASELINE, 0.01, -0.02]
"""Of a right camera that is not quite parallel."""

CAMERA = Camera(640, 480, np.array([[500, 0, 319.5], [0, 500, 239.5], [0, 0, 1]]), np.zeros(5))


@dataclass
class Scene:
    """Points in front of a camera that sails past them, swaying; 10 frames a second.

    Attributes
    ----------
    frames, seed
        How many, and what draws points and noise.
    sigmas
        Standard deviations, px, that tracks may have; each has one of them in u and one in v.
    wrong
        Share of the observations that are anywhere.
    """

    frames: int = 40
    seed: int = 0
    sigmas: tuple[float, ...] = (0.2,)
    wrong: float = 0.0
    count: int = 600
    first_id: int = 1
    begin: int = 100 * SECOND
    points: Any = field(init=False)
    poses: Any = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.points = self.rng.uniform([-4, -2.5, 4], [8, 2.5, 12], (self.count, 3))
        self.sigma = self.rng.choice(self.sigmas, (self.count, 2))
        self.poses = np.stack([self.pose(number) for number in range(self.frames)])

    def pose(self, number: int) -> Any:
        time = number / 10
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_rotvec([0.03 * np.sin(time), 0.02 * time, 0.02]).as_matrix()
        pose[:3, 3] = [0.9 * time, 0.2 * np.sin(1.3 * time), 0.3 * time]
        return pose

    def stamp(self, number: int) -> int:
        return self.begin + number * SECOND // 10

    def features(self, number: int) -> Any:
        pose = self.poses[number]
        pixels = CAMERA.project((self.points - pose[:3, 3]) @ pose[:3, :3])
        with np.errstate(invalid="ignore"):
            seen = np.flatnonzero(((pixels >= 0) & (pixels <= [639, 479])).all(axis=1))
        places = pixels[seen] + self.rng.normal(size=(len(seen), 2)) * self.sigma[seen]
        wrong = self.rng.random(len(seen)) < self.wrong
        places[wrong] = self.rng.uniform([0, 0], [639, 479], (np.count_nonzero(wrong), 2))
        rows = np.zeros(len(seen), FEATURES)
        rows["u"], rows["v"] = places.T
        rows["x"], rows["y"], rows["z"] = CAMERA.bearings(places).T
        rows["sigma_uu"], rows["sigma_vv"] = self.sigma[seen].T ** 2
        rows["track_id"] = self.first_id + seen
        return rows

    def right(self, number: int, rows: Any) -> Right:
        """What the right camera sees of a frame's rows; it has the noise of the left one."""
        pose = self.poses[number] @ T_LEFT_RIGHT
        known = rows["track_id"].astype(int) - self.first_id
        local = (self.points[known] - pose[:3, 3]) @ pose[:3, :3]
        pixels = CAMERA.project(local) + self.rng.normal(size=(len(rows), 2)) * self.sigma[known]
        with np.errstate(invalid="ignore"):
            seen = np.flatnonzero(((pixels >= 0) & (pixels <= [639, 479])).all(axis=1))
        told = np.zeros(len(seen), STEREO)
        told["index"], (told["u"], told["v"]) = seen, pixels[seen].T
        told["x"], told["y"], told["z"] = CAMERA.bearings(pixels[seen]).T
        told["sigma_uu"], told["sigma_vv"] = self.sigma[known[seen]].T ** 2
        return Right(told, CAMERA, T_LEFT_RIGHT)


class Ring:
    """A camera that goes round and round, looking outwards; a track ends where it leaves.

    Of its 600 points a ninth is seen at a time; a lap has 314 frames.
    """

    COUNT = 600

    def __init__(self, camera: Any = CAMERA, sigma: float = 0.2, seed: int = 0) -> None:
        self.camera, self.rng, self.sigma = camera, np.random.default_rng(seed), sigma
        self.angle = self.rng.uniform(0, 2 * np.pi, self.COUNT)
        far, height = self.rng.uniform(4, 8, self.COUNT), self.rng.uniform(-1.5, 1.5, self.COUNT)
        place = [far * np.sin(self.angle), height, far * np.cos(self.angle)]
        self.points = np.column_stack(place)

    def pose(self, number: int) -> Any:
        turn = 0.02 * number
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_rotvec([0, turn, 0]).as_matrix()
        pose[:3, 3] = [np.sin(turn), 0.1 * np.sin(0.3 * number), np.cos(turn)]
        return pose

    def features(self, number: int) -> Any:
        pose = self.pose(number)
        pixels = self.camera.project((self.points - pose[:3, 3]) @ pose[:3, :3])
        with np.errstate(invalid="ignore"):
            seen = np.flatnonzero(((pixels >= 0) & (pixels <= [639, 479])).all(axis=1))
        lap = np.floor((0.02 * number - self.angle[seen] + np.pi) / (2 * np.pi)).astype(int)
        rows = np.zeros(len(seen), FEATURES)
        places = pixels[seen] + self.rng.normal(size=(len(seen), 2)) * self.sigma
        rows["u"], rows["v"] = places.T
        rows["x"], rows["y"], rows["z"] = self.camera.bearings(places).T
        rows["sigma_uu"] = rows["sigma_vv"] = self.sigma**2
        rows["track_id"] = 1 + seen + self.COUNT * (lap + 1)
        return rows

    def stamp(self, number: int) -> int:
        return SECOND + number * SECOND // 10

    def loop(self, now: int, then: int) -> Any:
        """Rows of `loops` between two frames, exact but for the noise of now."""
        ids = [(self.features(n)["track_id"] - 1) % self.COUNT for n in (now, then)]
        _, index, known = np.intersect1d(*ids, return_indices=True)
        rows, seen = np.zeros(len(index), LOOPS), self.features(now)[index]
        rows["index"], rows["keyframe_index"] = index, known
        rows["keyframe_sec"], rows["keyframe_nanosec"] = divmod(self.stamp(then), SECOND)
        for name in ("u", "v", "sigma_uu", "sigma_uv", "sigma_vv"):
            rows[name] = seen[name]
        return rows


def tracks(stamp: int, rows: Any) -> Any:
    """The observations of one keyframe as rows of its `tracks`."""
    told = np.zeros(len(rows), TRACKS)
    for name in set(TRACKS.names or ()) & set(FEATURES.names or ()):
        told[name] = rows[name]
    told["sec"], told["nanosec"] = divmod(stamp, SECOND)
    told["index"] = np.arange(len(rows))
    return told


def play(
    mapper: Mapper,
    scene: Scene,
    numbers: Any = None,
    every: int = 4,
    change: Any = None,
    stereo: bool = False,
):
    """Send frames to a mapper, every fourth one as a keyframe; return its answers."""
    answers: list[Any] = []
    for number in range(scene.frames) if numbers is None else numbers:
        stamp, rows = scene.stamp(number), scene.features(number)
        if change is not None:
            rows = change(number, rows)
        right = scene.right(number, rows) if stereo else None
        answers.append(mapper.add_features(stamp, rows, CAMERA, right))
        if number % every == 0:
            mapper.add_tracks(stamp, tracks(stamp, rows), CAMERA)
    return answers


def errors(mapper: Mapper, scene: Scene, numbers: Any = None, metric: bool = False) -> Any:
    """Errors of the places after alignment, ``(N,)``, in the scene's units; `metric`: its scale."""
    stamps, poses = mapper.trajectory.poses()
    known = {scene.stamp(number): number for number in range(scene.frames)}
    chosen = [known[stamp] for stamp in stamps.tolist()]
    kept = np.ones(len(chosen), bool) if numbers is None else np.isin(chosen, numbers)
    true, ours = scene.poses[chosen][kept][:, :3, 3], poses[kept][:, :3, 3]
    a, b = true - true.mean(0), ours - ours.mean(0)
    left, spread, right = np.linalg.svd(a.T @ b)
    sign = np.diag([1, 1, np.sign(np.linalg.det(left @ right))])
    scale = 1.0 if metric else np.trace(np.diag(spread) @ sign) / (b**2).sum()
    return np.linalg.norm(a - scale * b @ (left @ sign @ right).T, axis=1)
