"""Mutual nearest neighbours against a direct loop."""

from __future__ import annotations

import numpy as np
import torch

from d2_ros.matching.neighbours import _match, match


def unit(rng, count):
    return torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(count, 512))).float())


def test_equals_a_direct_loop_over_keyframes_of_different_sizes():
    rng = np.random.default_rng(0)
    frame = unit(rng, 60)
    window = [unit(rng, count) for count in (80, 1, 0, 35)]
    window[0][:30] = torch.nn.functional.normalize(frame[:30] + 0.02 * unit(rng, 30))
    found = match(frame, window)
    expected = []
    for number, keyframe in enumerate(window):
        if len(keyframe) == 0:
            continue
        similarity = (frame @ keyframe.T).numpy()
        for i in range(len(frame)):
            j = similarity[i].argmax()
            if similarity[:, j].argmax() == i:
                expected.append((i, number, j, similarity[i, j]))
    rows = list(
        zip(found.index, found.keyframe, found.keyframe_index, found.similarity, strict=True)
    )
    assert [row[:3] for row in rows] == [row[:3] for row in expected]
    np.testing.assert_allclose([r[3] for r in rows], [e[3] for e in expected], atol=1e-5)
    assert (found.keyframe == 0).sum() >= 30
    batched = _match(frame, window, 0)  # as on a GPU
    np.testing.assert_array_equal(batched.index, found.index)
    np.testing.assert_array_equal(batched.keyframe, found.keyframe)
    np.testing.assert_array_equal(batched.keyframe_index, found.keyframe_index)


def test_nothing_to_match_gives_nothing():
    rng = np.random.default_rng(1)
    assert len(match(unit(rng, 5), [])) == 0
    assert len(match(unit(rng, 5), [unit(rng, 0)])) == 0
    assert len(match(unit(rng, 0), [unit(rng, 5)])) == 0


def test_equally_near_neighbours_are_matched_once():
    rng = np.random.default_rng(2)
    alike = unit(rng, 1).repeat(4, 1)
    found = match(alike, [alike, alike[:2]])
    assert list(zip(found.keyframe, found.index, found.keyframe_index, strict=True)) == [
        (0, 0, 0),
        (1, 0, 0),
    ]
