"""The doctor must name every gap with a remedy, and survive every one of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from d2_ros.commands import doctor, probes
from d2_ros.config import parameters

ROOT = Path(__file__).resolve().parents[2]
MODULES = ["numpy", "cv2", "torch", "gtsam", "safetensors", "yaml", "rich", "scipy", "rosbags"]
MODULES += ["mcap", "rclpy", "cv_bridge", "sensor_msgs", "matplotlib", "evo", "skimage"]
MODULES += ["launch_ros"]


def run_doctor(*arguments, **environment):
    code = "from d2_ros.cli import main; main()"
    paths = [environment.pop("PYTHONPATH", None), str(ROOT), os.environ.get("PYTHONPATH")]
    return subprocess.run(
        [sys.executable, "-c", code, "doctor", *map(str, arguments)],
        env=os.environ | environment | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)},
        cwd=environment.get("HOME", ROOT),
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_says_what_works_on_this_machine(tmp_path):
    done = run_doctor("--json", tmp_path / "doctor.json")
    figures = json.loads((tmp_path / "doctor.json").read_text())
    assert {type(value) for value in figures.values()} <= {str, int, float}
    states = {k.removesuffix(".state"): v for k, v in figures.items() if k.endswith(".state")}
    assert set(states) == {"python", *probes.PROBES, "memory", "net_buffer"}
    assert set(states.values()) <= {"ok", "note", "missing"}
    for name, state in states.items():
        assert f"\n{name} " in "\n" + done.stdout
        assert bool(figures[f"{name}.remedy"]) == (state != "ok"), name
    # These ran this very test session, or stand in the checkout.
    for name in ("python", "numpy", "opencv", "torch", "yaml", "weights"):
        assert states[name] != "missing", figures[f"{name}.found"]
    # conftest.py hides bf16 in hardware from torch; the reason is told as well.
    if "GPU" not in figures["torch.found"]:
        assert "precision auto is fp32: this CPU has no bf16 in hardware" in figures["torch.found"]
    assert done.returncode == (1 if "missing" in states.values() else 0)
    assert done.stderr == ""


def test_survives_libraries_that_are_broken_in_every_way(tmp_path):
    broken = dict.fromkeys(MODULES, "raise ImportError('hidden by the test')")
    broken["gtsam"] = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    broken["cv_bridge"] = "raise AttributeError('_ARRAY_API not found')"
    broken["mcap"] = "import sys; print('chatter'); sys.exit(3)"
    broken["torch"] = "raise OSError('libcudart.so: cannot open shared object file')"
    broken["rosbags"] = "__version__ = '0.9.1'"
    for name, line in broken.items():
        (tmp_path / f"{name}.py").write_text(line + "\n")
    done = run_doctor(PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    found = {line.split()[0]: line for line in lines if line and not line.startswith(" ")}
    for name, words in {
        "numpy": "hidden by the test",
        "torch": "libcudart.so",
        "gtsam": "crashes Python (signal 11)",
        "cv_bridge": "_ARRAY_API",
        "mcap": "fails without a word",
        "rosbags": "version 0.9.1 is installed; at least 0.11 is needed",
        "messages": "no sensor_msgs",
        "yaml": "hidden by the test",
        "rich": "hidden by the test",
    }.items():
        assert " missing " in found[name]
        assert words in found[name]
        remedy = lines[lines.index(found[name]) + 1]
        assert remedy.strip().startswith("->")
    for name in doctor.OPTIONAL:
        assert " note " in found[name]
    assert lines[-1].startswith("Not usable, though required: numpy, opencv, torch, gtsam")


@pytest.mark.parametrize("command", ["replay {0} --out {0}/o.mcap", "match {0} {0} --out {0}/o"])
def test_other_verbs_point_to_the_doctor_when_a_library_is_absent(command, tmp_path):
    (tmp_path / "numpy.py").write_text("raise ImportError('hidden by the test')\n")
    code = "from d2_ros.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *command.format(tmp_path).split()],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1
    assert "hidden by the test" in done.stderr
    assert "`d2-ros doctor` says how to get it" in done.stderr
    assert "Traceback" not in done.stderr


def test_names_damaged_weights_of_the_user(tmp_path, monkeypatch):
    folder = tmp_path / "d2_ros" / "weights"
    folder.mkdir(parents=True)
    (folder / "mine.safetensors").write_bytes(b"not weights")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    finding = doctor.probe("weights")
    assert finding.state == "note"
    assert finding.found == "verified: off_the_shelf, trained"
    assert "mine" in finding.remedy


def test_gives_up_on_a_library_that_hangs(tmp_path, monkeypatch):
    (tmp_path / "mcap.py").write_text("import time; time.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "TIMEOUT_S", 1.5)
    assert doctor.probe("mcap").found == "no answer within 1.5 s"


def test_lists_every_parameter():
    done = run_doctor("--parameters")
    assert done.returncode == 0
    names = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert names == [parameter.name for parameter in parameters()]
    assert "window.size: 7 keyframes (1 to 30). Keyframes kept." in done.stdout
    assert "input.compressed: false (true or false)" in done.stdout


def test_remedies_follow_the_ros_distribution(monkeypatch):
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    assert doctor.remedy("rclpy").endswith("-m pip install ros-rclpy ros-rmw-fastrtps-cpp")
    assert doctor.remedy("opencv").endswith("-m pip install 'opencv-python-headless<5'")
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    assert doctor.remedy("rclpy") == "sudo apt install ros-jazzy-rclpy"
    assert "ros-jazzy-lifecycle-msgs" in doctor.remedy("messages")
    assert doctor.remedy("mcap").endswith("-m pip install mcap")


@pytest.mark.parametrize(("numpy", "clash"), [("2.2.6", True), ("1.26.4", False)])
def test_numpy_2_is_suspected_when_a_present_library_fails(numpy, clash, monkeypatch):
    monkeypatch.setattr(doctor, "_installed", {"numpy": numpy, "gtsam": "4.2"}.get)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())
    assert ("numpy<2" in doctor.remedy("gtsam")) == clash
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert doctor.remedy("gtsam").endswith("pip install gtsam")


@pytest.mark.parametrize(
    ("text", "state", "words"),
    [
        ("MemTotal: 9 kB\nMemAvailable:  8388608 kB\n", "ok", "8192 MiB"),
        ("MemAvailable: 524288 kB\n", "note", "512 MiB"),
        ("MemTotal: 9 kB\n", "ok", "cannot be told"),
        ("", "ok", "cannot be told"),
    ],
)
def test_free_memory(text, state, words, tmp_path):
    path = tmp_path / "meminfo"
    path.write_text(text)
    finding = doctor.free_memory(path)
    assert finding.state == state
    assert words in finding.found


def test_receive_buffer(tmp_path):
    path = tmp_path / "rmem_max"
    assert doctor.receive_buffer(path).state == "ok"  # not Linux
    path.write_text("212992\n")
    assert "sysctl -w net.core.rmem_max" in doctor.receive_buffer(path).remedy
    path.write_text("33554432\n")
    assert doctor.receive_buffer(path).state == "ok"


@pytest.mark.parametrize(
    ("version", "good"),
    [("4.5.4", True), ("4.14.0.94", True), ("v4.9", True), ("4.4.9", False), ("5.0.0", False)],
)
def test_versions_are_compared_by_number(version, good):
    module = type("Module", (), {"__version__": version})
    if good:
        assert probes._version(module, "none", "4.5", "5") == version.lstrip("v")
    else:
        with pytest.raises(RuntimeError, match=r"at least 4\.5 and below 5"):
            probes._version(module, "none", "4.5", "5")


def test_logs_that_cannot_be_written_are_told_from_rclpy(monkeypatch):
    monkeypatch.setenv("ROS_LOG_DIR", "/dev/null/logs")
    logs, ros = doctor.probe("ros_logs"), doctor.probe("rclpy")
    assert (logs.state, ros.state) == ("missing", "ok")
    assert "Not a directory: '/dev/null/logs'" in logs.found
    assert "set ROS_LOG_DIR" in logs.remedy


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HOME": "{}"}, "{}/.ros/log"),
        ({"HOME": "{}", "ROS_HOME": "{}/ros"}, "{}/ros/log"),
        ({"HOME": "{}", "ROS_LOG_DIR": "~/logs"}, "{}/logs"),
        ({"ROS_LOG_DIR": "{}/logs"}, "{}/logs"),
    ],
)
def test_the_folder_of_the_logs_is_the_one_that_ros_takes(monkeypatch, tmp_path, variables, folder):
    for name in ("HOME", "ROS_HOME", "ROS_LOG_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    assert probes.ros_logs() == (folder.format(tmp_path), "")
