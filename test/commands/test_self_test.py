"""``doctor --self-test`` names the stage that is wrong, and no other, on a GPU as well."""

import json

import numpy as np
import pytest
import torch
from separate_device import DEVICE, SeparateDevice

from d2_ros.benchmark import self_test, stages
from d2_ros.benchmark.self_test import Difference, SelfTest
from d2_ros.benchmark.stages import STAGES
from d2_ros.commands import self_test as command
from d2_ros.config import Config
from d2_ros.features import detection, runtime
from d2_ros.matching import batched

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(self_test, "SEQUENCE", "size=160x120,frames=8")


@pytest.fixture(scope="module")
def on_the_cpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_test, "SEQUENCE", "size=160x120,frames=8")
        return SelfTest(Config(device="cpu"))


def wrong(test, of=STAGES):
    return [verdict.stage for verdict in test.run(of) if not verdict.good]


def only_tested(right, spoiled, calls=2):
    """`right` for the CPU's first `calls`, then `spoiled`."""
    count = iter(range(10**6))
    return lambda *args: (spoiled if next(count) >= calls else right)(*args)


def shifted(*args):
    place, shear, score = batched_finish(*args)
    return place + 0.1, shear, score


batched_finish = batched.finish


def test_a_step_of_the_alignment_that_is_wrong_is_named(on_the_cpu, monkeypatch):
    monkeypatch.setattr(batched, "finish", shifted)
    assert wrong(on_the_cpu) == ["alignment"]


@pytest.mark.parametrize("stage", ["description", "matching", "pyramid", "detection"])
def test_the_stage_that_is_wrong_is_named(on_the_cpu, monkeypatch, stage):
    """Each is run alone, the CPU's two calls first."""
    spoil = {
        "description": (detection, "sample", lambda right: lambda *a: right(*a) + 0.01),
        "detection": (
            detection,
            "detect",
            lambda right: lambda *a: right(*a)._replace(cells=right(*a).cells + 0.1),
        ),
        "matching": (
            stages,
            "match",
            lambda right: lambda *a: right(*a).select(np.arange(len(right(*a)) // 2)),
        ),
        "pyramid": (
            stages,
            "build_pyramid",
            lambda right: lambda plane, *a: right(plane + 0.5, *a),
        ),
    }
    assert on_the_cpu.cells  # made beforehand by the same functions
    module, name, spoiled = spoil[stage]
    right = getattr(module, name)
    monkeypatch.setattr(module, name, only_tested(right, spoiled(right)))
    assert wrong(on_the_cpu, {stage: STAGES[stage]}) == [stage]


def test_what_a_device_raises_is_a_line_and_the_others_go_on(on_the_cpu, monkeypatch):
    def fails(*args):
        raise RuntimeError("CUDA error: no kernel image is available\nmore")

    monkeypatch.setattr(batched, "track", fails)
    verdicts = list(on_the_cpu.run(STAGES))
    assert [v.stage for v in verdicts] == list(STAGES)
    assert [v.reason for v in verdicts if not v.good] == [
        "raises RuntimeError: CUDA error: no kernel image is available"
    ]
    assert "FAIL" in command.line(verdicts[5])


def test_every_stage_on_a_device_apart_from_the_cpu(monkeypatch):
    """In fp32, and with a network that is wrong only there."""
    monkeypatch.setattr(self_test, "settler", lambda device: None)
    monkeypatch.setattr(runtime, "pick_device", lambda name: CPU if name == "cpu" else DEVICE)
    with SeparateDevice():
        test = SelfTest(Config(precision="fp32"))
        assert test.tested.device == DEVICE
        assert wrong(test) == []
        with torch.no_grad():
            test.tested.network.conv4_3.weight.mul_(0.5)
        assert wrong(test)[0] == "network"


def test_the_command_on_a_machine_without_a_gpu(d2_ros, tmp_path):
    options = ("--device", "cpu", "-p", "precision:=fp32", "--json", tmp_path / "test.json")
    done = d2_ros("doctor", "--self-test", *options)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert "this CPU, network in fp32 by torch, against itself in fp32" in lines[0]
    assert [line.split()[:2] for line in lines[1:-2]] == [[stage, "ok"] for stage in STAGES]
    figures = json.loads((tmp_path / "test.json").read_text())
    assert {figures[f"{stage}.state"] for stage in STAGES} == {"ok"}
    assert figures["frame.tested_ms"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_said(d2_ros, monkeypatch):
    monkeypatch.setattr(command, "STAGES", {"alignment": lambda test: Difference("px", 1, 0)})
    done = d2_ros("doctor", "--self-test")
    assert done.code == 1
    assert done.out.startswith("There is no GPU here that torch can use. Tested instead: ")
    assert done.out.endswith("\nNot as on the CPU: alignment.\n")
    done = d2_ros("doctor", "--self-test", "--device", "cuda")
    assert done.code == 2
    assert "torch sees no GPU" in done.err
    done = d2_ros("doctor", "--self-test", "-p", "precision:=int8")
    assert done.code == 2
    assert "set precision to auto" in done.err


def test_options_of_the_self_test_need_it(d2_ros):
    done = d2_ros("doctor", "--device", "cpu")
    assert done.code == 2
    assert "--self-test" in done.err
