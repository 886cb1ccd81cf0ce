"""Recognise a source by what it looks like and open it."""

from __future__ import annotations

from collections.abc import Callable
from errno import ENOENT
from functools import partial
from pathlib import Path

from d2_ros.errors import D2RosError
from d2_ros.sources.bagfolders import bag_kind, is_output, storage_files
from d2_ros.sources.base import Source


def open_source(path: str | Path, image_topic: str | None = None) -> Source:
    """Open whatever `path` is.

    Parameters
    ----------
    path
        A rosbag2 folder, ``.mcap`` or ``.db3`` file, also with ``.zstd`` behind it, a rosbag1
        ``.bag`` or ``.bag.active`` file, a EuRoC, TUM RGB-D
        or KITTI (odometry or raw) folder, a folder of images, a video, or
        ``synthetic[:key=value,...]`` for the synthetic sequence.
    image_topic
        The topic of a bag to read; None if there is only one.

    Raises
    ------
    D2RosError
        If `path` is none of these, or cannot be read.
    """
    name, _, spec = str(path).partition(":")
    synthetic = name == "synthetic"
    path = Path(path)
    if not synthetic:
        try:
            path.stat()
        except OSError as error:  # it is not there, its name is too long, links lead in a circle
            reason = (
                "does not exist" if error.errno == ENOENT else f"cannot be read: {error.strerror}"
            )
            raise D2RosError(f"{path} {reason}; give a bag, a dataset folder or a video") from None
    bag_files = [] if synthetic else find_bag(path)
    if image_topic is not None and not bag_files:
        raise D2RosError(f"{path} is not a bag, so it has no image topic {image_topic}")
    if synthetic:
        from d2_ros.sources.synthetic import open_synthetic

        return open_synthetic(spec)
    if bag_files:
        from d2_ros.sources.bags import BagSource  # rosbags takes a while to load

        return BagSource(str(path), bag_files, image_topic)
    return _open_files(path)


def find_bag(path: Path) -> list[Path]:
    """Return what rosbags is to open for the bag `path`; nothing if it is no bag.

    A recorder that was killed leaves a folder without ``metadata.yaml``; its files are taken. But
    images that hold an earlier output of this package beside them stay images.
    """
    if path.is_file():
        return [path] if bag_kind(path) else []
    if (path / "metadata.yaml").is_file():
        return [path]
    files = storage_files(path) if path.is_dir() else []
    return [] if files and all(map(is_output, files)) and _dataset(path) else files


def _open_files(path: Path) -> Source:
    # Loaded late, as above: the node imports this package for its image decoding alone.
    if path.is_file():
        from d2_ros.sources.video import Video

        return Video(path)
    if opened := _dataset(path):
        return opened()
    raise D2RosError(
        f"{path} is neither a bag (metadata.yaml, .mcap or .db3), nor EuRoC (mav0/cam0), TUM "
        "(rgb.txt) or KITTI (calib.txt or timestamps.txt, image_0 or the like), nor a folder of "
        "images; give one of these"
    )


def _dataset(path: Path) -> Callable[[], Source] | None:
    """Return what opens the folder `path` as images; None if it holds none."""
    from d2_ros.sources.euroc import find_euroc, open_euroc
    from d2_ros.sources.files import image_files
    from d2_ros.sources.folder import open_folder
    from d2_ros.sources.kitti import find_kitti, open_kitti
    from d2_ros.sources.kitti_raw import find_kitti_raw, open_kitti_raw
    from d2_ros.sources.tum import is_tum, open_tum

    if folder := find_euroc(path):
        return partial(open_euroc, folder)
    if is_tum(path):
        return partial(open_tum, path)
    if sequence := find_kitti(path):
        return partial(open_kitti, *sequence)
    if folder := find_kitti_raw(path):
        return partial(open_kitti_raw, folder)
    return partial(open_folder, path) if image_files(path) else None
