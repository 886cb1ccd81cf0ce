"""Places on disk: whole, or refused in one sentence."""

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.places import storage
from d2_ros.places.storage import load_places, save_places
from d2_ros.places.vlad import load_vocabulary

VOCABULARY = load_vocabulary()


@pytest.fixture
def places(make_world):
    world = make_world()
    fisheye = Camera(640, 480, [[150, 0, 320], [0, 150, 240], [0, 0, 1]], [0.1] * 4, "equidistant")
    return [
        world.place(1, session=3)[0],
        world.place(2, (0.3, 0, 0), camera=None)[0],
        world.place(3, (0.6, 0, 0), camera=fisheye)[0],
    ]


@pytest.fixture
def file(places, tmp_path):
    path = tmp_path / "places"
    save_places(path, places, VOCABULARY)
    return path


def test_what_is_read_is_what_was_written(places, file):
    for one, other in zip(places, load_places(file, VOCABULARY), strict=True):
        for field in dataclasses.fields(one):
            a, b = getattr(one, field.name), getattr(other, field.name)
            if isinstance(a, np.ndarray):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)
            elif isinstance(a, Camera):
                assert a.model == b.model
                np.testing.assert_array_equal(a.matrix, b.matrix)
                np.testing.assert_array_equal(a.distortion, b.distortion)
            else:
                assert a == b


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_refused(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(D2RosError, match="is no file of places, or the end of it is missing"):
        load_places(file, VOCABULARY)


def test_one_wrong_byte_anywhere_is_noticed(file):
    content = bytearray(file.read_bytes())
    for place in np.linspace(2500, len(content) - 1, 15, dtype=int):
        content[place] ^= 0x10
        file.write_bytes(content)
        with pytest.raises(D2RosError, match=r"is damaged|is no file of places"):
            load_places(file, VOCABULARY)
        content[place] ^= 0x10


def test_foreign_files_are_refused(tmp_path, file):
    with pytest.raises(D2RosError, match="is no file"):
        load_places(tmp_path, VOCABULARY)
    with pytest.raises(D2RosError, match="is no file"):
        load_places(tmp_path / "absent", VOCABULARY)
    other = tmp_path / "weights.safetensors"
    save_file({"weight": np.zeros(4, np.float32)}, other)
    with pytest.raises(D2RosError, match="holds no places"):
        load_places(other, VOCABULARY)
    other.write_text("not at all")
    with pytest.raises(D2RosError, match="is no file of places"):
        load_places(other, VOCABULARY)


def test_a_file_without_one_of_its_arrays_is_refused(file):
    arrays = load_file(file)
    del arrays["vlads"]
    kind = {"kind": "d2_ros places", "version": "1", "vocabulary": VOCABULARY.identity}
    save_file(arrays, file, kind)
    with pytest.raises(D2RosError, match="is no file of places"):
        load_places(file, VOCABULARY)


def test_another_version_and_another_vocabulary_are_refused(places, tmp_path, monkeypatch):
    path = tmp_path / "places"
    changed = dataclasses.replace(VOCABULARY, mean=VOCABULARY.mean + 1)
    save_places(path, places, changed)
    with pytest.raises(D2RosError, match=f"made with vocabulary {changed.identity}"):
        load_places(path, VOCABULARY)
    monkeypatch.setattr(storage, "VERSION", "2")
    save_places(path, places, VOCABULARY)
    monkeypatch.undo()
    with pytest.raises(D2RosError, match="of version 2, this program reads 1"):
        load_places(path, VOCABULARY)


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(file, places, monkeypatch):
    before = file.read_bytes()

    def fail(arrays, path, about):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", fail)
    with pytest.raises(D2RosError, match="No space left on device"):
        save_places(file, places[:1], VOCABULARY)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_no_places_are_not_written(tmp_path):
    with pytest.raises(D2RosError, match="no places to write"):
        save_places(tmp_path / "none", [], VOCABULARY)
    assert not list(tmp_path.iterdir())
