"""Aggregates of descriptors, and the vocabulary that the package ships."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from d2_ros.errors import D2RosError
from d2_ros.places.training import SIZE, make_vocabulary
from d2_ros.places.vlad import SHIPPED, aggregate, load_vocabulary, unit, vocabulary_bytes

RNG = np.random.default_rng(0)
WORDS = unit(RNG.standard_normal((4, 8)).astype(np.float32))


def near(word, count, seed=0):
    rng = np.random.default_rng(seed)
    return unit(WORDS[word] + 0.1 * rng.standard_normal((count, 8)).astype(np.float32))


def test_residuals_are_summed_per_word():
    rows = np.concatenate([near(0, 3), near(2, 5)])
    found = aggregate(rows, WORDS).reshape(4, 8)
    expected = unit((rows[:3] - WORDS[0]).sum(0)) / np.sqrt(2)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
    assert np.linalg.norm(found[2]) == pytest.approx(np.sqrt(0.5), abs=1e-6)
    assert not found[[1, 3]].any()


def test_what_repeats_a_hundred_times_does_not_drown_the_rest():
    once = np.concatenate([near(0, 1), near(1, 4)])
    often = np.concatenate([np.repeat(near(0, 1), 100, axis=0), near(1, 4)])
    np.testing.assert_allclose(aggregate(often, WORDS), aggregate(once, WORDS), atol=1e-5)


def test_nothing_seen_is_no_direction():
    assert not aggregate(np.empty((0, 8), np.float32), WORDS).any()
    assert np.isfinite(load_vocabulary().describe(np.empty((0, 128), np.float32))).all()


def test_the_shipped_vocabulary_is_small_and_says_where_it_comes_from():
    vocabulary = load_vocabulary()
    assert SHIPPED.stat().st_size <= 5_000_000
    assert vocabulary.words.shape == (64, 128)
    assert vocabulary.projection.shape == (512, 128)
    assert vocabulary.whitening.shape == (64 * 128, 256)
    names = vocabulary.provenance["photographs"].split(", ")
    assert "skimage.data.coffee" in names
    assert len(names) == 102
    # Whose pictures may be used for research only, or differ in their licences.
    assert not [n for n in names if n.startswith(("kittiraw", "sacrecoeur", "reichstag"))]


def test_the_projection_keeps_scalar_products_of_like_descriptors():
    vocabulary = load_vocabulary()
    axes = vocabulary.projection.T @ vocabulary.projection
    np.testing.assert_allclose(axes, np.eye(128), atol=2e-3)  # stored as float16


def photographs():
    rng = np.random.default_rng(1)
    places = [rng.uniform(0, 100, (60, 2)).astype(np.float32) for _ in range(30)]
    seen = [unit(np.abs(rng.standard_normal((60, 16))).astype(np.float32)) for _ in places]
    return places, seen


def test_the_same_seed_makes_the_same_vocabulary_and_a_file_keeps_it(tmp_path):
    first, again = (make_vocabulary(*photographs(), {"by": "test"}) for _ in range(2))
    assert first.identity == again.identity
    assert make_vocabulary(*photographs(), {}, seed=1).identity != first.identity
    path = tmp_path / "vocabulary.safetensors"
    path.write_bytes(vocabulary_bytes(first))
    read = load_vocabulary(path)
    assert read.identity == first.identity
    assert read.provenance == {"by": "test"}
    assert first.whitening.shape[1] == SIZE


def test_whitened_axes_of_the_photographs_are_of_one_size():
    places, seen = photographs()
    vocabulary = make_vocabulary(places, seen, {})
    whole = [aggregate(vocabulary.project(rows), vocabulary.words) for rows in seen]
    spread = ((np.stack(whole) - vocabulary.mean) @ vocabulary.whitening).std(axis=0)
    assert spread[0] / spread[20] < 3  # thirty times as much where nothing is whitened


def test_too_few_photographs_and_foreign_files_are_refused(tmp_path):
    places, seen = photographs()
    with pytest.raises(D2RosError, match="25 photographs give 250 windows"):
        make_vocabulary(places[:25], seen[:25], {})
    path = tmp_path / "other.safetensors"
    save_file({"words": np.zeros(3)}, path)
    with pytest.raises(D2RosError, match="is no vocabulary of places"):
        load_vocabulary(path)
    path.write_bytes(SHIPPED.read_bytes()[:100_000])
    load_vocabulary.cache_clear()
    with pytest.raises(D2RosError, match="is no vocabulary of places"):
        load_vocabulary(path)
