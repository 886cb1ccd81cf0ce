"""The path of a frame on a device that is apart from the CPU, as a GPU is; none is needed."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from separate_device import DEVICE, MixedDevicesError, SeparateDevice

from d2_ros.config import Config, with_values
from d2_ros.features import runtime
from d2_ros.features.device import to_device
from d2_ros.features.extractor import Extractor
from d2_ros.frontend import FrontEnd
from d2_ros.matching import batched, cutting
from d2_ros.matching.alignment import forward_backward
from d2_ros.matching.cutting import cut
from d2_ros.matching.neighbours import match
from d2_ros.matching.pyramid import build_pyramid
from d2_ros.matching.steps import steps_for
from d2_ros.matching.stereo import StereoView, find_right
from d2_ros.matching.warps import Warps
from d2_ros.sources.synthetic import open_synthetic

FRAMES = 8
CPU = torch.device("cpu")
PARAMETERS = {
    "precision": "fp32",
    "features.max_keypoints": 200,
    "refinement.solver": "sparse",
    "window.size": 4,
    "window.min_tracked_share": 0.9,
    "window.min_parallax": 3.0,
}
BOUNDS = {  # to the device, back, waiting for it in other ways
    "first": (6, 3, 1),
    "extracted keyframe": (31, 15, 1),
    "extracted": (29, 14, 1),  # 24, 12 where it was not followed first
    "followed": (10, 3, 0),
}
"""Of a frame at most, whatever the window; docs/performance.md says what for."""


@pytest.fixture(autouse=True)
def _cut_alike(monkeypatch):
    """Patches cut in machine code differ in the last digits, which a robust estimator magnifies."""
    monkeypatch.setattr(cutting, "steps_for", lambda image: batched)


@pytest.fixture(scope="module")
def frames():
    return list(islice(open_synthetic(f"size=160x120,frames={FRAMES}"), FRAMES))


@pytest.fixture(scope="module")
def entered():
    with pytest.MonkeyPatch.context() as patch, SeparateDevice() as separate:
        patch.setattr(runtime, "pick_device", lambda name: {"cuda": DEVICE, "cpu": CPU}[name])
        yield separate


@pytest.fixture
def device(entered):
    entered.forget()
    return entered


@pytest.fixture(scope="module")
def networks(entered):
    return [
        Extractor(with_values(Config(), PARAMETERS | {"device": name})) for name in ("cpu", "cuda")
    ]


def run(frames, network, device, **parameters):
    """Results of the frames, and how often each has sent, got something back, and waited."""
    config = with_values(network.config, PARAMETERS | parameters)
    frontend, results, counts = FrontEnd(config, network), [], []
    for frame in frames:
        device.forget()
        results.append(frontend.process(frame.image, frame.stamp, frame.camera))
        counters = (device.uploads, device.downloads, device.syncs)
        counts.append(tuple(sum(counter.values()) for counter in counters))
    return results, counts


def assert_alike(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.is_keyframe, ours.followed) == (theirs.is_keyframe, theirs.followed)
        for name in ("features", "matches", "tracks"):
            one, other = getattr(ours, name), getattr(theirs, name)
            assert (one is None) == (other is None)
            for column in () if one is None else one.dtype.names:
                # px; a covariance has the last digits of a float32 magnified
                tolerance = 5e-3 if column.startswith("sigma") else 1e-3
                if one[column].dtype.kind == "f":
                    np.testing.assert_allclose(one[column], other[column], tolerance, tolerance)
                else:
                    np.testing.assert_array_equal(one[column], other[column])


def kind(number, result):
    if number == 0:
        return "first"
    if result.followed:
        return "followed"
    return "extracted keyframe" if result.is_keyframe else "extracted"


@pytest.mark.parametrize(
    ("extract", "kinds"),
    [
        ("every_frame", {"first", "extracted", "extracted keyframe"}),
        ("keyframes", {"first", "extracted", "extracted keyframe", "followed"}),
    ],
)
def test_frames_are_as_on_the_cpu_with_few_transfers(device, networks, frames, extract, kinds):
    cpu, gpu = networks
    expected, none = run(frames, cpu, device, **{"features.extract": extract})
    assert set(none) == {(0, 0, 0)}
    run(frames[:1], gpu, device)  # what is sent once for every size of image
    found, counts = run(frames, gpu, device, **{"features.extract": extract})
    assert_alike(found, expected)
    seen = {}
    for number, (result, numbers) in enumerate(zip(found, counts, strict=True)):
        seen.setdefault(kind(number, result), []).append(numbers)
    assert seen.keys() == kinds
    for name, numbers in seen.items():
        assert (np.max(numbers, axis=0) <= BOUNDS[name]).all(), (name, numbers)


def test_keyframes_one_after_the_other_keep_to_the_bound(device, networks, frames):
    parameters = {
        "window.size": 5,
        "window.min_tracked_share": 1.0,
        "alignment.mode": "gray",
    }
    results, counts = run(frames[:4], networks[1], device, **parameters)
    keyframes = [
        numbers for result, numbers in zip(results, counts, strict=True) if result.is_keyframe
    ]
    assert len(keyframes) >= len(results) - 2
    assert (np.max(keyframes[1:], axis=0) <= (38, 18, 1)).all()


def test_transfers_do_not_grow_with_the_window(device):
    """None is made keyframe by keyframe."""
    rng = np.random.default_rng(0)
    image = build_pyramid(rng.uniform(0, 255, (64, 64)).astype(np.float32), 1, DEVICE)
    places = rng.uniform(20, 44, (30, 2))
    patches = cut(image, places, 6)[0]
    descriptors = torch.ones(30, 512, device=DEVICE)
    warps = Warps(places, np.tile(np.eye(2), (30, 1, 1)))
    counts = []
    for keyframes in (1, 5):
        device.forget()
        target, each = np.arange(30) % keyframes, np.arange(30)
        images = [image] * keyframes
        settings = Config().alignment
        forward_backward(
            patches, each, places, warps, images, target, places, replace(settings, patch_radius=6)
        )
        match(descriptors, [descriptors] * keyframes)
        counts.append(
            (
                sum(device.uploads.values()),
                sum(device.downloads.values()),
                sum(device.syncs.values()),
            )
        )
    assert counts == [(2, 2, 0)] * 2


def test_early_maps_are_aligned_on_the_device(device, networks, frames):
    """There torch's steps stop patch by patch, on a CPU in batches: places differ by a little."""
    (expected, _), (found, _) = (
        run(frames[:2], network, device, **{"alignment.mode": "features"}) for network in networks
    )
    ours, theirs = (result[1].features for result in (found, expected))
    ours, theirs = (rows[np.argsort(rows["track_id"])] for rows in (ours, theirs))
    ours, theirs = (rows[rows["track_id"] > 0] for rows in (ours, theirs))
    _, mine, other = np.intersect1d(ours["track_id"], theirs["track_id"], return_indices=True)
    assert len(mine) > max(0.9 * len(theirs), 20)
    distance = np.hypot(*(ours[axis][mine] - theirs[axis][other] for axis in ("u", "v")))
    assert (distance < 0.03).mean() > 0.95


