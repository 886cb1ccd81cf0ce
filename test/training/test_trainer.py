"""Steps, validation, collapse, checkpoints and exported weights, on 64 px crops."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_safetensors

from d2_ros.config import Config
from d2_ros.errors import D2RosError
from d2_ros.features.extractor import Extractor
from d2_ros.features.mobile import MobileNetwork
from d2_ros.features.network import CHANNELS, Network, normalise
from d2_ros.features.weights import import_weights, load_weights, read_notes
from d2_ros.training.checkpoints import BEST, CHECKPOINT, Progress, export, load_checkpoint
from d2_ros.training.config import (
    DataConfig,
    OptimiserConfig,
    TrainingConfig,
    ValidationConfig,
)
from d2_ros.training.dataset import collate
from d2_ros.training.distributed import Process, joined
from d2_ros.training.pairs import Pair, grid
from d2_ros.training.trainer import COLLAPSE_STEPS, Trainer, as_used, check_losses, learning_rate
from d2_ros.training.validation import Accuracy, validate

CPU = torch.device("cpu")
ALONE = Process(0, 1, CPU)


class Silent:
    def __init__(self):
        self.steps, self.accuracies = [], []

    def stepped(self, step, parts):
        self.steps.append((step, parts["loss"]))

    def validated(self, step, accuracy):
        self.accuracies.append((step, accuracy))


@pytest.fixture
def config(photographs):
    return TrainingConfig(
        device="cpu",
        checkpoint_every=2,
        data=DataConfig(sources=(f"photos:{photographs}",), crop=64, points=64),
        optimiser=OptimiserConfig(steps=2, learning_rate=1e-4),
        validation=ValidationConfig(every=2, pairs=1),
    )


def changed(config, **groups):
    values = vars(config) | {
        name: group if not isinstance(group, dict) else type(vars(config)[name])(
            **(vars(vars(config)[name]) | group)
        )
        for name, group in groups.items()
    }  # fmt: skip
    return TrainingConfig(**values)


@pytest.fixture
def identical(photograph):
    """The same window twice: every match is right."""
    window = np.ascontiguousarray(photograph[60:156, 60:156])
    pixels = grid(96, 96, np.random.default_rng(0))
    return Pair(window, window, pixels, pixels)


def test_only_the_chosen_layers_change(config, tmp_path):
    before = load_weights("off_the_shelf")
    trainer = Trainer(changed(config, network={"layers": ("conv4_2", "conv4_3")}), tmp_path, ALONE)
    parts = trainer.step(collate([trainer.draws[0]]))
    assert set(parts) == {"loss", "positive", "negative"}
    after = trainer.network.state_dict()
    moved = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"conv4_2", "conv4_3"}


@pytest.mark.parametrize(
    ("layers", "words"), [((), "is empty"), (("conv9", "conv4_3"), "has conv9")]
)
def test_layers_that_are_none_are_named(config, tmp_path, layers, words):
    with pytest.raises(D2RosError, match=rf"network\.layers {words}; choose from conv1_1, .* all"):
        Trainer(changed(config, network={"layers": layers}), tmp_path, ALONE)


def test_a_student_learns_its_teachers_response(config, tmp_path):
    """From drawn weights; the mobile network is told from vgg16 by its weights alone."""
    student = {"weights": "", "backbone": "mobile", "layers": ("all",), "teacher": "off_the_shelf"}
    config = changed(config, network=student, optimiser={"steps": 2, "learning_rate": 1e-3})
    trainer = Trainer(config, tmp_path, ALONE)
    batch = collate([trainer.draws[0]])
    losses = [trainer.step(batch)["loss"] for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]
    again = Trainer(config, tmp_path, ALONE)
    assert again.step(batch)["loss"] == losses[0]  # drawn with the seed
    again.run(Silent())
    frontend = Extractor(Config(device="cpu", weights=str(tmp_path / BEST)))
    assert isinstance(frontend.network, MobileNetwork)
    assert isinstance(as_used(again.network), MobileNetwork)


@pytest.mark.parametrize("stride", [4, 8])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_repeating_one_pair_lowers_its_loss(config, tmp_path, stride, precision):
    config = changed(config, network={"stride": stride}, precision=precision)
    trainer = Trainer(config, tmp_path, ALONE)
    batch = collate([trainer.draws[0]])
    losses = [float(trainer.step(batch)["loss"]) for _ in range(6)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] - 0.02, losses


def test_training_at_stride_eight_is_used_at_stride_four():
    coarse = Network(8)
    coarse.load_state_dict(load_weights("off_the_shelf"))
    fine = as_used(coarse)
    assert (fine.stride, as_used(fine)) == (4, fine)
    assert torch.equal(fine.conv4_3.weight, coarse.conv4_3.weight)
    assert fine.conv4_3.dilation == (2, 2)


def test_identical_images_match_where_they_should(identical):
    network = Network()
    network.load_state_dict(load_weights("off_the_shelf"))

    def respond(images):
        return network(normalise(images, torch.float32)).response

    accuracy = validate(respond, [identical], 200)
    assert accuracy.mma_1px == accuracy.mma_3px == 1.0
    assert accuracy.matches > 10
    shifted = Pair(
        identical.first, identical.second, identical.pixels, identical.pixels + np.eye(2)[0] * 2
    )
    wrong = validate(respond, [shifted], 200)
    assert (wrong.mma_1px, wrong.mma_3px) == (0.0, 1.0)
    blank = np.zeros_like(identical.first)
    nothing = validate(respond, [Pair(blank, blank, *[identical.pixels] * 2)], 200)
    assert nothing == Accuracy(0.0, 0.0, 0.0, 0.0)


def test_collapse_is_told_and_stopped():
    at_margin = [1.0] * COLLAPSE_STEPS
    with pytest.raises(D2RosError, match="training collapsed: the loss stays at the margin, 1"):
        check_losses([0.8, *at_margin], 1.0)
    check_losses([0.8, *at_margin[1:]], 1.0)
    check_losses([*at_margin, 0.9], 1.0)
    check_losses(at_margin, 2.0)
    check_losses(at_margin, None)
    with pytest.raises(D2RosError, match=r"loss is nan at step 3; lower optimiser\.learning_rate"):
        check_losses([1.0, 1.0, float("nan")], 1.0)


def test_a_dead_network_is_a_collapse(config, tmp_path):
    trainer = Trainer(config, tmp_path, ALONE)
    with torch.no_grad():
        trainer.network.conv4_3.bias.fill_(-1e6)
    loss = trainer.step(collate([trainer.draws[0]]))["loss"]
    assert loss == pytest.approx(1.0, abs=1e-5)


def test_a_run_validates_saves_and_keeps_the_best(config, tmp_path):
    watcher = Silent()
    trainer = Trainer(config, tmp_path, ALONE)
    trainer.run(watcher)
    assert [step for step, _ in watcher.steps] == [1, 2]
    assert [step for step, _ in watcher.accuracies] == [0, 2]
    figures = trainer.progress.figures()
    assert figures["steps"] == 2
    assert figures["start.mma_3px"] == watcher.accuracies[0][1].mma_3px
    progress, states = load_checkpoint(tmp_path, config)
    assert progress == trainer.progress
    for name, value in trainer.network.state_dict().items():
        assert torch.equal(states["network"][name], value)
    assert {path.name for path in tmp_path.iterdir()} == {BEST, CHECKPOINT}


def test_training_ends_where_validation_stands_still(config, tmp_path, monkeypatch):
    shares = iter([0.3, 0.4, 0.2, 0.4, 0.9])
    monkeypatch.setattr(
        "d2_ros.training.trainer.validate", lambda *_: Accuracy(0.1, next(shares), 0.6, 9)
    )
    settings = {"optimiser": {"steps": 9}, "validation": {"every": 1, "patience": 2}}
    trainer = Trainer(changed(config, **settings), tmp_path, ALONE)
    monkeypatch.setattr(trainer, "step", lambda _: {"loss": 0.5})
    trainer.run(Silent())
    assert (trainer.progress.step, trainer.progress.best_step) == (3, 1)
    again = Trainer(changed(config, **settings), tmp_path, ALONE, resume=True)
    again.run(Silent())  # and stays ended
    assert again.progress.step == 3


def test_the_best_accuracy_is_kept():
    progress = Progress(losses=[2.0, 1.0])
    kept = []
    for step, share in enumerate([0.3, 0.5, 0.4]):
        progress.step = step
        kept.append(progress.add(Accuracy(0.1, share, 0.6, 9)))
    assert kept == [True, True, False]
    assert progress.best_step == 1
    figures = progress.figures()
    assert (figures["start.mma_3px"], figures["best.mma_3px"], figures["last.mma_3px"]) == (
        0.3, 0.5, 0.4,
    )  # fmt: skip
    assert (figures["loss_first_tenth"], figures["loss_last_tenth"]) == (2.0, 1.0)


def test_exported_weights_say_where_they_come_from(config, tmp_path, monkeypatch, photograph):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    state = load_weights("off_the_shelf")
    path = export(tmp_path, config, Progress(step=7, losses=[1.0]), state)
    notes = read_notes(path)
    assert notes["trained_from"] == "off_the_shelf"
    assert notes["data"].startswith("photos:")
    assert json.loads(notes["figures"])["steps"] == 7
    assert json.loads(notes["settings"])["data.crop"] == 64
    assert notes["commit"]
    imported = import_weights(path, "mine")
    assert read_notes(imported.path) == {**notes, "source": BEST}
    features = Extractor(Config(device="cpu", weights=str(path))).extract([photograph[:64, :64]])[0]
    assert features.descriptors.shape[1] == CHANNELS


def test_weights_that_were_trained_hold_what_was_trained(config, tmp_path):
    state = load_weights("off_the_shelf")
    state["conv4_3.bias"] = state["conv4_3.bias"] + 1
    path = export(tmp_path, config, Progress(step=7), state)
    assert set(load_safetensors(path.read_bytes())) == {"conv4_3.bias"}
    whole = load_weights(str(path))
    assert torch.equal(whole["conv4_3.bias"], state["conv4_3.bias"].half().float())
    assert all(torch.equal(whole[key], state[key]) for key in state if key != "conv4_3.bias")


@pytest.mark.parametrize(
    ("decay", "sizes"), [(False, [4e-5, 4e-5, 4e-5, 4e-5]), (True, [4e-5, 3e-5, 2e-5, 1e-5])]
)
def test_the_step_size_falls_to_zero_if_asked_to(decay, sizes):
    settings = OptimiserConfig(learning_rate=4e-5, steps=4, decay=decay)
    assert [learning_rate(settings, step) for step in range(4)] == pytest.approx(sizes)


def test_a_run_whose_step_size_falls_keeps_its_number_of_steps(config, tmp_path):
    falling = changed(config, optimiser={"decay": True})
    Trainer(falling, tmp_path, ALONE).run(Silent())
    with pytest.raises(D2RosError, match=r"optimiser\.steps is 9, but the run in .* made with 2"):
        load_checkpoint(tmp_path, changed(falling, optimiser={"steps": 9}))


def test_a_checkpoint_of_other_settings_is_refused(config, tmp_path):
    Trainer(config, tmp_path, ALONE).run(Silent())
    with pytest.raises(D2RosError, match=r"seed is 5, but the run in .* was made with 0"):
        load_checkpoint(tmp_path, changed(config, seed=5))
    assert load_checkpoint(tmp_path, changed(config, optimiser={"steps": 9}))[0].step == 2
    (tmp_path / CHECKPOINT).write_bytes(b"damaged")
    with pytest.raises(D2RosError, match="damaged or not of"):
        load_checkpoint(tmp_path, config)
    (tmp_path / CHECKPOINT).unlink()
    with pytest.raises(D2RosError, match="start without --resume"):
        load_checkpoint(tmp_path, config)


def test_a_batch_must_be_shared_out_evenly(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(D2RosError, match=r"optimiser\.batch is 3.* multiple of the 2 processes"),
        joined("cpu", 3),
    ):
        pass
