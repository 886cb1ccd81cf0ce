"""The synthetic sequence as a source of frames with exact ground truth."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from rich.progress import track

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.sources.base import Frame
from d2_ros.sources.synthetic.room import flight, room
from d2_ros.sources.synthetic.world import hidden, trace

VERSION = 1
"""Part of the name of cached images: raise it with every change of what they show."""

START = 1_700_000_000_000_000_000
"""Stamp of the first frame, ns."""

_SUBPOSES = 9
_BLUR_SHARE = 0.5  # of the time between two frames the shutter is open in the blurred stretch
_DISTORTION = (-0.18, 0.045, 5e-4, -3e-4)


@dataclass(frozen=True)
class SyntheticOptions:
    """What can be chosen of the synthetic sequence.

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
    """

    width: int = 640
    height: int = 480
    frames: int = 90
    seed: int = 0
    rate_hz: int = 20

    def __post_init__(self) -> None:
        if not 160 <= self.width <= 640 or self.width * 3 != self.height * 4:
            raise D2RosError(
                f"synthetic size {self.width}x{self.height} is not possible; "
                "use a 4:3 size from 160x120 to 640x480"
            )
        for name, low, high in (("frames", 2, 2000), ("seed", 0, 2**31 - 1), ("rate_hz", 1, 200)):
            if not low <= getattr(self, name) <= high:
                raise D2RosError(
                    f"synthetic {name} is {getattr(self, name)}; it must be {low} to {high}"
                )


class Synthetic:
    """The synthetic sequence; its images are rendered at the first iteration and cached.

    Attributes
    ----------
    name
        ``synthetic``.
    options
        As given.
    camera
        The calibration of every frame.
    stamps
        Integer nanoseconds of each frame.
    blur_frames, exposure_frames
        Where the shutter is open long, and where gain, gamma and offset change.
    """

    name = "synthetic"

    def __init__(self, options: SyntheticOptions | None = None) -> None:
        self.options = options or SyntheticOptions()
        self.camera = _camera(self.options.width, self.options.height)
        count = self.options.frames
        period = round(1e9 / self.options.rate_hz)
        self.stamps = [START + index * period for index in range(count)]
        self.blur_frames = range(round(0.35 * count), round(0.45 * count))
        self.exposure_frames = range(round(0.6 * count), round(0.8 * count))
        self._planes = room()
        self._period_s = period * 1e-9
        self._poses = np.stack([self._pose(index) for index in range(count)])

    def __len__(self) -> int:
        """Return the number of frames."""
        return self.options.frames

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in time order, after rendering them where that was never done.

        Raises
        ------
        D2RosError
            If the cache folder cannot be written or scikit-image is missing.
        """
        images = self._images()
        for stamp, image in zip(self.stamps, images, strict=True):
            yield Frame(stamp, np.array(image), self.camera)

    def poses(self) -> NDArray[np.float64]:
        """Exact ``T_world_camera`` at the middle of each exposure, ``(len, 4, 4)``."""
        return self._poses.copy()

    def surface(
        self, frame: int, pixels: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Find the surface points seen at pixels of a frame.

        Parameters
        ----------
        frame
            Index of the frame.
        pixels
            ``(N, 2)`` (u, v), px; may lie outside the image.

        Returns
        -------
        points
            ``(N, 3)`` float64, world frame, m; NaN where nothing is seen.
        planes
            ``(N,)`` the plane that each lies on, -1 where nothing is seen.
        """
        bearings = self.camera.bearings(pixels)
        planes, coordinates = trace(self._planes, self._poses[frame], bearings)
        points = np.full((len(bearings), 3), np.nan)
        for k in np.unique(planes[planes >= 0]):
            points[planes == k] = self._planes[k].points(coordinates[planes == k])
        return points, planes

    def project(
        self, points: NDArray[np.float64], planes: NDArray[np.int64], frame: int
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Say where surface points lie in a frame.

        Parameters
        ----------
        points, planes
            As of :meth:`surface`.
        frame
            Index of the frame.

        Returns
        -------
        pixels
            ``(N, 2)`` float64 (u, v), px, also outside the image and behind other planes; NaN
            for points that are NaN or behind the camera.
        visible
            ``(N,)`` bool: inside the image and hidden by no other plane.
        """
        T_world_camera = self._poses[frame]
        local = (points - T_world_camera[:3, 3]) @ T_world_camera[:3, :3]
        pixels = np.full((len(points), 2), np.nan)
        visible = np.zeros(len(points), bool)
        front = np.flatnonzero(local[:, 2] > 1e-6)
        pixels[front] = self.camera.project(local[front])
        size = (self.options.width, self.options.height)
        inside = ((pixels[front] >= -0.5) & (pixels[front] <= np.subtract(size, 0.5))).all(axis=1)
        covered = hidden(self._planes, T_world_camera, local[front], planes[front])
        visible[front] = inside & ~covered
        return pixels, visible

    def locate(
        self, frame_a: int, pixels: ArrayLike, frame_b: int
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Say where the surface points seen at pixels of frame a lie in frame b.

        Parameters
        ----------
        frame_a, frame_b
            Indices of frames.
        pixels
            ``(N, 2)`` (u, v) in frame a, px.

        Returns
        -------
        pixels, visible
            As of :meth:`project`.
        """
        return self.project(*self.surface(frame_a, pixels), frame_b)

    def _pose(self, position: float) -> NDArray[np.float64]:
        return flight(position * self._period_s, self.options.seed)

    def _images(self) -> NDArray[np.uint8]:
        """Images ``(frames, H, W, 3)``, mapped from the cache."""
        options = self.options
        shape = (options.frames, options.height, options.width, 3)
        key = "-".join(f"{entry.name}{getattr(options, entry.name)}" for entry in fields(options))
        path = _cache_folder() / f"synthetic-v{VERSION}-{key}.npy"
        try:
            images = np.load(path, mmap_mode="r")
            if images.shape == shape and images.dtype == np.uint8:
                return images
        except (OSError, ValueError):  # not there yet, or damaged: render
            pass
        _write(path, self._render())
        return np.load(path, mmap_mode="r")

    def _render(self) -> NDArray[np.uint8]:
        from d2_ros.sources.synthetic.render import expose, prepare, radiance

        scene = prepare(self._planes, self.camera)

        def shoot(index: int) -> NDArray[np.uint8]:
            moments = [0.0]
            if index in self.blur_frames:
                # Symmetric about the stamp, so that the frame's pose is that of its content.
                moments = list(
                    (np.arange(_SUBPOSES) + 0.5) / _SUBPOSES * _BLUR_SHARE - _BLUR_SHARE / 2
                )
            light = np.sum([radiance(scene, self._pose(index + m)) for m in moments], axis=0)
            rng = np.random.default_rng([self.options.seed, index])
            return expose(light / len(moments), rng, *self.response(index))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            shots = track(
                pool.map(shoot, range(len(self))),
                "Rendering the synthetic sequence",
                len(self),
                console=Console(stderr=True),
            )
            return np.stack(list(shots))

    def response(self, frame: int) -> tuple[float, float, float]:
        """Gain, gamma and offset (grey values) of a frame's exposure."""
        if frame not in self.exposure_frames:
            return 1.0, 1.0, 0.0
        place = (frame - self.exposure_frames.start + 0.5) / len(self.exposure_frames)
        depth = float(1 - np.cos(2 * np.pi * place)) / 2
        return 1 - 0.5 * depth, 1 + 0.25 * depth, 12 * depth


def open_synthetic(spec: str = "") -> Synthetic:
    """Open the sequence described by text such as ``size=320x240,frames=40,seed=0``.

    Parameters
    ----------
    spec
        Comma-separated ``size=WxH``, ``frames=N``, ``seed=N`` and ``rate=HZ``; what is left out
        has its default.

    Raises
    ------
    D2RosError
        For an unknown key or a value that is no number or out of range.
    """
    values: dict[str, int] = {}
    names = {"frames": "frames", "seed": "seed", "rate": "rate_hz"}
    for item in filter(None, spec.split(",")):
        key, _, text = item.partition("=")
        try:
            if key == "size":
                width, height = text.split("x")
                values |= {"width": int(width), "height": int(height)}
            else:
                values[names[key]] = int(text)
        except (KeyError, ValueError):
            raise D2RosError(
                f"synthetic option {item!r} is unknown; use size=640x480,frames=90,seed=0,rate=20"
            ) from None
    return Synthetic(SyntheticOptions(**values))


def _camera(width: int, height: int) -> Camera:
    """Scale the calibration of the 640x480 image, in centre-of-pixel coordinates."""
    scale = width / 640
    centre_x, centre_y = 324.7, 236.2
    matrix = np.array(
        [
            [421.3 * scale, 0.0, (centre_x + 0.5) * scale - 0.5],
            [0.0, 420.6 * scale, (centre_y + 0.5) * scale - 0.5],
            [0.0, 0.0, 1.0],
        ]
    )
    return Camera(width, height, matrix, np.array(_DISTORTION))


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "d2_ros"


def _write(path: Path, images: NDArray[np.uint8]) -> None:
    """Write an array so that nobody ever sees half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            np.save(file, images)
        os.replace(file.name, path)
    except OSError as error:
        raise D2RosError(
            f"cannot write the rendered sequence to {path}: {error.strerror}; "
            "set XDG_CACHE_HOME to a folder with space"
        ) from None
