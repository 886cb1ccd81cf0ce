"""The steps of an alignment: machine code does what torch does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d2_ros.matching import batched, compiled
from d2_ros.matching.cutting import cut
from d2_ros.matching.patches import disc
from d2_ros.matching.pyramid import Level, build_pyramid
from d2_ros.matching.steps import steps_for

CPU = torch.device("cpu")
SIZE = (120, 160)


def image(seed, contrast=25.0):
    rng = np.random.default_rng(seed)
    rough = torch.from_numpy(rng.normal(0, 1, (1, 1, 24, 32)).astype(np.float32))
    plane = torch.nn.functional.interpolate(rough, SIZE, mode="bicubic")[0, 0].numpy()
    return np.clip(128 + contrast * plane, 0, 255).astype(np.float32)


def scene(seed, radius, count=150, contrast=25.0):
    """Patches of an image, and places and warps near theirs; some reach over the border."""
    rng = np.random.default_rng(seed)
    level = build_pyramid(image(seed, contrast), 1, CPU)[0]
    centres = rng.uniform([-3, -3], [SIZE[1] + 3, SIZE[0] + 3], (count, 2))
    patches = cut((level,), centres, radius)[0]
    pixels = centres + rng.normal(0, 0.8, (2, count, 2))
    affine = np.eye(2) + 0.05 * rng.normal(size=(2, count, 2, 2))
    warps = [torch.from_numpy(values.astype(np.float32)) for values in (pixels, affine)]
    return patches, level, *warps, disc(radius, CPU)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([4, 6, 11]), st.integers(0, 1), st.integers(1, 3))
def test_patches_are_cut_the_same(seed, radius, number, threads):
    rng = np.random.default_rng(seed)
    level = build_pyramid(image(seed), 2, CPU)[number]
    centres = rng.uniform([-15, -15], np.array(level.size) + 15, (80, 2)).astype(np.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = compiled.cut(level, torch.from_numpy(centres), disc(radius, CPU))
    finally:
        torch.set_num_threads(before)
    expected = batched.cut(level, torch.from_numpy(centres), disc(radius, CPU))
    for name, column in vars(expected).items():
        ours = getattr(found, name)
        assert ours.shape == column.shape
        clear = expected.spread > 0.1  # what is flat has hardly any values to compare
        torch.testing.assert_close(ours[clear], column[clear], atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(found.weight, expected.weight, atol=1e-6, rtol=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_cutting_nowhere_does_no_harm(bad):
    level = build_pyramid(image(0), 1, CPU)[0]
    centres = torch.tensor([[bad, 20.0], [30.0, bad], [30.0, 20.0]])
    found = compiled.cut(level, centres, disc(6, CPU))
    assert (found.weight[:2] == 0).all()
    alone = compiled.cut(level, centres[2:], disc(6, CPU))
    torch.testing.assert_close(found.values[2], alone.values[0])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([4, 6, 8, 11]), st.integers(1, 3))
def test_one_step_is_the_same(seed, radius, threads):
    patches, level, pixels, affine, shape = scene(seed, radius)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        place, shear = compiled.track(patches, level, pixels, affine, shape, 1)
    finally:
        torch.set_num_threads(before)
    expected = batched.track(patches, level, pixels, affine, shape, 1)
    # Where two starts look equally alike, as with few pixels at the border, either may win.
    same = (place - expected[0]).norm(dim=1) < 5e-3
    assert same.float().mean() > 0.95
    torch.testing.assert_close(shear[same], expected[1][same], atol=5e-3, rtol=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([4, 6, 8, 11]))
def test_the_last_step_and_its_scores_are_the_same(seed, radius):
    patches, level, pixels, affine, shape = scene(seed, radius)
    found = compiled.finish(patches, level, pixels[0], affine[0], shape)
    expected = batched.finish(patches, level, pixels[0], affine[0], shape)
    # A few pixels at the border may be all alike; no such alignment is accepted.
    seen = expected[2][:, 2] >= 0.3 * shape.window.sum()
    torch.testing.assert_close(found[2][:, 2], expected[2][:, 2], atol=1e-3, rtol=0)
    torch.testing.assert_close(found[0][seen], expected[0][seen], atol=5e-3, rtol=0)
    torch.testing.assert_close(found[1][seen], expected[1][seen], atol=5e-3, rtol=1e-3)
    torch.testing.assert_close(found[2][seen], expected[2][seen], atol=2e-3, rtol=1e-3)


def test_both_converge_to_the_same_places():
    patches, level, pixels, affine, shape = scene(3, 11, 300)
    found = compiled.track(patches, level, pixels, affine, shape, 6)
    expected = batched.track(patches, level, pixels, affine, shape, 6)
    distance = (found[0] - expected[0]).norm(dim=1)
    assert distance.median() < 1e-3
    assert (distance < 0.03).float().mean() > 0.9  # others fall off the border or into the flat


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_places_nowhere_do_no_harm(bad):
    patches, level, pixels, affine, shape = scene(4, 8)
    pixels[:, ::2] = bad
    place, shear = compiled.track(patches, level, pixels, affine, shape, 6)
    clean = pixels[:, 1::2], affine[:, 1::2]
    others = patches.select(torch.arange(1, len(patches), 2))
    alone = compiled.track(others, level, *clean, shape, 6)
    torch.testing.assert_close(place[1::2], alone[0])
    *_, score = compiled.finish(patches, level, place, shear, shape)
    assert (score[::2, 2] == 0).all()  # nothing of them is seen


def test_a_flat_patch_gives_finite_numbers():
    patches, level, pixels, affine, shape = scene(5, 8, contrast=0.0)
    place, shear = compiled.track(patches, level, pixels, affine, shape, 6)
    *_, score = compiled.finish(patches, level, place, shear, shape)
    assert torch.isfinite(score).all()


def test_nothing_to_align():
    patches, level, pixels, affine, shape = scene(6, 8, count=1)
    none = patches.select(torch.zeros(0, dtype=torch.int64))
    place, shear = compiled.track(none, level, pixels[:, :0], affine[:, :0], shape, 6)
    assert place.shape == (0, 2)
    assert shear.shape == (0, 2, 2)


def test_gray_images_on_a_cpu_are_done_in_machine_code():
    gray = build_pyramid(image(0), 1, CPU)[0]
    early = Level(gray.texels.expand(-1, 3, -1, -1), gray.size, gray.scale, gray.shift)
    assert steps_for(gray) is compiled
    assert steps_for(early) is batched
