from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from d2_ros import records
from d2_ros.node.overlay import MIN_EDGE, draw_overlay, encode_jpeg

GRAY = np.full((480, 960), 128, np.uint8)
DIMMED = 90


def features(*rows: dict[str, Any]) -> Any:
    table = np.zeros(len(rows), records.FEATURES)
    for number, row in enumerate(rows):
        for name, value in row.items():
            table[number][name] = value
    return table


def point(u: float, v: float, detected: tuple[float, float] | None = None, **more: Any) -> Any:
    u_detected, v_detected = detected or (u, v)
    return {"u": u, "v": v, "u_detected": u_detected, "v_detected": v_detected, **more}


def frame(table: Any) -> records.FrameResult:
    none = np.empty(0, records.MATCHES)
    return records.FrameResult(5, False, table, none, None, np.zeros((len(table), 512), "f4"))


def draw(*history: Any, image: Any = GRAY) -> Any:
    return draw_overlay(image, list(history), frame(history[-1]))


def test_nothing_to_draw_leaves_the_dimmed_image() -> None:
    canvas = draw(features())
    assert canvas.shape == (480, 960, 3)
    assert np.abs(canvas[:400].astype(int) - DIMMED).max() <= 1


def test_points_are_coloured_by_track_length() -> None:
    canvas = draw(
        features(
            point(100, 100, track_id=1, track_length=1),
            point(300, 100, track_id=2, track_length=64),
            point(500, 100),
        )
    ).astype(int)
    short, long, alone = canvas[100, 100], canvas[100, 300], canvas[100, 500]
    assert short[0] > short[2] + 100  # blue
    assert long[2] > long[0] + 100  # red
    assert np.ptp(alone) == 0
    assert alone[0] > DIMMED


def test_the_move_from_detected_to_refined_is_a_white_line() -> None:
    moved = point(100, 100, detected=(130, 100), track_id=1, track_length=4)
    canvas = draw(features({**moved, "refined": 1}))
    assert (canvas[100, 110:128] > 200).all()
    assert (draw(features(moved))[100, 110:128] < 100).all()


def test_trails_follow_the_track_and_stop_where_it_was_lost() -> None:
    first = features(point(100, 100, track_id=1), point(100, 300, track_id=2))
    second = features(point(200, 100, track_id=1, track_length=9), point(200, 300, track_id=3))
    canvas = draw(first, second).astype(int)
    assert np.ptp(canvas[100, 150]) > 60
    assert np.abs(canvas[300, 150] - DIMMED).max() <= 1


@pytest.mark.parametrize(("width", "scale"), [(160, 6), (320, 3), (640, 2), (1241, 1)])
def test_small_images_are_enlarged_by_whole_factors(width: int, scale: int) -> None:
    image = np.full((120, width), 128, np.uint8)
    canvas = draw(features(point(20, 30, track_id=1, track_length=64)), image=image)
    assert canvas.shape == (120 * scale, width * scale, 3)
    assert max(canvas.shape) >= min(MIN_EDGE, max(canvas.shape))
    # The centre of pixel (20, 30), also in the enlarged image.
    v, u = np.mean(np.nonzero(np.ptp(canvas[: 80 * scale].astype(int), axis=2) > 60), axis=1)
    np.testing.assert_allclose([u, v], (np.array([20, 30]) + 0.5) * scale - 0.5, atol=0.6)


@pytest.mark.parametrize("shape", [(480, 960), (480, 960, 3)])
def test_16_bit_images_are_brought_to_8(shape: tuple[int, ...]) -> None:
    image = np.full(shape, 3000, np.uint16)
    image[:, 480:] = 1500
    canvas = draw(features(), image=image).astype(int)
    assert canvas[100, 100, 0] == pytest.approx(2 * canvas[100, 700, 0], abs=2)
    assert canvas[100, 100, 0] > 150


def test_the_drawing_does_not_touch_the_image() -> None:
    image = GRAY.copy()
    draw(features(point(100, 100, track_id=1, track_length=3)), image=image)
    np.testing.assert_array_equal(image, GRAY)


def test_jpeg_can_be_decoded() -> None:
    canvas = draw(features(point(100, 100, track_id=1, track_length=3)))
    back = cv2.imdecode(encode_jpeg(canvas), cv2.IMREAD_COLOR)
    assert back.shape == canvas.shape
    assert np.abs(back.astype(int) - canvas).mean() < 2
