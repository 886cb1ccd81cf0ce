"""A source made of image files, which every dataset folder comes down to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.sources.base import Frame, UnusableFrame
from d2_ros.sources.images import read_image
from d2_ros.sources.trajectories import check_rigid

SUFFIXES = {
    ".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
}  # fmt: skip
"""Endings of the files that an image folder is made of."""


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files with a time stamp each; put in time order when built.

    Attributes
    ----------
    name
        The source's path, for reports.
    stamps
        ``(N,)`` integer nanoseconds.
    files
        The N image files.
    camera
        Their calibration, None where there is none.
    ground_truth
        ``(N, 4, 4)`` ``T_world_camera``, NaN where unknown; None where there is none.
    truth_stamps
        ``(K,)`` integer nanoseconds of the poses that `ground_truth` was interpolated from; None
        where each image has its own.
    T_body_camera
        ``(4, 4)`` where the camera is on the body that carries it, m; None where it is not known.
    """

    name: str
    stamps: NDArray[np.int64]
    files: tuple[Path, ...]
    camera: Camera | None = None
    ground_truth: NDArray[np.float64] | None = None
    truth_stamps: NDArray[np.int64] | None = None
    T_body_camera: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        counts = {"stamps": len(self.stamps), "images": len(self.files)}
        if self.ground_truth is not None:
            counts["poses"] = len(self.ground_truth)
        if len(set(counts.values())) > 1 or not self.files:
            found = ", ".join(f"{count} {thing}" for thing, count in counts.items())
            raise D2RosError(f"{self.name} has {found}; it must have as many of each, at least one")
        if self.ground_truth is not None:
            check_rigid(self.ground_truth, self.name)
        order = np.argsort(self.stamps, kind="stable")
        object.__setattr__(self, "stamps", np.asarray(self.stamps, np.int64)[order])
        object.__setattr__(self, "files", tuple(self.files[index] for index in order))
        if self.ground_truth is not None:
            object.__setattr__(self, "ground_truth", self.ground_truth[order])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in time order."""
        # No generator: that would end at the first image that cannot be used.
        return map(self._frame, self.stamps.tolist(), self.files)

    def _frame(self, stamp: int, file: Path) -> Frame:
        try:
            return Frame(stamp, read_image(file), self.camera)
        except D2RosError as error:
            where = "" if str(file) in str(error) else f"{file}: "
            raise UnusableFrame(f"{where}{error}") from None

    def poses(self) -> NDArray[np.float64] | None:
        """Ground truth ``T_world_camera``."""
        return self.ground_truth

    def mount(self) -> NDArray[np.float64] | None:
        """Where the camera is on its body."""
        return self.T_body_camera

    def clocks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Stamps of the images and of the known poses, ns."""
        return self.stamps, self.stamps if self.truth_stamps is None else self.truth_stamps


def image_files(folder: Path) -> list[Path]:
    """Return the image files directly in `folder`, unordered.

    Hidden ones are not among them: macOS puts a ``._name.png`` beside every ``name.png`` that it
    copies to another file system.
    """
    return [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]
