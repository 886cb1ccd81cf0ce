"""Image payloads of messages and files -> arrays; shared by the readers and the node."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError

MAX_PIXELS = 50_000_000
"""Larger compressed images are refused before they are decoded: a few bytes can claim a lot.

With four channels of 16 bit this is 400 MB decoded, and 300 MB more for the copy without alpha.
"""


class _Layout(NamedTuple):
    """How one pixel lies in the data, and the OpenCV conversion to gray or BGR if needed."""

    depth: str
    channels: int
    conversion: int | None = None


ENCODINGS = {
    "mono8": _Layout("u1", 1),
    "8UC1": _Layout("u1", 1),
    "32FC1": _Layout("f4", 1),
    "mono16": _Layout("u2", 1),
    "16UC1": _Layout("u2", 1),
    "bgr8": _Layout("u1", 3),
    "8UC3": _Layout("u1", 3),
    "bgr16": _Layout("u2", 3),
    "16UC3": _Layout("u2", 3),
    "yuv422": _Layout("u1", 2, cv2.COLOR_YUV2BGR_UYVY),
    "uyvy": _Layout("u1", 2, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422_yuy2": _Layout("u1", 2, cv2.COLOR_YUV2BGR_YUY2),
    "yuyv": _Layout("u1", 2, cv2.COLOR_YUV2BGR_YUY2),
    # The gray plane comes first; how the colours lie behind it is each driver's own affair.
    "nv21": _Layout("u1", 1),
    "nv24": _Layout("u1", 1),
}
"""The encodings of ``sensor_msgs/Image`` that hold a picture."""

for _bits, _depth in ((8, "u1"), (16, "u2")):
    ENCODINGS[f"rgb{_bits}"] = _Layout(_depth, 3, cv2.COLOR_RGB2BGR)
    ENCODINGS[f"bgra{_bits}"] = _Layout(_depth, 4, cv2.COLOR_BGRA2BGR)
    ENCODINGS[f"rgba{_bits}"] = _Layout(_depth, 4, cv2.COLOR_RGBA2BGR)
    # ROS names a Bayer pattern by its first 2x2 pixels, OpenCV by the second row and column.
    ENCODINGS[f"bayer_rggb{_bits}"] = _Layout(_depth, 1, cv2.COLOR_BayerBG2BGR)
    ENCODINGS[f"bayer_bggr{_bits}"] = _Layout(_depth, 1, cv2.COLOR_BayerRG2BGR)
    ENCODINGS[f"bayer_gbrg{_bits}"] = _Layout(_depth, 1, cv2.COLOR_BayerGR2BGR)
    ENCODINGS[f"bayer_grbg{_bits}"] = _Layout(_depth, 1, cv2.COLOR_BayerGB2BGR)


_TRANSPORT = re.compile(r"(\w+) *;.*\bcompressed\b *(\w*)")
"""``ENCODING; CODEC compressed TARGET``, as image_transport tells what it has compressed."""


def decode_image(
    encoding: str, height: int, width: int, step: int, is_bigendian: bool | int, data: Any
) -> NDArray[Any]:
    """Decode the payload of a ``sensor_msgs/Image``.

    Parameters
    ----------
    encoding, height, width, step, is_bigendian
        As in the message; `step` is the length of a row in bytes, padding included.
    data
        Anything with the buffer protocol: bytes, ``array.array`` or a uint8 array.

    Returns
    -------
    ``(H, W)`` gray or ``(H, W, 3)`` BGR, uint8 or uint16 (floats as in :func:`_from_float`),
    native byte order; a copy of its own.

    Raises
    ------
    D2RosError
        If the encoding is unknown or the sizes do not fit the data.
    """
    if encoding not in ENCODINGS:
        raise D2RosError(
            f"image encoding {encoding[:40]!r} is not supported; "
            f"publish one of {', '.join(ENCODINGS)}"
        )
    depth, channels, conversion = ENCODINGS[encoding]
    raw = np.frombuffer(data, np.uint8)
    kind = np.dtype(depth)
    row = width * channels * kind.itemsize
    if width < 1 or height < 1 or step < row or step * height > len(raw):
        raise D2RosError(
            f"{encoding} image of {width}x{height} with step {step} does not fit its "
            f"{len(raw)} bytes of data; the driver fills the message wrongly"
        )
    if channels == 2 and width % 2:
        raise D2RosError(
            f"{encoding} image is {width} px wide; two pixels share a colour, so it must be even"
        )
    rows = np.ascontiguousarray(raw[: step * height].reshape(height, step)[:, :row])
    pixels = rows.view(kind.newbyteorder(">" if is_bigendian else "<")).astype(kind)
    pixels = pixels.reshape((height, width, channels) if channels > 1 else (height, width))
    if kind.kind == "f":
        return _from_float(pixels)
    return pixels if conversion is None else cv2.cvtColor(pixels, conversion)


def _from_float(pixels: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return 16 bit gray; 0 to 1 is the full scale, other values are stretched to it.

    They are stretched from the 1st to the 99th percentile, so that a few hot pixels do not
    flatten the picture. NaN and minus infinity become black, infinity white.
    """
    with np.errstate(invalid="ignore"):  # signalling NaN, and infinity less infinity
        values = pixels.astype(np.float64)
        finite = values[np.isfinite(values)]
        low, high = 0.0, 1.0
        if len(finite) and (finite.min() < 0 or finite.max() > 1):
            low, high = np.percentile(finite, [1, 99])
        share = np.clip((values - low) / (high - low if high > low else 1.0), 0, 1)
    return np.rint(np.nan_to_num(share) * 65535).astype(np.uint16)


