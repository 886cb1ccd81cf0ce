"""The command, on a few steps with 64 px crops: resuming, several processes, refusals."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import skimage.data
import torch
import typer
import yaml
from typer.testing import CliRunner

from d2_ros.commands import train
from d2_ros.features.weights import load_weights
from d2_ros.training.checkpoints import BEST, CHECKPOINT

RUN = "from d2_ros.cli import main; main()"


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A file of settings for four steps on four small photographs."""
    folder = tmp_path_factory.mktemp("train")
    photo = cv2.resize(skimage.data.coffee()[..., ::-1], (160, 120), interpolation=cv2.INTER_AREA)
    (folder / "photos").mkdir()
    for index in range(4):
        cv2.imwrite(str(folder / "photos" / f"{index}.png"), np.roll(photo, 30 * index, axis=1))
    path = folder / "train.yaml"
    content = {
        "device": "cpu",
        "threads": 1,
        "deterministic": True,
        "checkpoint_every": 1,
        "data": {"sources": [f"photos:{folder / 'photos'}"], "held_back": 0.25,
                 "crop": 64, "points": 64, "draws": 5},
        "optimiser": {"steps": 4, "batch": 2, "learning_rate": 1e-4},
        "validation": {"every": 100, "pairs": 1},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    return path


def start(*arguments, **environment):
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, "train", *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def weights(folder):
    return torch.load(folder / CHECKPOINT, weights_only=True)["network"]


@pytest.fixture(scope="module")
def uninterrupted(settings, tmp_path_factory):
    """Folder of a whole run, and what the command said."""
    folder, app = tmp_path_factory.mktemp("whole"), typer.Typer(pretty_exceptions_enable=False)
    train.register(app)
    arguments = ["--config", settings, "--out", folder, "--json", folder / "figures.json"]
    outcome = CliRunner().invoke(app, list(map(str, arguments)))
    assert outcome.exit_code == 0, outcome.output
    return folder, outcome.output


def test_a_run_leaves_weights_curves_and_figures(uninterrupted):
    folder, out = uninterrupted
    figures = json.loads((folder / "figures.json").read_text())
    assert figures["steps"] == 4
    assert {"loss_first_tenth", "start.mma_3px", "best.mma_3px", "last.matches"} <= set(figures)
    assert "matching accuracy at 3 px" in out
    assert (folder / BEST).is_file()
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    assert list((folder / "tensorboard").iterdir())


def test_killed_and_resumed_with_a_cache_is_bit_for_bit_the_uninterrupted_run_without(
    settings, uninterrupted, tmp_path, d2_ros
):
    cache = ["-p", f"cache:={tmp_path / 'cache'}"]
    killed = start("--config", settings, "--out", tmp_path, *cache)
    deadline = time.monotonic() + 60
    while not (tmp_path / CHECKPOINT).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL, "it ended before it could be killed"
    entries = sorted((tmp_path / "cache").glob("*.pair"))
    assert entries
    entries[0].write_bytes(entries[0].read_bytes()[:1000])
    outcome = d2_ros("train", "--config", settings, "--out", tmp_path, "--resume", *cache)
    assert outcome.code == 0, outcome.err
    assert "6 pairs kept in" in outcome.out  # 5 to train on, 1 to validate with
    whole, resumed = weights(uninterrupted[0]), weights(tmp_path)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    before = load_weights("off_the_shelf")
    assert not torch.equal(whole["conv4_3.weight"], before["conv4_3.weight"])


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(
    settings, uninterrupted, tmp_path, monkeypatch, d2_ros
):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # as torchrun
    second = start("--config", settings, "--out", tmp_path, RANK="1", **shared)
    for name, value in {**shared, "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    first = d2_ros("train", "--config", settings, "--out", tmp_path)
    out, err = second.communicate(timeout=120)
    assert (first.code, second.returncode) == (0, 0), first.err + err
    assert "4 steps" in first.out
    assert out == ""  # only the first one speaks
    alone, together = weights(uninterrupted[0]), weights(tmp_path)
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-3, atol=2e-5)


def test_a_run_is_not_overwritten(settings, uninterrupted, d2_ros):
    outcome = d2_ros("train", "--config", settings, "--out", uninterrupted[0])
    assert outcome.code == 2
    assert "holds the checkpoint of a run; add --resume" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "needs --config FILE and --out DIR"),
        (["--config", "none.yaml", "--out", "x"], "none.yaml cannot be read"),
        (["-p", "data.crop:=1"], "data.crop is 1; it must be 64 to 1024"),
        (["-p", "data.crop=1"], "not of the form name:=value"),
        (["-p", "network.weights:=nothing"], "no weights named 'nothing'"),
        (["-p", "data.sources:=[videos:x]"], "'videos:x' is not understood"),
        (["-p", "device:=cuda"], "device is 'cuda'"),
        (["--resume"], "checkpoint.pt cannot be read"),
    ],
)
def test_what_is_wrong_is_named(settings, tmp_path, monkeypatch, d2_ros, arguments, words):
    monkeypatch.chdir(tmp_path)
    if "device:=cuda" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    given = ["--config", settings, "--out", tmp_path / "out"] if "--config" not in arguments else []
    outcome = d2_ros("train", *(given if arguments else []), *arguments)
    assert outcome.code == 2
    assert words in outcome.err
    assert outcome.err.count("\n") == 1


def test_settings_are_printed(d2_ros):
    outcome = d2_ros("train", "--settings")
    assert outcome.code == 0
    assert "learning_rate: 0.001" in outcome.out
