"""The images of the synthetic sequence, rendered once and kept in the user's cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from d2_ros.errors import D2RosError
from d2_ros.files import replacing
from d2_ros.sources.synthetic.options import SyntheticOptions
from d2_ros.sources.synthetic.room import room
from d2_ros.user_folders import user_folder

VERSION = 2
"""Part of the name of cached files: raise it with every change of what the images show."""

_MOMENTS = 9
_SHUTTER = 0.5  # share of the time between two frames that the shutter is open, where it blurs


def load_images(options: SyntheticOptions) -> NDArray[np.uint8]:
    """Return the images, after rendering them if that was never done.

    Parameters
    ----------
    options
        Of the sequence.

    Returns
    -------
    ``(frames, H, W, 3)`` uint8 BGR, mapped from a file of the cache folder.

    Raises
    ------
    D2RosError
        If the cache folder cannot be written or scikit-image is missing.
    """
    *values, night, _ = astuple(options)  # the cover is not rendered
    # By day the files have the names that they had before there was a night.
    key = "-".join(map(str, (VERSION, *values, *(["night"] if night else []))))
    path = _cache_folder() / f"synthetic-{key}.npy"
    shape = (options.frames, options.height, options.width, 3)
    try:
        images = np.load(path, mmap_mode="r")
        if images.shape == shape and images.dtype == np.uint8:
            return np.asarray(images)
    except (OSError, ValueError, EOFError):  # not there yet, or damaged: render
        pass
    _write(path, shape, lambda: _render(options))
    return np.load(path, mmap_mode="r")


def _render(options: SyntheticOptions) -> Iterator[NDArray[np.uint8]]:
    """Yield the images, rendered on all cores."""
    from d2_ros.sources.synthetic.night import AMPLIFICATION, MOMENTS, SHUTTER_S, lamplight
    from d2_ros.sources.synthetic.render import expose, prepare, radiance

    scene = prepare(room(), options.camera())

    def shoot(index: int) -> NDArray[np.uint8]:
        # Symmetric about the stamp, so that the frame's pose is that of its content.
        count, shutter = (_MOMENTS if index in options.blur_frames else 1), _SHUTTER
        if options.night:
            count, shutter = MOMENTS, SHUTTER_S * options.rate_hz
        moments = ((np.arange(count) + 0.5) / count - 0.5) * shutter
        lights = [shine(options.pose(index + moment)) for moment in moments]
        own = [options.baseline_mm] if options.baseline_mm else []  # the pair's noise differs
        rng = np.random.default_rng([options.seed, index, *own])
        amplification = AMPLIFICATION if options.night else 1.0
        return expose(np.mean(lights, axis=0), rng, *options.response(index), amplification)

    def shine(pose: NDArray[np.float64]) -> NDArray[np.float32]:
        light = radiance(scene, pose)
        return light * lamplight(scene.planes, pose, scene.centres) if options.night else light

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from track(
            pool.map(shoot, range(options.frames)),
            "Rendering the synthetic sequence",
            options.frames,
            console=Console(stderr=True),
        )


def _cache_folder() -> Path:
    folder = user_folder("XDG_CACHE_HOME", ".cache")
    if folder is None:
        raise D2RosError(
            "there is no home to keep the rendered sequence in; set HOME or XDG_CACHE_HOME"
        )
    return folder


def _write(
    path: Path, shape: tuple[int, ...], images: Callable[[], Iterator[NDArray[np.uint8]]]
) -> None:
    """Write images to a file that others see only when it is complete."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            target = open_memmap(part, "w+", np.uint8, shape)
            for index, image in enumerate(images()):
                target[index] = image
            target.flush()
    except OSError as error:
        raise D2RosError(
            f"cannot keep the rendered sequence in {path.parent}: {error}; "
            "set XDG_CACHE_HOME to a folder with space"
        ) from None