def decode_compressed(format: str, data: Any) -> NDArray[Any]:
    """Decode the payload of a ``sensor_msgs/CompressedImage`` (JPEG or PNG).

    Parameters
    ----------
    format
        As in the message. The data say themselves what they are, except for what image_transport
        did before it compressed them: see :func:`_from_stored`.
    data
        Anything with the buffer protocol.

    Returns
    -------
    ``(H, W)`` gray or ``(H, W, 3)`` BGR, uint8 or uint16.

    Raises
    ------
    D2RosError
        If the data are not JPEG or PNG, are cut short, or claim more than `MAX_PIXELS`.
    """
    if "compressedDepth" in format:
        raise D2RosError(
            f"compressed image of format {format[:40]!r} holds depths, not a picture; "
            "choose the topic of the camera's images"
        )
    content = bytes(data)
    header = _header(content)
    if header is None:
        raise D2RosError(
            f"compressed image of format {format[:40]!r} is neither JPEG nor PNG; "
            "publish it with image_transport's jpeg or png"
        )
    width, height, complete = header
    if width * height > MAX_PIXELS:
        raise D2RosError(
            f"compressed image claims {width}x{height} pixels; at most {MAX_PIXELS} are accepted"
        )
    if not complete:
        raise D2RosError(f"compressed image ({format[:40]!r}, {len(content)} bytes) is cut short")
    return _from_stored(format, _decode(content, f"compressed image of format {format[:40]!r}"))


def _from_stored(format: str, image: NDArray[Any]) -> NDArray[Any]:
    """Undo what compressed_image_transport's `format` says was compressed; return gray or BGR.

    Its PNGs, and its JPEGs of before July 2021, hold a Bayer mosaic as it is, the later JPEGs gray
    ("mono8"). Colours are in OpenCV's order only where it names that: older versions stored RGB.
    """
    told = _TRANSPORT.match(format)
    if told is None:
        return image
    encoding, target = told.groups()
    stored = target or encoding
    if stored.startswith("bayer_") and image.ndim == 2:
        layout = ENCODINGS.get(stored)
        if layout is None or layout.conversion is None:
            raise D2RosError(f"compressed image has an unknown Bayer pattern: {format[:40]!r}")
        return cv2.cvtColor(image, layout.conversion)
    if encoding.startswith(("rgb", "bgr")) and not target.startswith("bgr") and image.ndim == 3:
        return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return image


def read_image(path: Path) -> NDArray[Any]:
    """Read an image file of any kind that OpenCV knows; JPEG and PNG with the same checks.

    Returns
    -------
    ``(H, W)`` gray or ``(H, W, 3)`` BGR, uint8 or uint16.

    Raises
    ------
    D2RosError
        If the file cannot be read or decoded.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise D2RosError(f"image {path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # a name with a null in it, out of a table
        raise D2RosError(f"image {str(path)!r} cannot be read: {error}") from None
    if _header(content) is None:
        return _decode(content, f"image {path}")
    try:
        return decode_compressed(path.suffix.lstrip("."), content)
    except D2RosError as error:
        raise D2RosError(f"image {path} is unusable: {error}") from None


def _decode(content: bytes, name: str) -> NDArray[Any]:
    try:
        # UNCHANGED keeps 16 bit and ignores EXIF rotation: pixels as the camera saw them.
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise D2RosError(f"{name} cannot be decoded; it is damaged or of an unknown kind")
    if image.dtype not in (np.uint8, np.uint16):
        raise D2RosError(f"{name} holds {image.dtype} values; store it with 8 or 16 bit")
    return cv2.cvtColor(image, cv2.COLOR_BGRA2BGR) if image.shape[2:] == (4,) else image


def _header(content: bytes) -> tuple[int, int, bool] | None:
    """Return width, height and whether the end mark is there; None if not JPEG or PNG."""
    if content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) >= 24:
        width, height = struct.unpack_from(">II", content, 16)
        return width, height, content.rfind(b"IEND") > 0
    if content.startswith(b"\xff\xd8\xff"):
        return _jpeg_header(content)
    return None


def _jpeg_header(content: bytes) -> tuple[int, int, bool]:
    """Walk JPEG's marker segments up to the frame header (ITU-T T.81, B.2.2)."""
    position = 2
    while position + 9 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:  # these stand alone, without a length
            position += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", content, position + 5)
            # An EXIF preview has an end mark of its own, but before this place.
            return width, height, content.rfind(b"\xff\xd9") > position
        else:
            position += 2 + struct.unpack_from(">H", content, position + 2)[0]
    return 0, 0, False
