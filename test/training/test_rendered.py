"""(d) Pairs of the synthetic sequence."""

import numpy as np
import pytest

from d2_ros.sources.synthetic import open_synthetic
from d2_ros.training.rendered import Rendered


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield open_synthetic("size=160x120,frames=6,rate=2")


def test_correspondences_show_the_same_points_and_no_hidden_ones(sequence, likeness):
    pairs = Rendered(sequence, range(6), (0.3, 0.95))
    assert len(pairs) > 0
    scores = []
    for index in range(len(pairs)):
        pair = pairs.draw(index, np.random.default_rng(index))
        i, j = pairs.pairs[index]
        there, visible = sequence.locate(i, pair.pixels, j)
        assert visible.all()
        np.testing.assert_array_equal(pair.pixels_second, there)
        back, _ = sequence.locate(j, pair.pixels_second, i)
        np.testing.assert_allclose(back, pair.pixels, atol=1e-6)
        scores.append(likeness(pair))
    assert np.median(scores) > 0.9, scores


def test_only_the_given_frames_of_the_given_overlap_are_paired(sequence):
    everything = Rendered(sequence, range(6), (0.0, 1.0)).pairs
    assert everything == [(i, j) for i in range(6) for j in range(i + 1, 6)]
    assert all(i >= 2 and j < 5 for i, j in Rendered(sequence, range(2, 5), (0.0, 1.0)).pairs)
    assert set(Rendered(sequence, range(6), (0.9, 1.0)).pairs) < set(everything)
