"""Other runtimes against torch, and which arithmetic is chosen where."""

from __future__ import annotations

import builtins
import hashlib

import numpy as np
import pytest
import torch

from d2_ros.config import Config, with_values
from d2_ros.errors import D2RosError
from d2_ros.features import calibration, comparison
from d2_ros.features import runtime as runtime_module
from d2_ros.features.backbones import BACKBONES
from d2_ros.features.device import auto_precision, cpu_flags
from d2_ros.features.extractor import Extractor
from d2_ros.features.network import STRIDE
from d2_ros.features.onnx_runtime import CPU, pick_providers
from d2_ros.features.runtime import PRECISIONS, plan, takes_8_bits

CPUINFO = "processor\t: 0\nflags\t\t: fpu sse2 avx512f {}\n\nprocessor\t: 1\nflags\t\t: fpu\n"


@pytest.mark.parametrize(
    ("device", "flags", "precision", "words"),
    [
        ("cpu", {"avx512_vnni", "avx512f"}, "fp32", "no bf16 in hardware"),
        ("cpu", set(), "fp32", "no bf16 in hardware"),
        ("cpu", {"amx_bf16", "avx512f"}, "bf16", "amx_bf16"),
        ("cpu", {"avx512_bf16"}, "bf16", "avx512_bf16"),
        ("cuda", {"amx_bf16"}, "fp16", "GPU"),
    ],
)
def test_auto_precision_is_what_the_hardware_multiplies(device, flags, precision, words):
    chosen = auto_precision(device, frozenset(flags))
    assert chosen.name == precision
    assert words in chosen.reason


