"""Places on disk: one safetensors file, written whole or not at all, with a checksum."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.files import replacing
from d2_ros.places.place import Place
from d2_ros.places.vlad import Vocabulary

VERSION = "1"
"""Of the file's layout."""

_KIND = "d2_ros places"
_LAYOUT = {
    "stamps": np.int64, "sessions": np.int64, "sizes": np.int64, "cameras": np.int64,
    "keypoints": np.int64, "image_sizes": np.int64, "vlads": np.float32, "pixels": np.float32,
    "covariances": np.float32, "descriptors": np.int8, "images": np.uint8,
}  # fmt: skip
"""Type of every array; rows of all places one after the other."""

Arrays = Mapping[str, NDArray[Any]]


def save_places(path: Path, places: Sequence[Place], vocabulary: Vocabulary) -> None:
    """Write places; a file that was there before stays whole until the new one is.

    Raises
    ------
    D2RosError
        If there are none, or the file cannot be written.
    """
    from safetensors.numpy import save_file

    if not places:
        raise D2RosError(f"there are no places to write to {path}; keep at least one keyframe")
    cameras: list[str] = []
    arrays = _arrays(places, cameras)
    about = {
        "kind": _KIND,
        "version": VERSION,
        "vocabulary": vocabulary.identity,
        "cameras": json.dumps(cameras),
    }
    about["checksum"] = _checksum(arrays, about)
    try:
        with replacing(path) as scratch:
            save_file(dict(arrays), scratch, about)
    except Exception as error:  # safetensors raises its own where the disk is full
        reason = getattr(error, "strerror", None) or error
        raise D2RosError(f"cannot write {path}: {reason}; choose another place") from None


def load_places(path: Path, vocabulary: Vocabulary) -> list[Place]:
    """Read what :func:`save_places` has written, oldest first.

    Raises
    ------
    D2RosError
        If the file is not there, no such file, damaged, of another version, or made with another
        vocabulary.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise D2RosError(f"{path} is no file; give one that d2-ros places build has written")
    try:
        with safe_open(path, "np") as file:
            about = file.metadata() or {}
            _check_kind(path, about, vocabulary)
            arrays = {name: file.get_tensor(name) for name in _LAYOUT}
    except (SafetensorError, OSError) as error:
        raise D2RosError(
            f"{path} is no file of places, or the end of it is missing ({error}); build it again"
        ) from None
    if _checksum(arrays, about) != about.get("checksum"):
        raise D2RosError(f"{path} is damaged: its checksum is another one; build it again")
    return _places(arrays, [_camera(text) for text in json.loads(about["cameras"])])


def _check_kind(path: Path, about: Mapping[str, str], vocabulary: Vocabulary) -> None:
    if about.get("kind") != _KIND:
        raise D2RosError(
            f"{path} holds no places; give a file that d2-ros places build has written"
        )
    if about.get("version") != VERSION:
        raise D2RosError(
            f"{path} is of version {about.get('version')}, this program reads {VERSION}; "
            "build it again"
        )
    if about.get("vocabulary") != vocabulary.identity:
        raise D2RosError(
            f"{path} was made with vocabulary {about.get('vocabulary')}, this is "
            f"{vocabulary.identity}; build it again"
        )


def _arrays(places: Sequence[Place], cameras: list[str]) -> Arrays:
    """All arrays of the file; fills `cameras` with every calibration once."""
    numbers: dict[str, int] = {}
    which = []
    for place in places:
        text = _text(place.camera)
        which.append(numbers.setdefault(text, len(numbers)) if text else -1)
    cameras.extend(numbers)
    columns: dict[str, Any] = {
        "stamps": [place.stamp for place in places],
        "sessions": [place.session for place in places],
        "sizes": [place.size for place in places],
        "cameras": which,
        "keypoints": [len(place.pixels) for place in places],
        "image_sizes": [place.image.shape for place in places],
        "vlads": np.stack([place.vlad for place in places]),
        "pixels": np.concatenate([place.pixels for place in places]),
        "covariances": np.concatenate([place.covariances for place in places]),
        "descriptors": np.concatenate([place.descriptors for place in places]),
        "images": np.concatenate([place.image.ravel() for place in places]),
    }
    return {name: np.ascontiguousarray(columns[name], kind) for name, kind in _LAYOUT.items()}


def _places(arrays: Arrays, cameras: Sequence[Camera]) -> list[Place]:
    ends = np.cumsum(arrays["keypoints"])
    image_ends = np.cumsum(arrays["image_sizes"].prod(axis=1))
    places, begin, image_begin = [], 0, 0
    for number, (end, image_end) in enumerate(zip(ends, image_ends, strict=True)):
        rows = slice(begin, end)
        camera = int(arrays["cameras"][number])
        width, height = arrays["sizes"][number].tolist()
        places.append(
            Place(
                int(arrays["stamps"][number]),
                int(arrays["sessions"][number]),
                (width, height),
                cameras[camera] if camera >= 0 else None,
                arrays["vlads"][number],
                arrays["pixels"][rows],
                arrays["covariances"][rows],
                arrays["descriptors"][rows],
                arrays["images"][image_begin:image_end].reshape(arrays["image_sizes"][number]),
            )
        )
        begin, image_begin = end, image_end
    return places


def _checksum(arrays: Arrays, about: Mapping[str, str]) -> str:
    """CRC-32 of all that the file says; a SHA-256 of 10,000 keyframes would take six seconds."""
    check = 0
    for key in ("version", "vocabulary", "cameras"):
        check = zlib.crc32(about.get(key, "").encode(), check)
    for name in _LAYOUT:
        check = zlib.crc32(f"{name}{arrays[name].dtype}{arrays[name].shape}".encode(), check)
        check = zlib.crc32(arrays[name].reshape(-1).view(np.uint8).data, check)
    return f"{check:08x}"


def _text(camera: Camera | None) -> str:
    if camera is None:
        return ""
    values = [camera.width, camera.height, camera.model]
    return json.dumps([*values, camera.matrix.ravel().tolist(), camera.distortion.tolist()])


def _camera(text: str) -> Camera:
    width, height, model, matrix, distortion = json.loads(text)
    return Camera(width, height, np.array(matrix), np.array(distortion), model)
