"""``d2-ros places``: what is written, told and refused."""

import json

import cv2
import numpy as np
import pytest

from d2_ros.commands.places import describe
from d2_ros.places.revisit import Revisit
from d2_ros.places.storage import load_places
from d2_ros.places.vlad import load_vocabulary

pytest.importorskip("faiss", reason="faiss is not installed (extra places)")


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(7):
        cv2.imwrite(str(images / f"{number}.png"), np.full((72, 96), number, np.uint8))
    return images


def test_keyframes_are_kept_and_told_of(d2_ros, fake_frontend, folder, tmp_path):
    out, figures = tmp_path / "places", tmp_path / "figures.json"
    done = d2_ros("places", "build", folder, "--out", out, "--json", figures)
    assert done.code == 0, done.err
    assert "3 keyframes of 7 frames" in done.out
    kept = load_places(out, load_vocabulary())
    assert [len(place.pixels) for place in kept] == [2, 5, 3]  # frames 0, 3 and 6 of the fake
    np.testing.assert_array_equal(kept[1].pixels[0], [30, 3])
    assert kept[1].image.shape == (72, 96)
    assert (kept[1].image == 3).all()
    found = json.loads(figures.read_text())
    assert found["places"] == 3
    assert found["revisits"] == 0
    assert d2_ros("places", "info", out, "--json", figures).out.count("3 keyframes") == 1
    assert json.loads(figures.read_text())["keypoints_per_keyframe"] == pytest.approx(10 / 3)
    done = d2_ros("places", "query", out, folder, "--json", figures)
    assert done.code == 0, done.err
    assert "shows none of the 3 places" in done.out
    assert json.loads(figures.read_text())["keyframes"] == 3


def test_the_capacity_is_kept(d2_ros, fake_frontend, folder, tmp_path):
    out = tmp_path / "places"
    assert d2_ros("places", "build", folder, "--out", out, "--capacity", 2).code == 0
    assert len(load_places(out, load_vocabulary())) == 2


def test_what_was_kept_before_an_unusable_frame_is_written(d2_ros, fake_frontend, folder, tmp_path):
    cv2.imwrite(str(folder / "5.png"), np.full((72, 96), 255, np.uint8))
    out = tmp_path / "places"
    done = d2_ros("places", "build", folder, "--out", out)
    assert done.code == 2
    assert "left out" in done.err
    assert len(load_places(out, load_vocabulary())) == 2


def test_bad_input_is_one_sentence(d2_ros, fake_frontend, folder, tmp_path):
    out = tmp_path / "places"
    d2_ros("places", "build", folder, "--out", out)
    whole = out.read_bytes()
    for arguments, message in [
        (("query", folder / "0.png", folder), "no file of places"),
        (("query", tmp_path / "none", folder), "is no file"),
        (("query", out, tmp_path / "none"), "does not exist"),
        (("query", out, folder, "--camera", folder / "0.png"), "is for a single image"),
        (("build", folder, "--out", folder / "x"), "lies inside the input"),
        (("query", out, folder, "--json", out), "is the input itself"),
        (("info", folder), "is no file"),
    ]:
        done = d2_ros("places", *arguments)
        assert done.code == 2, arguments
        assert message in done.err
        assert done.err.count("\n") <= 2
    out.write_bytes(whole[: len(whole) // 2])
    assert "the end of it is missing" in d2_ros("places", "info", out).err


def test_a_revisit_is_told_in_one_line(make_place):
    rotation = cv2.Rodrigues(np.radians([0, 12.0, 0]))[0]
    one, other = make_place(70_000_000_000, 1), make_place(5_500_000_000, 0)
    rows, pixels = np.arange(30), np.zeros((30, 2))
    told = Revisit(
        one, other, rows, rows, pixels, pixels, np.zeros((30, 2, 2)), np.ones(30, np.float32),
        True, 41, 200, rotation, np.array([0, 0, 1.0]), 1.0,
    )  # fmt: skip
    assert describe(told) == (
        "70.000 s is the place of 5.500 s (session 0): 41 of 200 matches agree, 30 aligned; "
        "turned by 12.0 deg, moved along (0.00, 0.00, 1.00)"
    )


@pytest.fixture
def make_place():
    from d2_ros.places.place import Place

    nothing = (
        np.ones(256, np.float32), np.empty((0, 2), np.float32), np.empty((0, 3), np.float32),
        np.empty((0, 128), np.int8), np.zeros((2, 2), np.uint8),
    )  # fmt: skip
    return lambda stamp, session: Place(stamp, session, (640, 480), None, *nothing)