def test_flags_are_read_and_onednns_limit_is_kept_to(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO.format("avx512_bf16 amx_bf16"))
    assert {"avx512f", "avx512_bf16", "amx_bf16"} <= cpu_flags(path, {})
    assert "amx_bf16" in cpu_flags(path, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"})
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        limited = cpu_flags(path, {name: "avx512_core_vnni"})
        assert "avx512f" in limited
        assert not {"avx512_bf16", "amx_bf16"} & limited
    assert cpu_flags(tmp_path / "absent", {}) == frozenset()
    path.write_text(CPUINFO.format("avx512_vnni avx_vnni"))
    assert {"avx512_vnni", "avx_vnni"} <= cpu_flags(
        path, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}
    )
    assert not {"avx512_vnni", "avx_vnni"} & cpu_flags(path, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"})


@pytest.mark.parametrize(
    ("runtime", "precision", "words"),
    [
        ("torch", "int8", "set precision to auto, fp32, fp16, bf16, or runtime to openvino"),
        ("auto", "int8", "or runtime to openvino"),
        ("openvino", "fp16", "or runtime to torch"),
        ("onnxruntime", "bf16", "or runtime to torch or openvino"),
    ],
)
def test_a_precision_that_the_runtime_lacks_is_refused(runtime, precision, words):
    with pytest.raises(D2RosError, match=words):
        plan(Config(runtime=runtime, precision=precision))


def test_openvino_is_refused_on_a_gpu_of_nvidia():
    with pytest.raises(D2RosError, match="device is 'cuda', where runtime openvino"):
        plan(Config(runtime="openvino", device="cuda"))


def test_auto_is_torch_in_fp32_where_nothing_is_faster():  # conftest.py hides VNNI and bf16
    chosen = plan(Config(device="cpu"))
    assert (chosen.runtime, chosen.precision, chosen.dtype) == ("torch", "fp32", torch.float32)


@pytest.mark.parametrize("runtime", ["auto", "openvino"])
def test_auto_is_openvino_in_8_bits_where_it_is_there_and_the_hardware_has_them(
    monkeypatch, runtime
):
    monkeypatch.setattr(runtime_module, "cpu_flags", lambda: frozenset({"avx512_vnni"}))
    monkeypatch.setattr(runtime_module, "_installed", lambda *names: True)
    chosen = plan(Config(device="cpu", runtime=runtime))
    assert (chosen.runtime, chosen.precision, chosen.dtype) == ("openvino", "int8", torch.float32)


@pytest.mark.parametrize(
    ("values", "flags", "installed"),
    [
        ({}, {"avx512_bf16"}, True),
        ({}, {"avx512_vnni"}, False),
        ({"precision": "fp32"}, {"avx_vnni"}, True),
        ({"runtime": "torch"}, {"avx_vnni"}, True),
        ({"weights": "my_own"}, {"amx_int8"}, True),  # not measured with those
    ],
)
def test_auto_takes_8_bits_nowhere_else(values, flags, installed):
    assert takes_8_bits(Config(device="cpu"), frozenset({"amx_int8"}), True)
    config = with_values(Config(device="cpu"), values)
    assert not takes_8_bits(config, frozenset(flags), installed)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_runtime_that_is_not_installed_is_one_sentence(monkeypatch, runtime):
    load = builtins.__import__

    def absent(name, *rest, **more):
        if name.partition(".")[0] in ("openvino", "onnxruntime", "onnx", "nncf"):
            raise ImportError(name)
        return load(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(D2RosError, match=rf"runtime {runtime}.*pip install.*set runtime to torch"):
        Extractor(Config(device="cpu", runtime=runtime))


def test_providers_follow_the_device_and_the_build():
    gpu = ["CUDAExecutionProvider", CPU]
    assert pick_providers("auto", [CPU]) == pick_providers("cpu", gpu) == [CPU]
    assert pick_providers("auto", gpu) == gpu
    both = ["TensorrtExecutionProvider", *gpu]
    assert pick_providers("cuda", ["AzureExecutionProvider", *both]) == both
    with pytest.raises(D2RosError, match="install onnxruntime-gpu"):
        pick_providers("cuda", [CPU])


def installed(runtime):
    for module in {"openvino": ["openvino"], "onnxruntime": ["onnx", "onnxruntime"]}[runtime]:
        pytest.importorskip(module, reason=f"the extra {runtime} is not installed")


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_another_runtime_gives_torchs_keypoints(extractor, photograph, runtime):
    installed(runtime)
    other = Extractor(Config(device="cpu", runtime=runtime, precision="fp32"))
    for image in (
        photograph[:96, :131],
        photograph[:75, :64, 1],
        photograph[:90, :90] * np.uint16(257),
    ):
        ours, theirs = extractor.extract([image])[0], other.extract([image])[0]
        assert theirs.response.values.stride(0) == 1  # channels-last
        torch.testing.assert_close(
            theirs.response.values, ours.response.values, atol=5e-3, rtol=1e-4
        )
        assert len(ours.keypoints) > 3
        np.testing.assert_allclose(theirs.keypoints, ours.keypoints, atol=1e-2)
        torch.testing.assert_close(theirs.descriptors, ours.descriptors, atol=1e-4, rtol=0)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_earlier_responses_stay_when_the_next_image_comes(photograph, runtime):
    installed(runtime)
    other = Extractor(Config(device="cpu", runtime=runtime, precision="fp32"))
    image = photograph[:64, :64]
    first = other.respond([image])[0].values
    kept = first.clone()
    together = other.respond([255 - image, image])
    assert torch.equal(first, kept)
    torch.testing.assert_close(together[1].values, kept, atol=5e-3, rtol=1e-4)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_the_light_network_is_converted_too(runtime):
    installed(runtime)
    from d2_ros.features.runtime import TorchRuntime, open_runtime

    torch.manual_seed(0)
    network = BACKBONES["mobile"](STRIDE).requires_grad_(False).eval()
    chosen = plan(Config(device="cpu", runtime=runtime, precision="fp32"))
    images = torch.randint(0, 256, (2, 70, 81, 3), dtype=torch.uint8)
    found = comparison.compare(
        TorchRuntime(network, torch.float32).respond,
        open_runtime(chosen, network, 0).respond,
        [images],
    )
    assert found.worst_error < 1e-4
    assert found.same_channel > 0.99


def test_int8_is_made_once_kept_and_made_anew_if_damaged(
    extractor, photograph, tmp_path, monkeypatch
):
    installed("openvino")
    pytest.importorskip("nncf", reason="the extra openvino is not installed whole")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    small = calibration.batches([photograph[:96, :96], photograph[96:192, 96:192]])
    calls = []
    monkeypatch.setattr(
        "d2_ros.features.openvino_runtime.photographs", lambda: calls.append(1) or small
    )
    config = Config(device="cpu", runtime="openvino", precision="int8")
    image = torch.from_numpy(photograph[None, 20:116, 20:148])
    runtimes = [Extractor(config).runtime for _ in range(2)]
    assert len(calls) == 1
    first, second = (runtime.respond(image) for runtime in runtimes)
    assert torch.equal(first, second)
    found = comparison.compare(extractor.runtime.respond, runtimes[0].respond, [image])
    assert 0.001 < found.relative_error < 0.15  # it is int8, and close
    assert found.same_channel > 0.8
    (model,) = tmp_path.glob("d2_ros/models/*_int8/model.bin")
    assert model.stat().st_size < 9e6  # fp32 has 30 MB
    sound = hashlib.sha256(model.read_bytes()).hexdigest()
    model.write_bytes(model.read_bytes()[:-1000])
    Extractor(config)
    assert len(calls) == 2
    assert hashlib.sha256(model.read_bytes()).hexdigest() == sound


def test_comparison_counts_what_differs(response):
    values = response.values[None]
    same = comparison.compare(lambda x: x, lambda x: x.clone(), [values])
    assert (same.worst_error, same.relative_error) == (0, 0)
    assert same.same_channel == same.same_keypoints == 1
    assert same.keypoints > 100
    moved = comparison.compare(lambda x: x, lambda x: x.roll(1, 3), [values])
    assert moved.same_channel < 0.9
    assert moved.same_keypoints < 0.2
    nothing = comparison.compare(lambda x: x, torch.zeros_like, [values])
    assert (nothing.worst_error, nothing.relative_error, nothing.same_keypoints) == (1, 1, 0)


def test_calibration_takes_sixteen_photographs_of_three_channels():
    images = calibration.photographs()
    assert len(images) == calibration.MOST == len(set(calibration.NAMES))
    for image in images:
        assert image.dtype == np.float32
        assert image.shape[::3] == (1, 3)
        assert max(image.shape) <= calibration.LONG_EDGE
        assert 0 <= image.min() < image.max() <= 255
    assert calibration.resized(images[0], (96, 64)).shape == (1, 64, 96, 3)


def test_every_precision_belongs_to_a_runtime():
    choices = set(
        next(f for f in Config.__dataclass_fields__.values() if f.name == "precision").metadata[
            "choices"
        ]
    )
    assert choices - {"auto"} == {name for known in PRECISIONS.values() for name in known}
