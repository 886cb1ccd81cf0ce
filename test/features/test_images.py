import numpy as np
import pytest

from d2_ros.errors import D2RosError
from d2_ros.features.images import prepare


def test_a_small_image_passes_untouched(photograph):
    image, scale = prepare(photograph, 1600)
    np.testing.assert_array_equal(image, photograph)
    assert scale.tolist() == [1, 1]


def test_gray_gets_a_channel_axis(photograph):
    for gray in (photograph[:, :, 1], photograph[:, :, 1:2]):
        image, _ = prepare(gray, 1600)
        np.testing.assert_array_equal(image[:, :, 0], photograph[:, :, 1])


def test_sixteen_bits_are_full_scale_over_257(photograph):
    image, _ = prepare(photograph.astype(np.uint16) * 257, 1600)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, photograph)


@pytest.mark.parametrize(
    ("size", "max_edge", "expected"),
    [((200, 100), 100, (100, 50)), ((101, 333), 128, (39, 128)), ((640, 480), 640, (640, 480))],
)
def test_the_long_edge_is_reduced_and_the_scale_is_exact_per_axis(size, max_edge, expected):
    width, height = size
    image, scale = prepare(np.zeros((height, width), np.uint8), max_edge)
    assert image.shape[1::-1] == expected
    np.testing.assert_allclose(scale, np.divide(expected, size))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((80, 80), np.float32), "float32"),
        (np.zeros((80, 80), np.int32), "int32"),
        ([[0, 1]], "list"),
        (None, "NoneType"),
        (np.zeros((80, 80, 4), np.uint8), r"\(80, 80, 4\)"),
        (np.zeros(80, np.uint8), r"\(80,\)"),
        (np.zeros((0, 0), np.uint8), "0x0"),
        (np.zeros((480, 63), np.uint8), "63x480"),
        (np.zeros((64, 4000), np.uint8), "features.max_edge"),
    ],
)
def test_anything_else_is_refused_by_name(image, words):
    with pytest.raises(D2RosError, match=words):
        prepare(image, 640)
