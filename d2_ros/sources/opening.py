"""Recognise a source by what it looks like and open it."""

from __future__ import annotations

from pathlib import Path

from d2_ros.errors import D2RosError
from d2_ros.sources.bagfolders import bag_kind, storage_files
from d2_ros.sources.base import Source


def open_source(path: str | Path, image_topic: str | None = None) -> Source:
    """Open whatever `path` is.

    Parameters
    ----------
    path
        A rosbag2 folder, ``.mcap`` or ``.db3`` file, also with ``.zstd`` behind it, a rosbag1
        ``.bag`` or ``.bag.active`` file, a EuRoC, TUM RGB-D
        or KITTI odometry folder, a folder of images, a video, or
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
    if not synthetic and not path.exists():
        raise D2RosError(f"{path} does not exist; give a bag, a dataset folder or a video")
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

    A recorder that was killed leaves a folder without ``metadata.yaml``; its files are taken.
    """
    if path.is_file():
        return [path] if bag_kind(path) else []
    if (path / "metadata.yaml").is_file():
        return [path]
    return storage_files(path) if path.is_dir() else []


def _open_files(path: Path) -> Source:
    # Loaded late, as above: the node imports this package for its image decoding alone.
    from d2_ros.sources.euroc import find_euroc, open_euroc
    from d2_ros.sources.folder import open_folder
    from d2_ros.sources.kitti import is_kitti, open_kitti
    from d2_ros.sources.tum import is_tum, open_tum
    from d2_ros.sources.video import Video

    if path.is_file():
        return Video(path)
    if folder := find_euroc(path):
        return open_euroc(folder)
    if is_tum(path):
        return open_tum(path)
    return open_kitti(path) if is_kitti(path) else open_folder(path)