def test_a_gpus_own_arithmetic_goes_through(device, frames):
    """``precision: auto`` is fp16 there."""
    network = Extractor(with_values(Config(), {"device": "cuda"}))
    features = network.extract([frames[0].image[:96, :96]])[0]
    assert features.response.values.dtype == torch.float16
    assert len(features.keypoints) > 10
    assert features.descriptors.device == DEVICE


def test_a_stereo_pair_on_the_device(device, networks, frames):
    expected, _ = run(frames[:2], networks[0], device)
    left, right = (
        StereoView(frame.image, frame.camera, result)
        for frame, result in zip(frames[:2], expected, strict=True)
    )
    config = with_values(Config(), PARAMETERS)
    rows = [find_right(left, right, config, where) for where in (CPU, DEVICE)]
    assert len(rows[0]) > 20
    for name in rows[0].dtype.names:
        np.testing.assert_allclose(rows[1][name], rows[0][name], atol=1e-3)


def test_patches_are_aligned_as_on_a_gpu(device):
    level = build_pyramid(np.zeros((64, 64), np.float32), 1, DEVICE)[0]
    assert steps_for(level) is batched


def test_the_device_refuses_to_mix(device):
    here, there = torch.ones(3), torch.ones(3, device=DEVICE)
    for operation in (torch.add, torch.dot, lambda a, b: torch.cat([a, b]), torch.Tensor.add_):
        with pytest.raises(MixedDevicesError, match="cuda:7 and a"):
            operation(there, here)
        with pytest.raises(MixedDevicesError):
            operation(here, there)
    with pytest.raises(MixedDevicesError):
        there[torch.tensor([1])]
    with pytest.raises(RuntimeError):
        there.numpy()
    assert (there + torch.tensor(2.0)).cpu().tolist() == [3, 3, 3]  # CUDA takes scalars, too


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x[0].item(),
        lambda x: float(x[0]),
        lambda x: bool(x[0] > 0),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
        lambda x: torch.equal(x, x),
        lambda x: torch.linalg.inv(x.diag()),
        lambda x: torch.ones(3).to(DEVICE),
    ],
)
def test_waiting_for_the_device_is_counted(device, wait):
    x = torch.ones(3, device=DEVICE)
    assert not device.syncs
    wait(x)
    assert sum(device.syncs.values()) >= 1


def test_transfers_are_counted(device):
    sent = to_device(np.arange(3.0), DEVICE)  # from page-locked memory: not waited for
    assert (sum(device.uploads.values()), sum(device.syncs.values())) == (1, 0)
    assert list(device.uploads) == ["features/device.py:to_device"]
    (sent * 2 + sent.sum())[torch.arange(2, device=DEVICE)].max()
    torch.linalg.inv_ex(sent.float().diag() + 1)
    assert not device.downloads
    assert not device.syncs
    assert sent.cpu().tolist() == [0, 1, 2]
    assert sum(device.downloads.values()) == 1
    sent[:0].cpu()  # torch sends nothing
    assert sum(device.downloads.values()) == 1


@pytest.mark.parametrize("size", [(96, 128), (95, 127)])
def test_opencv_and_torch_make_the_same_pyramid(device, size):
    plane = np.random.default_rng(1).uniform(0, 255, size).astype(np.float32)
    ours, theirs = (build_pyramid(plane, 3, place) for place in (CPU, DEVICE))
    assert len(ours) == len(theirs) == 3
    for one, other in zip(ours, theirs, strict=True):
        assert one.size == other.size
        np.testing.assert_allclose(one.texels.numpy(), other.texels.cpu().numpy(), atol=2e-4)
        np.testing.assert_allclose(one.scale.numpy(), other.scale.cpu().numpy())
        np.testing.assert_allclose(one.shift.numpy(), other.shift.cpu().numpy())
