"""Pairs of photographs of a COLMAP reconstruction, linked by its sparse points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError, optional_import
from d2_ros.sources.folder import natural_key
from d2_ros.sources.images import read_image
from d2_ros.training.pairs import Pair, as_bgr, inside, overlapping

_CORNER = 0.5  # COLMAP's centre of the top-left pixel
_PINHOLE = {"PINHOLE", "SIMPLE_PINHOLE"}


@dataclass(frozen=True)
class View:
    """One registered photograph.

    Attributes
    ----------
    path
        Its file.
    points
        ``(N,)`` int64 numbers of the 3D points seen, each once, ascending.
    pixels
        ``(N, 2)`` float64 where, (u, v).
    matrix
        ``(3, 3)`` pinhole intrinsics, without distortion.
    T_camera_world
        ``(4, 4)`` pose.
    """

    path: Path
    points: NDArray[np.int64]
    pixels: NDArray[np.float64]
    matrix: NDArray[np.float64]
    T_camera_world: NDArray[np.float64]


class SparsePoints:
    """Pairs of photographs that see the same 3D points.

    Parameters
    ----------
    views
        Photographs to pair with each other.
    overlap
        Smallest and largest share of points in common.
    """

    def __init__(self, views: list[View], overlap: tuple[float, float]) -> None:
        self._views = views
        self.pairs = overlapping([view.points for view in views], *overlap)

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    def draw(self, index: int, rng: np.random.Generator) -> Pair:
        """Return pair `index`; nothing about it is random."""
        a, b = (self._views[k] for k in self.pairs[index])
        _, ours, theirs = np.intersect1d(a.points, b.points, True, True)
        first, second = as_bgr(read_image(a.path)), as_bgr(read_image(b.path))
        pixels, pixels_second = a.pixels[ours], b.pixels[theirs]
        keep = inside(pixels, *first.shape[1::-1]) & inside(pixels_second, *second.shape[1::-1])
        return Pair(first, second, pixels[keep], pixels_second[keep])


def read_views(folder: Path, pinhole: bool = False) -> list[View]:
    """Read a COLMAP workspace: ``images/`` and a model in ``sparse/``, ``sparse/0/`` or itself.

    Parameters
    ----------
    folder
        The workspace; MegaDepth calls the images' folder ``imgs/``.
    pinhole
        Refuse cameras with distortion.

    Returns
    -------
    Its registered photographs, ordered by name as a person would.

    Raises
    ------
    D2RosError
        If pycolmap is not installed, there is no model, or a camera is refused.
    """
    reading = f"reading the reconstruction {folder} takes pycolmap"
    with optional_import(f"{reading}; install it with `pip install pycolmap`"):
        import pycolmap
    places = [folder / "sparse" / "0", folder / "sparse", folder]
    models = [place for place in places if any(place.glob("images.*"))]
    if not models:
        raise D2RosError(
            f"{folder} holds no COLMAP model; give a folder with images/ and "
            "sparse/0/{cameras,images,points3D}.bin"
        )
    try:
        model = pycolmap.Reconstruction(models[0])
    except (RuntimeError, ValueError) as error:
        raise D2RosError(f"COLMAP model {models[0]} cannot be read: {error}") from None
    kinds = {camera.model.name for camera in model.cameras.values()}
    if pinhole and kinds - _PINHOLE:
        raise D2RosError(
            f"COLMAP model {models[0]} has cameras with distortion; run "
            "`colmap image_undistorter` and give its output"
        )
    photos = folder / "images" if (folder / "images").is_dir() else folder / "imgs"
    views = [_view(image, photos) for image in model.images.values()]
    return sorted(views, key=lambda view: natural_key(str(view.path)))


def _view(image: Any, folder: Path) -> View:
    seen = [point for point in image.points2D if point.has_point3D()]
    numbers = np.array([point.point3D_id for point in seen], np.int64)
    points, order = np.unique(numbers, return_index=True)
    pixels = np.array([point.xy for point in seen], np.float64).reshape(-1, 2) - _CORNER
    matrix = np.array(image.camera.calibration_matrix())
    matrix[:2, 2] -= _CORNER
    pose = image.cam_from_world
    T_camera_world = np.eye(4)
    T_camera_world[:3] = (pose() if callable(pose) else pose).matrix()  # an attribute before 3.12
    return View(folder / str(image.name), points, pixels[order], matrix, T_camera_world)
