"""The synthetic sequence as a source: options, stamps, determinism and the cache."""

import numpy as np
import pytest

from d2_ros.errors import D2RosError
from d2_ros.sources import open_source
from d2_ros.sources.synthetic import Synthetic, SyntheticOptions, open_synthetic, render

SMALL = "size=160x120,frames=20,rate=5"  # all of the flight, in great steps


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The frames of a small sequence, from an empty cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield list(open_synthetic(SMALL))


def test_spec_is_parsed():
    assert open_synthetic().options == SyntheticOptions(640, 480, 90, 0, 20)
    given = open_synthetic("size=320x240,frames=40,seed=7,rate=30").options
    assert given == SyntheticOptions(320, 240, 40, 7, 30)
    assert len(open_source("synthetic:size=160x120,frames=3")) == 3


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("size=641x480", "641x480"),
        ("size=80x60", "80x60"),
        ("size=320", "size=320"),
        ("frames=1", "frames is 1"),
        ("frames=many", "frames=many"),
        ("seed=-1", "seed is -1"),
        ("rate=0", "rate_hz is 0"),
        ("baseline=1001", "baseline_mm is 1001"),
        ("night=2", "night is 2"),
        ("colour=red", "colour=red"),
        ("frames=3,", "''"),
    ],
)
def test_nonsense_is_refused_by_name(spec, named):
    with pytest.raises(D2RosError, match="synthetic") as error:
        open_synthetic(spec)
    assert named in str(error.value)


def test_frames_have_exact_stamps_and_the_calibration(small):
    source = open_synthetic(SMALL)
    assert [frame.stamp for frame in small] == source.stamps
    assert set(np.diff(source.stamps)) == {200_000_000}
    assert source.stamps[0] > 0
    for frame in small:
        assert frame.image.shape == (120, 160, 3)
        assert frame.image.dtype == np.uint8
        assert (frame.camera.width, frame.camera.height) == (160, 120)
    assert source.poses().shape == (20, 4, 4)


def test_all_sizes_see_the_same_world():
    large, tiny = Synthetic(), open_synthetic("size=160x120")
    pixels = np.array([[0.0, 0.0], [633.3, 20.1], [320.0, 240.0], [11.0, 470.0]])
    points, planes = large.surface(30, pixels)
    seen, visible = tiny.project(points, planes, 30)
    assert visible.all()
    np.testing.assert_allclose((seen + 0.5) * 4 - 0.5, pixels, atol=1e-6)


def test_the_right_camera_of_a_pair_is_a_baseline_aside():
    left, right = open_synthetic("frames=3"), open_synthetic("frames=3,baseline=120")
    inverse = np.linalg.inv(left.poses()) @ right.poses()
    moved = np.tile(np.eye(4), (3, 1, 1))
    moved[:, 0, 3] = 0.12
    np.testing.assert_allclose(inverse, moved, atol=1e-12)
    points, planes = left.surface(1, [[320.0, 240.0]])
    there, visible = right.project(points, planes, 1)
    depth = ((points - left.poses()[1, :3, 3]) @ left.poses()[1, :3, :3])[0, 2]
    assert visible.all()
    assert abs(320 - there[0, 0] - 421.3 * 0.12 / depth) < 0.5  # a little distorted
    assert abs(there[0, 1] - 240) < 0.5


def test_the_same_seed_gives_the_same_bytes(small, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    again = list(open_synthetic(SMALL))
    assert all((one.image == two.image).all() for one, two in zip(small, again, strict=True))
    other = next(iter(open_synthetic("size=160x120,frames=2,rate=5,seed=1")))
    assert (small[0].image != other.image).any()


def test_rendered_once_and_again_only_if_damaged(tmp_path, monkeypatch):
    spec = "size=160x120,frames=2"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = list(open_synthetic(spec))
    (file,) = (tmp_path / "d2_ros").iterdir()  # nothing unfinished beside it
    with monkeypatch.context() as patch:
        patch.delattr(render, "prepare")
        second = list(open_synthetic(spec))
    assert (first[1].image == second[1].image).all()
    file.write_bytes(file.read_bytes()[:-1])
    third = list(open_synthetic(spec))
    assert (first[1].image == third[1].image).all()


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(D2RosError, match="XDG_CACHE_HOME"):
        next(iter(open_synthetic("size=160x120,frames=2")))


def test_blur_and_exposure_happen_where_they_are_said_to(small):
    source = open_synthetic(SMALL)
    gray = np.stack([frame.image.mean(axis=2) for frame in small])
    detail = np.abs(np.diff(gray, axis=2)).mean(axis=(1, 2)) / gray.mean(axis=(1, 2))
    blurred = np.isin(np.arange(20), source.blur_frames)
    exposed = np.isin(np.arange(20), source.exposure_frames)
    assert blurred.sum() == 2
    assert exposed.sum() == 4
    assert detail[blurred].max() < 0.9 * detail[~blurred & ~exposed].min()
    assert gray[exposed].mean(axis=(1, 2)).min() < 0.65 * gray[~exposed].mean(axis=(1, 2)).min()


def test_noise_is_that_of_light_and_sensor():
    for light in (20.0, 180.0):
        flat = np.full((200, 200, 3), light, np.float32)
        shot = render.expose(flat, np.random.default_rng(0)).astype(float)
        assert shot.mean() == pytest.approx(light, abs=0.05)
        assert shot.var() == pytest.approx(1 + 0.015 * light + 1 / 12, rel=0.05)
    dim = render.expose(flat, np.random.default_rng(0), gain=0.5, gamma=1.25, bias=12).mean()
    assert dim == pytest.approx(255 * (90 / 255) ** 1.25 + 12, abs=0.1)


def test_the_flight_is_that_of_a_hand_held_camera():
    source = Synthetic()
    grid = np.stack(np.meshgrid(np.arange(20, 640, 40), np.arange(20, 480, 40)), -1)
    grid = grid.reshape(-1, 2).astype(float)
    steps = []
    for index in range(len(source) - 1):
        there, visible = source.locate(index, grid, index + 1)
        steps.append(np.median(np.linalg.norm(there - grid, axis=1)[visible]))
    assert min(steps) > 2
    assert max(steps) < 16
    assert source.locate(0, grid, len(source) - 1)[1].mean() < 0.1


def test_by_night_the_same_room_is_dark_noisy_and_lit_from_within():
    light, dark = (open_synthetic(f"size=160x120,frames=2,rate=5,night={n}") for n in (0, 1))
    day, night = ([frame.image for frame in source] for source in (light, dark))
    np.testing.assert_array_equal(dark.poses(), light.poses())
    assert np.mean(night) < 0.45 * np.mean(day)
    share = night[0].mean(axis=2) / np.maximum(day[0].mean(axis=2), 8)
    assert np.percentile(share, 95) > 4 * np.percentile(share, 20)  # lamps, not a darker day
    blue, _, red = night[0].reshape(-1, 3).mean(axis=0) / day[0].reshape(-1, 3).mean(axis=0)
    assert red > 1.5 * blue


def test_a_covered_lens_shows_noise_and_nothing_else_changes(small):
    """From a third of the frames on, for 0.2 s of 20 frames a second."""
    covered = open_synthetic("size=160x120,frames=12,cover=200")
    dark = [frame.image.max() < 4 for frame in covered]
    assert dark == [False] * 4 + [True] * 4 + [False] * 4
    plain = [frame.image for frame in open_synthetic("size=160x120,frames=12")]
    for number, frame in enumerate(covered):
        assert dark[number] != np.array_equal(frame.image, plain[number])
    assert not np.array_equal(*(frame.image for frame in list(covered)[4:6]))
