"""``d2-ros weights export``: files that other programs read, held against torch."""

from __future__ import annotations

import json

import pytest

SOURCE = "synthetic:size=160x120,frames=2"


@pytest.mark.parametrize("size", ["160x120", None])
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_exported_files_agree_with_torch(d2_ros, tmp_path, monkeypatch, form, size):
    for module in {"onnx": ["onnx", "onnxruntime"], "openvino": ["openvino"]}[form]:
        pytest.importorskip(module, reason=f"the extra for {form} is not installed")
    monkeypatch.setattr("d2_ros.features.calibration.LONG_EDGE", 128)
    out = tmp_path / form
    options = ["--size", size] if size else []
    code = d2_ros(
        "weights", "export", "off_the_shelf", "--format", form, "--out", out, *options,
        "--json", tmp_path / "f.json",
    )[0]  # fmt: skip
    assert code == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["images"] == 3
    assert figures["worst_error"] < 1e-4
    assert figures["same_channel"] > 0.999
    assert figures["same_keypoints"] > 0.99
    assert figures["keypoints"] > 20
    if form == "openvino":
        import openvino

        shape = openvino.Core().read_model(out / "model.xml").inputs[0].partial_shape
        assert shape.is_dynamic == (size is None)
        assert size is None or list(shape.to_shape()) == [1, 120, 160, 3]
        assert sorted(path.name for path in out.iterdir()) == ["model.bin", "model.xml", "sha256"]


def test_an_int8_file_is_calibrated_on_a_recording(d2_ros, tmp_path):
    pytest.importorskip("nncf", reason="the extra openvino is not installed")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("stays")
    code, stdout, _ = d2_ros(
        "weights", "export", "off_the_shelf", "--format", "openvino", "--int8", "--calibrate",
        SOURCE, "--out", tmp_path / "out", "--json", tmp_path / "f.json",
    )  # fmt: skip
    assert code == 0
    assert "strongest channel the same in" in stdout
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["images"] == 2
    assert 0.001 < figures["relative_error"] < 0.15
    assert figures["same_channel"] > 0.8
    assert (tmp_path / "out" / "model.bin").stat().st_size < 9e6
    assert (tmp_path / "out" / "mine.txt").read_text() == "stays"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "onnx", "--int8"], "add --format openvino"),
        (["--format", "openvino", "--calibrate", SOURCE], "--calibrate is for --int8"),
        (["--format", "openvino", "--size", "64"], "--size is '64'; write WIDTHxHEIGHT"),
        (["--format", "openvino", "--size", "32x64"], "at least 64x64"),
    ],
)
def test_options_that_do_not_go_together_are_a_sentence(d2_ros, tmp_path, options, words):
    code, _, stderr = d2_ros(
        "weights", "export", "off_the_shelf", "--out", tmp_path / "o", *options
    )
    assert code == 2
    assert words in stderr
    assert not (tmp_path / "o").exists()
