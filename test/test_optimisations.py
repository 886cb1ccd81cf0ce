"""What makes the path fast changes nothing of what it says: each is turned off in turn."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from d2_ros.config import Config, with_values
from d2_ros.features import extractor as extractor_module
from d2_ros.features.extractor import Extractor
from d2_ros.frontend import FrontEnd
from d2_ros.matching import alignment, batched, neighbours
from d2_ros.matching.cutting import cut
from d2_ros.matching.patches import gather
from d2_ros.matching.pyramid import build_pyramid, to_gray
from d2_ros.matching.warps import Warps
from d2_ros.records import columns
from d2_ros.sources.opening import open_source
from d2_ros.tracks import association, geometry
from d2_ros.tracks.templates import LinkTemplates

FRAMES = 6
SIZE = "synthetic:size=240x180,frames=6"


@pytest.fixture(scope="module")
def frames():
    return list(islice(open_source(SIZE), FRAMES))


@pytest.fixture(scope="module")
def extractor():
    config = with_values(Config(), {"device": "cpu", "window.min_tracked_share": 0.9})
    return Extractor(config)


def run(frames, extractor):
    frontend = FrontEnd(extractor.config, extractor)
    return [frontend.process(frame.image, frame.stamp, frame.camera) for frame in frames]


@pytest.fixture(scope="module")
def expected(frames, extractor):
    return run(frames, extractor)


def assert_same(found, expected, tolerance=0.0):
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("features", "matches"):
            one, other = getattr(ours, name), getattr(theirs, name)
            for column in one.dtype.names:
                if tolerance and one[column].dtype.kind == "f":
                    np.testing.assert_allclose(one[column], other[column], atol=tolerance)
                else:
                    np.testing.assert_array_equal(one[column], other[column])


def test_patches_kept_with_their_keyframe(frames, extractor, expected, monkeypatch):
    def cut_anew(templates, rows, levels):
        parts = []
        for number, keyframe in enumerate(templates.window):
            here = rows[templates.keyframe[rows] == number]
            radius = extractor.config.alignment.patch_radius
            if len(here):
                pyramid = keyframe.view.pyramid[:levels]
                parts.append(cut(pyramid, templates.anchors[here], radius))
        every = [(patches, torch.arange(len(patches))) for part in parts for patches in part]
        return [gather(every[level::levels]) for level in range(levels)]

    monkeypatch.setattr(LinkTemplates, "patches", cut_anew)
    assert_same(run(frames, extractor), expected, tolerance=1e-3)


def test_pairs_verified_in_parallel(frames, extractor, expected, monkeypatch):
    class Serial:
        def __init__(self, threads): ...

        def __enter__(self):
            return self

        def __exit__(self, *error): ...

        map = staticmethod(map)

    monkeypatch.setattr(geometry, "ThreadPoolExecutor", Serial)
    assert_same(run(frames, extractor), expected)


def test_a_product_for_each_keyframe(frames, extractor, expected, monkeypatch):
    monkeypatch.setattr(
        association, "match", lambda ours, window: neighbours._match(ours, window, 0)
    )
    assert_same(run(frames[:1], extractor), expected[:1])
    found = run(frames, extractor)
    # A batched product may round otherwise: similarities in the last digit.
    assert_same(found, expected, tolerance=1e-5)


def test_alignment_in_machine_code(frames, extractor, expected, monkeypatch):
    monkeypatch.setattr(alignment, "steps_for", lambda image: batched)
    found = run(frames, extractor)
    moved, tracked = [], []
    for ours, theirs in zip(found, expected, strict=True):
        one, other = (rows[rows["track_id"] > 0] for rows in (ours.features, theirs.features))
        # Ids drift apart once a track more or less is opened; keypoints stay where they were.
        places = [columns(rows, "u_detected", "v_detected") for rows in (one, other)]
        distance, others = cKDTree(places[1]).query(places[0])
        same = distance < 0.1
        tracked.append(same.sum() / max(len(one), len(other)))
        moved += [(one[axis] - other[axis][others])[same] for axis in ("u", "v")]
    # Converged patches of a batch take a step more now and then, and some gate may then decide
    # otherwise.
    assert min(tracked) > 0.95
    moved = np.abs(np.concatenate(moved))
    assert np.median(moved) < 0.001
    assert np.percentile(moved, 99) < 0.03


def test_converged_patches_that_drop_out(frames, extractor, monkeypatch):
    settings, device = extractor.config.alignment, torch.device("cpu")
    first, second = (build_pyramid(to_gray(frames[i].image), 3, device) for i in (0, 1))
    places = np.stack(np.meshgrid(np.arange(20.0, 220, 10), np.arange(20.0, 160, 10)), 2)
    places = places.reshape(-1, 2)
    patches = cut(first, places, settings.patch_radius)
    start = Warps(places, np.tile(np.eye(2), (len(places), 1, 1)))
    monkeypatch.setattr(alignment, "steps_for", lambda image: batched)
    fast = alignment.align(patches, second, [start], settings)
    monkeypatch.setattr(batched, "_REPACK", 0.0)  # all go on until the last has converged
    slow = alignment.align(patches, second, [start], settings)
    good = alignment.accept(slow, places, settings)
    assert good.sum() > 100
    # The only one that is not exact: what stops at 0.03 px would have gone on a little.
    move = np.linalg.norm(fast.warps.pixels - slow.warps.pixels, axis=1)[good]
    assert np.median(move) < 0.002
    assert np.percentile(move, 99) < 0.05


def test_memory_kept_between_layers(frames, extractor, expected, monkeypatch):
    asked = []
    monkeypatch.setattr(extractor_module, "keep_memory", lambda: asked.append(True))
    off = Extractor(with_values(extractor.config, {"keep_memory": False}))
    assert not asked
    assert_same(run(frames[:2], off), expected[:2])
    Extractor(extractor.config)
    assert asked


def test_channels_last(frames, extractor):
    image = frames[0].image
    fast = extractor.respond([image])[0]
    plain = Extractor(extractor.config)
    plain.network = plain.network.to(memory_format=torch.contiguous_format)
    slow = plain.respond([image])[0]
    torch.testing.assert_close(fast.values, slow.values, rtol=1e-4, atol=2e-2)
    one, other = extractor.features(fast), plain.features(slow)
    np.testing.assert_allclose(one.keypoints, other.keypoints, atol=1e-2)
