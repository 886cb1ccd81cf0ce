import array
import struct
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2_ros.errors import D2RosError
from d2_ros.sources.images import (
    ENCODINGS,
    MAX_PIXELS,
    decode_compressed,
    decode_image,
    read_image,
)

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (6, 8), np.uint8)
COLOUR = RNG.integers(0, 256, (6, 8, 3), np.uint8)
DEEP = RNG.integers(0, 65536, (6, 8, 3), np.uint16)


def payload(pixels, padding=0, big=False):
    """Rows of `pixels` with `padding` bytes of rubbish after each; returns (step, bytes)."""
    rows = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<"))
    rows = np.frombuffer(rows.tobytes(), np.uint8).reshape(len(pixels), -1)
    rubbish = np.full((len(rows), padding), 0xAB, np.uint8)
    rows = np.hstack([rows, rubbish])
    return rows.shape[1], rows.tobytes()


def alpha(pixels):
    return np.dstack([pixels, np.full(pixels.shape[:2], 7, pixels.dtype)])


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "sent", "expected"),
    [
        ("mono8", GRAY, GRAY),
        ("8UC1", GRAY, GRAY),
        ("bgr8", COLOUR, COLOUR),
        ("8UC3", COLOUR, COLOUR),
        ("rgb8", COLOUR[..., ::-1], COLOUR),
        ("bgra8", alpha(COLOUR), COLOUR),
        ("rgba8", alpha(COLOUR[..., ::-1]), COLOUR),
    ],
)
def test_8_bit_encodings_are_exact(encoding, sent, expected, padding):
    step, data = payload(sent, padding)
    image = decode_image(encoding, 6, 8, step, False, data)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(
    ("encoding", "sent", "expected"),
    [
        ("mono16", DEEP[..., 0], DEEP[..., 0]),
        ("16UC1", DEEP[..., 0], DEEP[..., 0]),
        ("bgr16", DEEP, DEEP),
        ("rgb16", DEEP[..., ::-1], DEEP),
        ("rgba16", alpha(DEEP[..., ::-1]), DEEP),
    ],
)
def test_16_bit_encodings_in_both_byte_orders(encoding, sent, expected, padding, big):
    step, data = payload(sent, padding, big)
    image = decode_image(encoding, 6, 8, step, big, data)
    assert image.dtype == np.dtype("=u2")
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_give_the_colour_back(pattern, bits):
    levels = {"b": 10, "g": 60, "r": 200}
    tile = np.array([levels[letter] for letter in pattern], f"u{bits // 8}").reshape(2, 2)
    step, data = payload(np.tile(tile, (4, 5)))
    image = decode_image(f"bayer_{pattern}{bits}", 8, 10, step, False, data)
    np.testing.assert_array_equal(image, np.broadcast_to([10, 60, 200], (8, 10, 3)))


@pytest.mark.parametrize(
    ("encoding", "order"),
    [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv"), ("yuyv", "yuyv")],
)
def test_yuv422_gives_pure_red(encoding, order):
    # BT.601 limited range: red is Y 81, U 90, V 240. The two y of a pair are equal here.
    levels = {"y": 81, "u": 90, "v": 240}
    row = np.array([levels[letter] for letter in order] * 4, np.uint8)
    image = decode_image(encoding, 2, 8, 16, False, np.vstack([row, row]).tobytes())
    np.testing.assert_allclose(image, np.broadcast_to([0, 0, 254], (2, 8, 3)), atol=2)


@pytest.mark.parametrize("encoding", ["nv21", "nv24"])
@pytest.mark.parametrize("padding", [0, 4])
def test_of_planar_yuv_the_gray_plane_counts(encoding, padding):
    step, data = payload(GRAY, padding)
    image = decode_image(encoding, 6, 8, step, False, data + bytes(3 * step))
    np.testing.assert_array_equal(image, GRAY)


@pytest.mark.parametrize("big", [False, True])
def test_floats_from_0_to_1_are_the_full_scale(big):
    sent = np.array([[0, 0.25], [0.5, 1]], np.float32)
    step, data = payload(sent, 3, big)
    image = decode_image("32FC1", 2, 2, step, big, data)
    np.testing.assert_array_equal(image, np.rint(sent * 65535).astype(np.uint16))


def test_other_floats_are_stretched_whatever_is_among_them():
    sent = np.linspace(-3, 40, 400, dtype=np.float32).reshape(20, 20)
    sent[0, :4] = np.nan, np.inf, -np.inf, 1e30
    step, data = payload(sent)
    image = decode_image("32FC1", 20, 20, step, False, data)
    assert image[0, :4].tolist() == [0, 65535, 0, 65535]
    rest = image.ravel()[8:-8].astype(int)
    assert np.all(np.diff(rest) > 100)
    assert (image[10, 0] - image.min()) / 65535 == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -5.0, 0.0])
