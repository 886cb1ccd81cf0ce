"""Parameters: every range, every refusal, and the YAML file of the node."""

import dataclasses
import math

import pytest

from d2_ros.commands.common import load_config
from d2_ros.config import RENAMED_VALUES, Config, parameters, with_values
from d2_ros.errors import D2RosError

ALL = list(parameters())
RANGED = [p for p in ALL if p.low is not None]
CHOSEN = [p for p in ALL if p.choices]


def by_name(entries):
    return pytest.mark.parametrize("parameter", entries, ids=lambda p: p.name)


def value_of(config, name):
    return next(p.default for p in parameters(config) if p.name == name)


@by_name(ALL)
def test_every_parameter_is_documented_and_its_default_is_valid(parameter):
    assert parameter.description.endswith(".")
    assert parameter.check(parameter.default) == parameter.default
    assert isinstance(parameter.default, (bool, int, float, str, tuple))


@by_name([p for p in ALL if type(p.default) in (int, float)])
def test_every_number_has_a_range(parameter):
    assert parameter.low < parameter.high
    assert math.isfinite(parameter.low)
    assert math.isfinite(parameter.high)


@by_name(RANGED)
def test_bounds_belong_to_the_range_and_what_lies_beyond_is_refused(parameter):
    kind = type(parameter.default)
    low, high = kind(parameter.low), kind(parameter.high)
    for value in (low, high):
        assert value_of(with_values(Config(), {parameter.name: value}), parameter.name) == value
    if kind is int:
        outside = [low - 1, high + 1]
    else:
        outside = [math.nextafter(low, -math.inf), math.nextafter(high, math.inf)]
        outside += [math.nan, math.inf, -math.inf]
    for value in outside:
        with pytest.raises(D2RosError) as refusal:
            with_values(Config(), {parameter.name: value})
        for part in (parameter.name, repr(value), f"{low:g}"):
            assert part in str(refusal.value)


@by_name(CHOSEN)
def test_choices_are_kept_and_others_refused(parameter):
    for choice in parameter.choices:
        config = with_values(Config(), {parameter.name: choice})
        assert value_of(config, parameter.name) == choice
    with pytest.raises(D2RosError, match=f"{parameter.name}.*{parameter.choices[0]}"):
        with_values(Config(), {parameter.name: parameter.choices[0].upper() + "?"})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("window.size", 3.0, "an integer"),
        ("window.size", True, "an integer"),
        ("window.size", "3", "an integer"),
        ("alignment.max_move", "6", "a number"),
        ("alignment.max_move", False, "a number"),
        ("alignment.max_move", None, "a number"),
        ("refinement.enabled", 1, "true or false"),
        ("weights", 5, "a string"),
        ("cameras", "left", "a list of strings"),
    ],
)
def test_wrong_types_are_refused(name, value, expected):
    with pytest.raises(D2RosError) as refusal:
        with_values(Config(), {name: value})
    assert str(refusal.value) == f"parameter {name} is {value!r}; it must be {expected}"


def test_integers_serve_as_numbers():
    move = with_values(Config(), {"alignment.max_move": 3}).alignment.max_move
    assert move == 3.0
    assert isinstance(move, float)


@pytest.mark.parametrize("name", ["windowsize", "window", "window.", "window.size.x", "", "Device"])
def test_unknown_names_are_refused(name):
    with pytest.raises(D2RosError, match=r"unknown parameter .*doctor --parameters"):
        with_values(Config(), {name: 1})


def test_a_refused_value_leaves_the_configuration_as_it_was():
    config = Config()
    with pytest.raises(D2RosError):
        with_values(config, {"window.size": 5, "window.min_parallax": -1.0})
    assert config == Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.window.size = 5


def test_an_old_name_of_a_value_is_taken_for_one_version_with_a_warning(capsys):
    assert load_config(None, ["alignment.mode:=grey"]).alignment.mode == "gray"
    assert capsys.readouterr().err == (
        "parameter alignment.mode: grey is now called gray; the next version refuses grey\n"
    )
    assert load_config(None, ["alignment.mode:=gray"]).alignment.mode == "gray"
    assert not capsys.readouterr().err


def test_an_old_name_in_a_parameter_file_is_taken_as_well(tmp_path, capsys):
    path = tmp_path / "old.yaml"
    path.write_text("/**:\n  ros__parameters:\n    alignment:\n      mode: grey\n")
    assert load_config(path, None).alignment.mode == "gray"
    assert "now called gray" in capsys.readouterr().err


def test_every_old_name_leads_to_a_value_that_is_allowed_and_is_none_itself():
    known = {parameter.name: parameter for parameter in parameters()}
    for (name, old), new in RENAMED_VALUES.items():
        assert known[name].check(new) == new
        with pytest.raises(D2RosError, match=name):
            known[name].check(old)
