"""The command line: bad input is one sentence and exit code 2; help is quick; parameters agree."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from d2_ros import __version__, cli
from d2_ros.commands.common import load_config, make_folder, write_json
from d2_ros.config import Config
from d2_ros.errors import D2RosError

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