def test_floats_without_a_range_give_a_flat_picture(value):
    step, data = payload(np.full((4, 4), value, np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode_image("32FC1", 4, 4, step, False, data)
    assert image.dtype == np.uint16
    assert np.ptp(image) == 0


def test_a_long_word_from_a_message_does_not_flood_the_log():
    for call in (
        lambda: decode_image("x" * 10**6, 6, 8, 8, False, bytes(48)),
        lambda: decode_compressed("x" * 10**6, b"rubbish"),
    ):
        with pytest.raises(D2RosError) as caught:
            call()
        assert len(str(caught.value)) < 600


def test_result_is_a_writable_copy():
    data = array.array("B", GRAY.tobytes())
    image = decode_image("mono8", 6, 8, 8, False, data)
    image[:] = 0
    assert data.tobytes() == GRAY.tobytes()


@pytest.mark.parametrize("encoding", ["32FC2", "", "BGR8", "yuv444"])
def test_unknown_encoding_is_named(encoding):
    with pytest.raises(D2RosError, match=f"encoding '{encoding}' is not supported"):
        decode_image(encoding, 6, 8, 64, False, bytes(1000))


@pytest.mark.parametrize(
    ("height", "width", "step", "length"),
    [
        (6, 8, 8, 47),  # a byte is missing
        (6, 8, 7, 100),  # rows shorter than the pixels
        (6, 8, 0, 100),
        (0, 8, 8, 100),
        (6, 0, 8, 100),
        (2**31, 2**31, 2**31, 100),  # would be 4 EB
    ],
)
def test_sizes_that_do_not_fit_are_refused(height, width, step, length):
    with pytest.raises(D2RosError, match="does not fit"):
        decode_image("mono8", height, width, step, False, bytes(length))


def test_odd_yuv_is_refused():
    with pytest.raises(D2RosError, match="5 px wide"):
        decode_image("yuv422", 2, 5, 10, False, bytes(20))


@pytest.mark.parametrize("pixels", [GRAY, COLOUR, DEEP])
def test_png_is_exact(pixels):
    image = decode_compressed("png", cv2.imencode(".png", pixels)[1].tobytes())
    assert image.dtype == pixels.dtype
    np.testing.assert_array_equal(image, pixels)


def test_png_with_alpha_loses_it():
    content = cv2.imencode(".png", alpha(COLOUR))[1].tobytes()
    np.testing.assert_array_equal(decode_compressed("png", content), COLOUR)


@pytest.mark.parametrize("kind", [np.uint8, array.array, bytes])
def test_jpeg_from_any_buffer(kind):
    smooth = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (32, 1))
    content = cv2.imencode(".jpg", smooth, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    data = {np.uint8: content, bytes: content.tobytes()}.get(kind, array.array("B", content))
    image = decode_compressed("mono8; jpeg compressed ", data)
    assert image.shape == smooth.shape
    np.testing.assert_allclose(image.astype(int), smooth, atol=4)


def encoded(pixels, ending=".png"):
    return cv2.imencode(ending, pixels)[1].tobytes()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_compressed_bayer_mosaic_gives_the_colours_of_the_raw_one(pattern, bits):
    mosaic = RNG.integers(0, 1 << bits, (8, 10), f"u{bits // 8}")
    step, data = payload(mosaic)
    raw = decode_image(f"bayer_{pattern}{bits}", 8, 10, step, False, data)
    image = decode_compressed(f"bayer_{pattern}{bits}; png compressed ", encoded(mosaic))
    assert image.dtype == mosaic.dtype
    np.testing.assert_array_equal(image, raw)


@pytest.mark.parametrize(
    ("format", "stored", "expected"),
    [
        ("bayer_rggb8; jpeg compressed mono8", GRAY, GRAY),  # demosaiced before it was compressed
        ("bayer_rggb8; png compressed bgr8", COLOUR, COLOUR),
        ("bayer_rggb8; png compressed ", COLOUR, COLOUR),  # nothing left to demosaic
        ("mono8; jpeg compressed mono8", GRAY, GRAY),
        ("mono16; png compressed ", DEEP[..., 0], DEEP[..., 0]),
        ("16UC1; png compressed ", DEEP[..., 0], DEEP[..., 0]),
        ("bgr8; png compressed bgr8", COLOUR, COLOUR),
        ("rgb8; png compressed bgr8", COLOUR, COLOUR),
        ("rgba8; png compressed bgr8", COLOUR, COLOUR),
        ("rgb16; png compressed bgr16", DEEP, DEEP),
        ("rgb8; png compressed rgb8", COLOUR, COLOUR[..., ::-1]),  # as Fuerte's plugin wrote them
        ("bgr8; png compressed ", COLOUR, COLOUR[..., ::-1]),
        ("yuv422; png compressed bgr8", COLOUR, COLOUR),
        ("png", COLOUR, COLOUR),
        ("bgr8; png ", COLOUR, COLOUR),
    ],
)
def test_formats_of_image_transport(format, stored, expected):
    np.testing.assert_array_equal(decode_compressed(format, encoded(stored)), expected)


def test_the_mosaic_of_an_old_jpeg_is_demosaiced():
    levels = np.array([[200, 60], [60, 10]], np.uint8)
    content = encoded(np.tile(levels, (8, 8)), ".jpg")
    image = decode_compressed("bayer_rggb8; jpeg compressed ", content)
    assert image.shape == (16, 16, 3)
    np.testing.assert_allclose(image[4:-4, 4:-4].mean((0, 1)), [10, 60, 200], atol=8)


@pytest.mark.parametrize(
    "format",
    ["16UC1; compressedDepth", "16UC1; compressedDepth png", "32FC1; compressedDepth rvl"],
)
def test_compressed_depths_are_refused_as_such(format):
    data = bytes(12) + encoded(DEEP[..., 0])
    with pytest.raises(D2RosError, match=f"'{format}' holds depths, not a picture"):
        decode_compressed(format, data)


def test_an_unknown_bayer_pattern_is_named():
    with pytest.raises(D2RosError, match="unknown Bayer pattern: 'bayer_rgbw8; png compressed '"):
        decode_compressed("bayer_rgbw8; png compressed ", encoded(GRAY))


@pytest.mark.parametrize("ending", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_compressed_image_cut_short_is_refused(ending, share):
    content = cv2.imencode(ending, RNG.integers(0, 256, (64, 64, 3), np.uint8))[1].tobytes()
    with pytest.raises(D2RosError, match="cut short"):
        decode_compressed(ending[1:], content[: int(share * len(content))])


def test_bombs_are_refused_by_their_header():
    png = bytearray(cv2.imencode(".png", GRAY)[1].tobytes())
    struct.pack_into(">II", png, 16, 20_000, 20_000)
    with pytest.raises(D2RosError, match=f"20000x20000 .* at most {MAX_PIXELS}"):
        decode_compressed("png", bytes(png))
    jpeg = bytearray(cv2.imencode(".jpg", COLOUR)[1].tobytes())
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, 60_000, 50_000)
    with pytest.raises(D2RosError, match="50000x60000"):
        decode_compressed("jpeg", bytes(jpeg))


@pytest.mark.parametrize("lone", [b"\xff\xd0", b"\xff\x01", b"\xff\xff\xd7"])
def test_a_jpeg_cannot_hide_its_size_behind_a_marker_without_length(lone):
    jpeg = cv2.imencode(".jpg", COLOUR)[1].tobytes()
    place = jpeg.index(b"\xff\xc0")
    true, decoy = bytearray(jpeg[place:]), jpeg[place : place + 19]
    struct.pack_into(">HH", true, 5, 60_000, 50_000)
    # Read as a segment, the lone marker would swallow the true frame header up to the decoy.
    hidden = jpeg[:2] + lone + jpeg[2:place] + bytes(true)
    hidden = hidden[:-2] + decoy + hidden[-2:]
    with pytest.raises(D2RosError, match=r"50000x60000|cut short"):
        decode_compressed("jpeg", hidden)


def test_refusing_a_huge_size_takes_no_memory():
    import tracemalloc

    png = bytearray(cv2.imencode(".png", GRAY)[1].tobytes())
    struct.pack_into(">II", png, 16, 2**31 - 1, 2**31 - 1)
    tracemalloc.start()
    for call in (
        lambda: decode_image("mono8", 10**9, 10**9, 10**9, False, bytes(100)),
        lambda: decode_image("rgba16", 2**32 - 1, 2**32 - 1, 2**32 - 1, True, bytes(100)),
        lambda: decode_compressed("png", bytes(png)),
    ):
        with pytest.raises(D2RosError):
            call()
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


@pytest.mark.parametrize("data", [b"", b"\x00" * 50, b"GIF89a", b"\x89PNG", b"\xff\xd8"])
def test_neither_jpeg_nor_png_names_the_format(data):
    with pytest.raises(D2RosError, match="'h264' is neither"):
        decode_compressed("h264", data)


WORDS = ["bayer_", "rggb8", "rgb8", "bgr", ";", " ", "png", "compressed", "compressedDepth", "\n"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=4)).map("".join), st.data())
def test_any_format_gives_an_image_or_the_one_error(format, data):
    pixels = data.draw(st.sampled_from([GRAY, COLOUR, DEEP, alpha(COLOUR), GRAY[:1, :1]]))
    try:
        image = decode_compressed(format, encoded(pixels))
    except D2RosError:
        return
    assert image.shape[:2] == pixels.shape[:2]
    assert image.shape[2:] in ((), (3,))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([".jpg", ".png"]), st.data())
