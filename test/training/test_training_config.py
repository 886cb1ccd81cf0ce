"""Settings of the training: one sentence for each that is not possible."""

import dataclasses

import pytest
import yaml

from d2_ros.config import parameters
from d2_ros.errors import D2RosError
from d2_ros.training.config import TrainingConfig, load_training_config, settings_text
from d2_ros.training.opening import open_pairs, split


def load(tmp_path, text, overrides=None):
    path = tmp_path / "train.yaml"
    path.write_text(text)
    return load_training_config(path, overrides)


def test_file_and_overrides_replace_defaults(tmp_path):
    text = "seed: 3\ndata: {sources: ['photos:a', synthetic], crop: 128}\nnetwork: {stride: 8}\n"
    config = load(tmp_path, text, {"seed": 4, "optimiser.learning_rate": 1})
    assert (config.seed, config.network.stride, config.data.crop) == (4, 8, 128)
    assert config.data.sources == ("photos:a", "synthetic")
    assert config.optimiser.learning_rate == 1.0
    assert config.loss == TrainingConfig().loss


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sead: 3", "unknown parameter sead; `d2-ros train --settings` lists the known ones"),
        ("data: {crops: 3}", "unknown parameter data.crops"),
        ("data: {crop: 3}", "data.crop is 3; it must be 64 to 1024"),
        ("data: {crop: many}", "data.crop is 'many'; it must be an integer"),
        ("network: {stride: 6}", "network.stride is 6; it must be 4 or 8"),
        ("network: {backbone: resnet}", "network.backbone is 'resnet'; it must be one of vgg16"),
        ("optimiser: {learning_rate: .nan}", "learning_rate is nan"),
        ("seed: 1", "data.sources is empty"),
        ("just text", "is not made of names"),
        ("data: {crop: &c 3, points: *c}", "alias of an anchor stands in line 1"),
        ("a: [", "cannot be read"),
    ],
)
def test_what_is_not_possible_is_named(tmp_path, text, words):
    with pytest.raises(D2RosError, match=words):
        load(tmp_path, text)


def test_numbers_are_those_of_parameter_files(tmp_path):
    config = load(tmp_path, "data: {sources: [synthetic]}\noptimiser: {learning_rate: 1e-4}\n")
    assert config.optimiser.learning_rate == 1e-4


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(D2RosError, match=r"none\.yaml cannot be read"):
        load_training_config(tmp_path / "none.yaml")


def test_the_printed_settings_are_the_defaults(tmp_path):
    text = settings_text()
    config = load(tmp_path, text, {"data.sources": ["synthetic"]})
    assert dataclasses.replace(config, data=TrainingConfig().data) == TrainingConfig()
    assert set(yaml.safe_load(text)) == {p.name.split(".")[0] for p in parameters(TrainingConfig())}
    assert all(p.description.endswith(".") for p in parameters(TrainingConfig()))


@pytest.mark.parametrize("name", ["", "photos", "photos:", "videos:a", "/some/folder"])
def test_sources_of_an_unknown_kind_are_named(name):
    with pytest.raises(D2RosError, match="is not understood; write KIND:PLACE"):
        open_pairs(name, "all", TrainingConfig())


def test_a_source_that_is_absent_is_named(tmp_path):
    with pytest.raises(D2RosError, match="absent"):
        open_pairs(f"photos:{tmp_path / 'absent'}", "all", TrainingConfig())


def test_the_parts_do_not_meet():
    training, validation = split(11, 0.2, "training"), split(11, 0.2, "validation")
    assert [*training, *validation] == list(split(11, 0.2, "all")) == list(range(11))
    assert len(validation) == 2
    assert len(split(11, 0.0, "validation")) == 0


def test_the_photographs_of_scikit_image_are_split(photographs):
    config = TrainingConfig()
    sizes = {part: len(open_pairs("photos:skimage", part, config))
             for part in ("training", "validation", "all")}  # fmt: skip
    assert sizes["training"] + sizes["validation"] == sizes["all"] == 11
    assert len(open_pairs(f"photos:{photographs}", "training", config)) == 4
