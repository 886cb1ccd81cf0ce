import argparse
import hashlib
import json
import os
import pickle
import stat

import pytest
import torch
import typer
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from d2_ros.commands import weights as command
from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.features.extractor import Extractor
from d2_ros.features.network import LAYERS
from d2_ros.features.weights import (
    SHIPPED,
    find_weights,
    import_weights,
    known_weights,
    load_weights,
    pack_weights,
    read_checkpoint,
    read_notes,
    verify_weights,
    weights_folder,
)

INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21)


@pytest.fixture(autouse=True)
def _own_data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture(scope="module")
def shipped():
    return load_weights("off_the_shelf")


@pytest.fixture(scope="module")
def official(shipped):
    """The shipped weights as the authors' checkpoints hold them."""
    model = {}
    for index, name in zip(INDICES, LAYERS, strict=True):
        for kind in ("weight", "bias"):
            key = f"dense_feature_extraction.model.{index}.{kind}"
            model[key] = shipped[f"{name}.{kind}"].clone()
    return {"model": model, "epoch_idx": 10}


def run(*arguments):
    app = typer.Typer(pretty_exceptions_enable=False)
    command.register(app)
    app.callback()(lambda: None)
    return CliRunner().invoke(app, ["weights", *map(str, arguments)])


def test_shipped_weights_are_half_precision_with_licence_and_the_recorded_sum():
    path, checksum = SHIPPED["off_the_shelf"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == checksum
    assert 15e6 < path.stat().st_size < 16e6
    with safe_open(path, "pt") as file:
        assert "CC BY 4.0" in file.metadata()["licence"]
        assert "Simonyan" in file.metadata()["credit"]
        assert file.metadata()["source"]
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118


def test_shipped_weights_are_the_published_ones(shipped):
    assert shipped["conv1_1.weight"][0, 0, 0, :2].tolist() == pytest.approx(
        [0.42947057, 0.373467], rel=1e-3
    )
    assert shipped["conv1_1.bias"][0] == pytest.approx(0.73429835, rel=1e-3)
    assert {value.dtype for value in shipped.values()} == {torch.float32}


def test_trained_weights_hold_the_last_layer_and_say_where_it_comes_from(shipped):
    path, checksum = SHIPPED["trained"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == checksum
    assert path.stat().st_size < 5e6
    trained, notes = load_weights("trained"), read_notes(path)
    changed = {key for key in shipped if not torch.equal(shipped[key], trained[key])}
    assert changed == {"conv4_3.weight", "conv4_3.bias"}
    assert notes["averaged_from"].startswith("0.25 off_the_shelf, 0.25 seed0")
    assert {"licence", "credit", "photographs", "settings", "figures"} <= notes.keys()
    assert "held-back pairs 0.106 before, 0.159 after" in run("list").output


@pytest.mark.parametrize("namespace", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_official_checkpoints_load_as_they_are(tmp_path, official, shipped, namespace, legacy):
    content = dict(official)
    if namespace:
        content["args"] = argparse.Namespace(num_epochs=10, plot=False, loss="x")
    path = tmp_path / "d2_tf.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    loaded = load_weights(str(path))
    assert loaded.keys() == shipped.keys()
    assert all(torch.equal(loaded[key], shipped[key]) for key in shipped)


def test_an_extractor_takes_a_checkpoint_by_its_path(tmp_path, official, shipped):
    path = tmp_path / "d2_tf.pth"
    torch.save(official, path)
    extractor = Extractor(Config(device="cpu", weights=str(path)))
    assert torch.equal(extractor.network.conv4_3.bias, shipped["conv4_3.bias"])


class Evil:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path, official, legacy):
    path, proof = tmp_path / "evil.pth", tmp_path / "ran"
    content = {**official, "args": Evil(proof)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(D2RosError, match=r"evil\.pth cannot be read as plain weights"):
        load_weights(str(path))
    assert not proof.exists()


def broken(official, key, value):
    return {"model": {**official["model"], key: value}}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda o: {"state_dict": o["model"]}, "no entry 'model'"),
        (lambda o: {"model": [1, 2]}, "no entry 'model'"),
        (lambda o: torch.zeros(3), "no entry 'model'"),
        (lambda o: {"model": {}}, "lack conv1_1.bias"),
        (lambda o: broken(o, "detection.weight", torch.zeros(1)), "unknown entry detection.weight"),
        (
            lambda o: broken(o, "dense_feature_extraction.model.0.bias", torch.zeros(63)),
            r"conv1_1.bias is \(63,\), expected \(64,\)",
        ),
        (
            lambda o: broken(
                o, "dense_feature_extraction.model.2.bias", torch.full((64,), torch.nan)
            ),
            "conv1_2.bias holds NaN",
        ),
        (
            lambda o: broken(o, "dense_feature_extraction.model.2.bias", torch.ones(64).long()),
            "conv1_2.bias holds NaN, infinity or integers",
        ),
        (
            lambda o: broken(o, "dense_feature_extraction.model.2.bias", "text"),
            "conv1_2.bias is str",
        ),
    ],
)
def test_anything_else_is_refused_with_its_reason(tmp_path, official, make, words):
    path = tmp_path / "other.pth"
    torch.save(make(official), path)
    with pytest.raises(D2RosError, match=words):
        load_weights(str(path))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps({"model": 1})[:-3]])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files_are_refused(tmp_path, content, suffix):
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    with pytest.raises(D2RosError, match="damaged"):
        load_weights(str(path))


