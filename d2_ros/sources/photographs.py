"""Single photographs: those that ship inside scikit-image, and folders of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from numpy.typing import NDArray

BUNDLED = (
    "astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "hubble",
    "ihc", "moon", "motorcycle", "page", "retina", "rocket", "text",
)  # fmt: skip
"""Those of :mod:`skimage.data` that need no download."""


@dataclass(frozen=True)
class Photograph:
    """One photograph, and what loads it, ``(H, W)`` or ``(H, W, 3)`` BGR."""

    name: str
    load: Callable[[], NDArray]


def photographs(folders: Sequence[Path]) -> list[Photograph]:
    """Those of scikit-image, then those in each of the folders.

    Raises
    ------
    D2RosError
        If a folder holds no images.
    """
    from d2_ros.sources.folder import open_folder
    from d2_ros.sources.images import read_image
    from d2_ros.sources.synthetic.textures import photograph

    bundled = [Photograph(f"skimage.data.{name}", partial(photograph, name)) for name in BUNDLED]
    files = [file for folder in folders for file in open_folder(folder).files]
    return bundled + [Photograph(file.name, partial(read_image, file)) for file in files]
