"""The command that shortens descriptors, on two windows of one photograph."""

import cv2
import pytest
import skimage.data
import torch
import yaml

from d2_ros.features.projection import projection_of
from d2_ros.features.weights import load_weights, read_notes


@pytest.fixture
def settings(tmp_path):
    photo = cv2.resize(skimage.data.coffee()[..., ::-1], (300, 200), interpolation=cv2.INTER_AREA)
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "coffee.png"), photo)
    path = tmp_path / "train.yaml"
    content = {"device": "cpu", "threads": 1, "cache": str(tmp_path / "cache"),
               "data": {"sources": [f"photos:{tmp_path / 'photos'}"], "held_back": 0.0, "crop": 96},
               "augmentation": {"rotation": 0.1, "zoom": 1.1}}  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_command_adds_a_projection_and_keeps_the_network(settings, tmp_path, d2_ros):
    once, again = tmp_path / "once.safetensors", tmp_path / "again.safetensors"
    for out in (once, again):
        outcome = d2_ros("weights", "project", "off_the_shelf", "--config", settings, "--out", out,
                         "--size", 8, "--pairs", 1)  # fmt: skip
        assert outcome.code == 0, outcome.err
    state, same, before = (load_weights(str(x)) for x in (once, again, "off_the_shelf"))
    assert all(torch.equal(state[name], value) for name, value in same.items())
    assert all(torch.equal(state[name], value) for name, value in before.items())
    assert projection_of(state).weight.shape == (8, 512)
    notes = read_notes(once)
    assert notes["projected_from"] == "off_the_shelf"
    assert "1 pairs of photos:" in notes["projection"]


def test_too_few_points_are_named(settings, tmp_path, d2_ros):
    out = tmp_path / "out.safetensors"
    outcome = d2_ros("weights", "project", "off_the_shelf", "--config", settings,
                     "--out", out, "--pairs", 1, "--size", 511)  # fmt: skip
    assert outcome.code == 2
    assert "too few to fit a projection to 511 values; raise --pairs" in outcome.err
    assert not out.exists()
