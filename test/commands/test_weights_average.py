"""The command that averages weights."""

import torch

from d2_ros.features.weights import load_weights, pack_weights, read_notes


def test_the_command_averages_trainings_with_their_beginning(tmp_path, d2_ros):
    shelf = load_weights("off_the_shelf")
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for number, file in enumerate(files, start=1):
        tuned = {**shelf, "conv4_3.bias": shelf["conv4_3.bias"] + number}
        notes = {"trained_from": "off_the_shelf", "data": "photos:x"}
        file.write_bytes(pack_weights(tuned, notes, "tuned"))
    out = tmp_path / "mean.safetensors"
    outcome = d2_ros("weights", "average", "off_the_shelf", *files, "--out", out,
                     "--share", 2, "--share", 1, "--share", 1)  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert out.stat().st_size < 10_000  # what nobody trained is left out
    mean = load_weights(str(out))
    expected = (shelf["conv4_3.bias"] + 0.75).half().float()
    assert torch.allclose(mean["conv4_3.bias"], expected, atol=2e-3)
    assert torch.equal(mean["conv4_3.weight"], shelf["conv4_3.weight"])
    notes = read_notes(out)
    assert notes["averaged_from"] == f"0.5 off_the_shelf, 0.25 {files[0]}, 0.25 {files[1]}"
    assert (notes["data"], notes["trained_from"]) == ("photos:x", "off_the_shelf")


def test_one_share_too_few_is_named_and_nothing_written(tmp_path, d2_ros):
    out = tmp_path / "mean.safetensors"
    outcome = d2_ros("weights", "average", "off_the_shelf", "off_the_shelf", "--out", out,
                     "--share", 1)  # fmt: skip
    assert outcome.code == 2
    assert "2 weights cannot be averaged with the shares 1; give one for each" in outcome.err
    assert not out.exists()
