"""The synthetic sequence as a source of frames with exact ground truth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2_ros.sources.base import Frame
from d2_ros.sources.synthetic.images import load_images
from d2_ros.sources.synthetic.options import SyntheticOptions, parse_options
from d2_ros.sources.synthetic.room import room
from d2_ros.sources.synthetic.world import hidden, trace

START = 1_700_000_000_000_000_000
"""Stamp of the first frame, ns."""


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
        Ranges of frames with motion blur, and with changing gain, gamma and offset.
    """

    name = "synthetic"

    def __init__(self, options: SyntheticOptions | None = None) -> None:
        self.options = options or SyntheticOptions()
        self.camera = self.options.camera()
        self.stamps = [START + index * self.options.period for index in range(len(self))]
        self.blur_frames = self.options.blur_frames
        self.exposure_frames = self.options.exposure_frames
        self._planes = room()
        self._poses = np.stack([self.options.pose(index) for index in range(len(self))])

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
        images = zip(self.stamps, load_images(self.options), strict=True)
        for index, (stamp, image) in enumerate(images):
            seen = np.array(image)
            if index in self.options.covered_frames:
                draw = np.random.default_rng([self.options.seed, index])
                seen = draw.integers(0, 4, seen.shape, np.uint8)
            yield Frame(stamp, seen, self.camera)

    def poses(self) -> NDArray[np.float64]:
        """Exact ``T_world_camera`` at the middle of each exposure, ``(len, 4, 4)``."""
        return self._poses.copy()

    def mount(self) -> NDArray[np.float64]:
        """``(4, 4)`` T_body_camera: the body is the camera without a baseline."""
        T_body_camera = np.eye(4)
        T_body_camera[0, 3] = self.options.baseline_mm * 1e-3
        return T_body_camera

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
            As of :meth:`project`; NaN and False where the pixel of frame a sees nothing.
        """
        return self.project(*self.surface(frame_a, pixels), frame_b)

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
            ``(N,)`` int64 plane that each lies on, -1 where nothing is seen.
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
        edge = np.array([self.camera.width, self.camera.height]) - 0.5
        inside = ((pixels[front] >= -0.5) & (pixels[front] <= edge)).all(axis=1)
        covered = hidden(self._planes, T_world_camera, local[front], planes[front])
        visible[front] = inside & ~covered
        return pixels, visible


def open_synthetic(spec: str = "") -> Synthetic:
    """Open the sequence described by text such as ``size=320x240,frames=40,seed=0,rate=20``.

    Raises
    ------
    D2RosError
        As of :func:`d2_ros.sources.synthetic.options.parse_options`.
    """
    return Synthetic(parse_options(spec))
