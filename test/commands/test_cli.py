"""The command line: bad input is one sentence and exit code 2; help is quick; parameters agree."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from d2_ros import __version__, cli
from d2_ros.commands.common import load_config, make_folder, write_json
from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.features.weights import SHIPPED

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def call(monkeypatch, capsys):
    """Run d2-ros in this process; returns exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["d2-ros", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run


def refused(outcome, *words):
    code, out, err = outcome
    assert code == 2, out + err
    assert err.startswith("d2-ros: ")
    assert err.count("\n") == 1, err
    for word in words:
        assert str(word) in err


def test_version(call):
    assert call("--version") == (0, __version__ + "\n", "")


def test_help_lists_every_verb(call):
    code, out, _ = call("--help")
    assert code == 0
    assert "Not usable" not in out
    for verb in cli.COMMANDS:
        assert f" {verb} " in out


@pytest.mark.parametrize("verb", cli.COMMANDS)
def test_every_verb_has_help(call, verb):
    code, out, _ = call(verb, "--help")
    assert code == 0
    assert "Usage" in out


@pytest.mark.parametrize("arguments", [["dance"], ["replay"], ["replay", "--sideways"]])
def test_wrong_usage_is_exit_code_2(call, arguments):
    code, _, err = call(*arguments)
    assert code == 2
    assert "Traceback" not in err


def test_help_needs_no_heavy_library():
    # What takes seconds to import is imported when a verb runs.
    code = (
        "import sys; from d2_ros.cli import build_app; build_app();"
        "heavy = {'torch', 'cv2', 'gtsam', 'rosbags', 'rclpy', 'matplotlib', 'scipy', 'skimage'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_library_that_is_absent_is_a_sentence_and_a_bug_is_a_traceback(call, monkeypatch):
    def absent(name):
        def build():
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

        return build

    monkeypatch.setattr(cli, "build_app", absent("mcap"))
    code, _, err = call("doctor")
    assert (code, err.count("\n")) == (1, 1)
    assert "No module named 'mcap'; `d2-ros doctor` says how to get it" in err
    monkeypatch.setattr(cli, "build_app", absent("d2_ros.typo"))
    with pytest.raises(ModuleNotFoundError):
        call("doctor")


def test_an_absent_source_is_named(call, tmp_path):
    source = tmp_path / "absent.mcap"
    refused(call("replay", source, "--out", tmp_path / "o.mcap"), source)
    refused(call("convert", source, tmp_path / "o.mcap"), source)
    refused(call("play", source), source)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("window.sise:=3", ["unknown parameter window.sise", "doctor --parameters"]),
        ("window.size:=99", ["window.size is 99", "1 to 30"]),
        ("window.size:=nan", ["window.size", "an integer"]),
        ("window.size=3", ["name:=value"]),
        ("device:=tpu", ["device is 'tpu'", "auto, cpu, cuda"]),
    ],
)
def test_bad_parameters_are_named(call, tmp_path, override, words):
    refused(call("replay", tmp_path, "--out", tmp_path / "o.mcap", "-p", override), *words)