def test_a_truncated_checkpoint_is_refused(tmp_path, official):
    path = tmp_path / "cut.pth"
    torch.save(official, path)
    path.write_bytes(path.read_bytes()[:1_000_000])
    with pytest.raises(D2RosError, match=r"cut\.pth"):
        load_weights(str(path))


def test_missing_weights_name_the_known_ones():
    with pytest.raises(D2RosError, match=r"'nowhere\.pth'.*off_the_shelf.*import"):
        load_weights("nowhere.pth")
    with pytest.raises(D2RosError, match="cannot be read: No such file"):
        read_checkpoint(weights_folder() / "nothing.pth")


def test_an_imported_checkpoint_loads_by_name_in_half_precision(tmp_path, official, shipped):
    path = tmp_path / "d2_tf.pth"
    torch.save(official, path)
    file = import_weights(path, "tuned")
    assert file.path == weights_folder() / "tuned.safetensors"
    assert file.actual_sha256() == file.sha256
    assert [known.name for known in known_weights()] == [*SHIPPED, "tuned"]
    assert find_weights("tuned") == file
    loaded = load_weights("tuned")
    assert all(torch.equal(loaded[key], shipped[key]) for key in shipped)
    noted = file.path.with_name("tuned.safetensors.sha256").read_text().split()
    assert noted == [file.sha256, "tuned.safetensors"]


@pytest.mark.parametrize("name", [*SHIPPED, "../x", "a b", "", ".hidden"])
def test_bad_names_are_refused(name):
    with pytest.raises(D2RosError, match="cannot be named"):
        import_weights(SHIPPED["off_the_shelf"][0], name)


def test_weights_that_overflow_half_precision_are_not_imported(tmp_path, shipped):
    path = tmp_path / "large.safetensors"
    save_file({**shipped, "conv1_1.bias": torch.full((64,), 1e6)}, path)
    with pytest.raises(D2RosError, match=r"half precision: conv1_1\.bias"):
        import_weights(path, "large")


def test_changed_weights_are_refused(shipped):
    file = import_weights(SHIPPED["off_the_shelf"][0], "copy")
    data = bytearray(file.path.read_bytes())
    data[-1] ^= 1
    file.path.write_bytes(bytes(data))
    with pytest.raises(D2RosError, match=r"copy .* have SHA-256 .* import them again"):
        verify_weights("copy")
    with pytest.raises(D2RosError, match="SHA-256"):
        Extractor(Config(device="cpu", weights="copy"))
    verify_weights("off_the_shelf")


