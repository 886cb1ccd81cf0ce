"""docs/tutorial.md: its commands and its script, as they stand there, on a video."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from evo.core.geometry import umeyama_alignment

from d2_ros.sources.synthetic import open_synthetic

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")
RATE = 20  # Hz


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def commands(name):
    lines = [shlex.split(line) for block in blocks("bash") for line in block.splitlines()]
    return [words for words in lines if words[0] == name]


@pytest.fixture
def source(tmp_path, monkeypatch):
    """The synthetic sequence; in the working folder as phone.mp4, with its camera.yaml."""
    monkeypatch.chdir(tmp_path)
    source = open_synthetic(f"size=160x120,frames=30,rate={RATE}")
    size = (source.camera.width, source.camera.height)
    video = cv2.VideoWriter("phone.mp4", cv2.VideoWriter.fourcc(*"mp4v"), RATE, size)
    for frame in source:
        video.write(frame.image)
    video.release()
    (script,) = blocks("python")
    Path("trajectory.py").write_text(script, encoding="utf-8")
    calibration = yaml.safe_load(*blocks("yaml"))
    calibration["image_width"], calibration["image_height"] = size
    calibration["camera_matrix"]["data"] = source.camera.matrix.ravel().tolist()
    calibration["distortion_coefficients"]["data"] = source.camera.distortion.tolist()
    Path("camera.yaml").write_text(yaml.safe_dump(calibration), encoding="utf-8")
    return source


def test_the_trajectory_of_a_video_is_true_to_a_fiftieth_of_its_length(source, d2_ros):
    (replay,) = commands("d2-ros")
    assert d2_ros(*replay[1:]).code == 0
    (script,) = commands("python")
    done = subprocess.run([sys.executable, *script[1:]], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("30 of 30 frames")
    assert done.stderr == ""

    rows = np.loadtxt(script[-1])
    poses = source.poses()[np.rint(rows[:, 0] * RATE).astype(int)]
    true = poses[:, :3, 3]
    turn, shift, scale = umeyama_alignment(rows[:, 1:4].T, true.T, with_scale=True)
    error = np.linalg.norm(scale * rows[:, 1:4] @ turn.T + shift - true, axis=1)
    length = np.linalg.norm(np.diff(true, axis=0), axis=1).sum()
    assert length > 0.7
    assert np.sqrt(np.mean(error**2)) < length / 50


def test_a_camera_that_has_not_moved_is_told_so(source, d2_ros):
    (replay,) = commands("d2-ros")
    assert d2_ros(*replay[1:], "--frames", 1).code == 0
    (script,) = commands("python")
    done = subprocess.run([sys.executable, *script[1:]], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "no keyframe shares half of the first one's tracks\n"