def test_a_bad_parameter_file_is_named(call, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("window: 3\n")
    refused(
        call("replay", tmp_path, "--out", tmp_path / "o.mcap", "--params-file", path),
        path,
        "ros__parameters",
    )


def test_images_that_are_none_are_named(call, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"no image")
    refused(call("match", path, path, "--out", tmp_path / "m.npz"), path)


def test_parameters_come_from_defaults_file_and_overrides_in_this_order(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        "d2_frontend:\n  ros__parameters:\n    device: cpu\n    window: {size: 5}\n"
        "    alignment.max_move: 2\n"
    )
    assert load_config(None, None) == Config()
    config = load_config(path, ["window.size:=3", "refinement.enabled:=false"])
    assert (config.device, config.window.size, config.refinement.enabled) == ("cpu", 3, False)
    assert config.alignment.max_move == 2.0
    assert config.features == Config().features


def test_overrides_may_hold_any_yaml(tmp_path):
    config = load_config(None, ["weights:=/a/b:=c.pth", "cameras:=[left, right]"])
    assert config.weights == "/a/b:=c.pth"
    assert config.cameras == ("left", "right")


def test_json_files_are_flat_and_an_unwritable_one_is_named(tmp_path):
    path = tmp_path / "f.json"
    write_json(path, {"a_px": 0.5, "b": "text", "n": 3})
    assert json.loads(path.read_text()) == {"a_px": 0.5, "b": "text", "n": 3}
    with pytest.raises(D2RosError, match=r"cannot write .*f\.json/x"):
        write_json(path / "x", {})


def test_folders_are_made_and_an_unwritable_one_is_named(tmp_path):
    made = make_folder(tmp_path / "a" / "b")
    assert made.is_dir()
    assert list(made.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(D2RosError, match=r"cannot write to folder .*file"):
        make_folder(tmp_path / "file" / "sub")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("cameras:=[left, right", "cannot be read: did not find expected ',' or ']'"),
        ("weights:=@x", "character that cannot start any token"),
        ("weights:=", "neither a value nor a list of values"),
        ("weights:=~nobody/x", "no weights named '~nobody/x'"),
        ("other:window.size:=3", "for a node other"),
    ],
)
def test_values_that_are_none_are_a_sentence(call, tmp_path, override, words):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((24, 32), np.uint8))
    outcome = call("replay", tmp_path / "images", "--out", tmp_path / "o.mcap", "-p", override)
    refused(outcome, words)


def test_a_file_for_other_nodes_changes_nothing_and_says_so(tmp_path, capsys):
    path = tmp_path / "p.yaml"
    path.write_text("camera:\n  ros__parameters: {fps: 30}\n")
    assert load_config(path, None) == Config()
    assert f"{path} has no section for d2_frontend" in capsys.readouterr().err


def test_places_that_the_system_refuses_are_a_sentence(call, tmp_path):
    refused(call("replay", "x" * 5000, "--out", tmp_path / "o.mcap"), "File name too long")


def test_names_that_are_no_text_are_printed_all_the_same(call, tmp_path, monkeypatch):
    path = os.fsdecode(bytes(tmp_path) + b"/\xff.yaml")
    Path(path).write_text("/**: {ros__parameters: {window.sise: 3}}\n")
    refused(call("replay", tmp_path, "--out", "o.mcap", "--params-file", path), "window.sise")
    figures = Path(os.fsdecode(bytes(tmp_path) + b"/\xff.json"))
    assert call("weights", "list", "--json", figures)[0] == 0
    assert "off_the_shelf.state" in json.loads(figures.read_text())


NO_HOME = """
import os, pwd
def unknown(*arguments):
    raise KeyError("uid not found")
pwd.getpwuid = pwd.getpwnam = unknown
for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)
from d2_ros.cli import main
main()
"""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["weights", "list"], 0, ["off_the_shelf  verified"]),
        (["weights", "import", "SHIPPED", "--name", "x"], 2, ["set HOME or XDG_DATA_HOME"]),
        (["convert", "synthetic:size=160x120,frames=2", "OUT"], 2, ["HOME or XDG_CACHE_HOME"]),
        (["play", "IMAGES"], 2, ["ROS does not start", "set ROS_LOG_DIR"]),
    ],
)  # fmt: skip
def test_without_a_home_commands_work_or_say_what_to_set(tmp_path, arguments, code, words):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((24, 32), np.uint8))
    places = {
        "SHIPPED": SHIPPED["off_the_shelf"][0],
        "OUT": tmp_path / "o.mcap",
        "IMAGES": tmp_path,
    }
    done = subprocess.run(
        [sys.executable, "-c", NO_HOME, *(str(places.get(word, word)) for word in arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert all(word in done.stdout + done.stderr for word in words)


@pytest.mark.parametrize("verb", ["play", "node"])
def test_logs_that_cannot_be_written_are_a_sentence_with_the_remedy(tmp_path, verb):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((24, 32), np.uint8))
    codes = {
        "play": "from d2_ros.cli import main; main()",
        "node": "import sys; from d2_ros.node.frontend_node import main; sys.exit(main())",
    }
    arguments = ["play", str(tmp_path)] if verb == "play" else []
    done = subprocess.run(
        [sys.executable, "-c", codes[verb], *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=100,
        env=os.environ | {"ROS_LOG_DIR": "/dev/null/logs"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "/dev/null/logs" in last
    assert last.endswith("set ROS_LOG_DIR to a folder that can be written to")