def test_damaged_bytes_give_an_image_or_the_one_error(ending, data):
    content = bytearray(cv2.imencode(ending, COLOUR)[1].tobytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = decode_compressed("x", bytes(content))
    except D2RosError:
        return
    assert image.dtype in (np.uint8, np.uint16)
    assert image.size <= 4 * MAX_PIXELS


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(ENCODINGS)),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(0, 40),
    st.binary(max_size=200),
)
def test_any_sizes_give_an_image_of_that_size_or_the_one_error(encoding, height, width, step, data):
    try:
        image = decode_image(encoding, height, width, step, False, data)
    except D2RosError:
        return
    assert image.shape[:2] == (height, width)


@pytest.mark.parametrize("ending", ["png", "pgm", "tiff", "bmp"])
def test_files_are_read_exactly(tmp_path, ending):
    path = tmp_path / f"image.{ending}"
    cv2.imwrite(str(path), GRAY)
    np.testing.assert_array_equal(read_image(path).reshape(6, 8, -1)[..., 0], GRAY)


def test_unreadable_files_are_named(tmp_path):
    missing, text, cut = tmp_path / "none.png", tmp_path / "text.png", tmp_path / "cut.jpg"
    text.write_text("no image")
    cut.write_bytes(cv2.imencode(".jpg", COLOUR)[1].tobytes()[:-40])
    for path in (missing, text, cut):
        with pytest.raises(D2RosError, match=path.name):
            read_image(path)


def test_float_files_are_refused(tmp_path):
    path = tmp_path / "depth.tiff"
    cv2.imwrite(str(path), GRAY.astype(np.float32))
    with pytest.raises(D2RosError, match="float32"):
        read_image(path)


def test_a_name_with_a_null_in_it_is_refused():
    with pytest.raises(D2RosError, match="null"):
        read_image(Path("a\0b.png"))