def test_weights_without_their_sum_are_refused():
    file = import_weights(SHIPPED["off_the_shelf"][0], "copy")
    file.path.with_name("copy.safetensors.sha256").unlink()
    with pytest.raises(D2RosError, match="none recorded"):
        load_weights("copy")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_unwritable_folder_is_said_plainly(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(D2RosError, match="cannot write weights"):
        import_weights(SHIPPED["off_the_shelf"][0], "copy")


def test_a_folder_that_cannot_be_made_is_said_plainly(tmp_path):
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(D2RosError, match="cannot write weights"):
        import_weights(SHIPPED["off_the_shelf"][0], "copy")


def test_command_imports_lists_and_verifies(tmp_path, official):
    path, figures = tmp_path / "d2_tf.pth", tmp_path / "list.json"
    torch.save(official, path)
    imported = run("import", path)
    assert imported.exit_code == 0, imported.output
    assert "weights:=d2_tf" in imported.output
    listed = run("list", "--json", figures)
    assert listed.exit_code == 0
    flat = json.loads(figures.read_text())
    for name, checksum in (
        ("off_the_shelf", SHIPPED["off_the_shelf"][1]),
        ("d2_tf", find_weights("d2_tf").sha256),
    ):
        assert flat[f"{name}.sha256"] == checksum
        assert flat[f"{name}.state"] == "verified"
        assert flat[f"{name}.size_bytes"] == find_weights(name).path.stat().st_size
        assert checksum in listed.output
    assert run("verify").output.count("verified") == len(SHIPPED) + 1


@pytest.mark.parametrize(
    ("notes", "words"),
    [
        ({"trained_from": "a", "data": "photos:b", "figures": json.dumps(
            {"best_step": 300, "start.mma_3px": 0.2, "best.mma_3px": 0.25})},
         ["trained from a on photos:b, 300 steps", "held-back pairs 0.200 before, 0.250"]),
        ({"figures": "[[["}, ["trained from ? on ?, ? steps"]),
        ({"projection": "128 values"}, ["descriptors of 128 values"]),
    ],
)  # fmt: skip
def test_command_lists_what_weights_say_of_their_origin(shipped, tmp_path, notes, words):
    save_file(shipped, tmp_path / "mine.safetensors", metadata=notes)
    import_weights(tmp_path / "mine.safetensors", "mine")
    listed = run("list")
    assert listed.exit_code == 0, listed.output
    assert all(word in listed.output for word in words), listed.output


def test_what_shipped_weights_have_is_left_out_and_completed(shipped, tmp_path):
    """Notes come from files of others: a wrong name or sum is refused, not guessed."""
    tuned = {**shipped, "conv4_3.bias": shipped["conv4_3.bias"] + 0.5}
    data = pack_weights(tuned, {"trained_from": "off_the_shelf"}, "tuned")
    assert len(data) < 10_000
    path = tmp_path / "tuned.safetensors"
    path.write_bytes(data)
    imported = import_weights(path, "tuned")
    assert imported.path.stat().st_size < 10_000
    for name in (str(path), "tuned"):
        whole = load_weights(name)
        assert torch.equal(whole["conv4_3.bias"], tuned["conv4_3.bias"].half().float())
        assert torch.equal(whole["conv4_3.weight"], shipped["conv4_3.weight"])
    kept = {"conv4_3.bias": tuned["conv4_3.bias"]}
    for rest in ("off_the_shelf 0123", "other 0123", ""):
        save_file(kept, path, metadata={"rest": rest})
        with pytest.raises(D2RosError, match="does not ship; use the version"):
            read_checkpoint(path)
    save_file(kept, path)
    with pytest.raises(D2RosError, match="lack conv1_1"):
        read_checkpoint(path)


def test_command_verify_names_the_damaged_ones():
    import_weights(SHIPPED["off_the_shelf"][0], "copy").path.write_bytes(b"gone")
    result = run("verify")
    assert isinstance(result.exception, D2RosError)
    assert str(result.exception).startswith("weights copy failed")
    assert "off_the_shelf  verified" in result.output
    assert "damaged" in run("list").output
    assert "no weights named 'nope'" in str(run("verify", "nope").exception)
