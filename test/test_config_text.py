from __future__ import annotations

from pathlib import Path

import pytest

from d2_ros import config_text
from d2_ros.config import Config, check_config, parameters, with_values
from d2_ros.mapper.config import MapperConfig
from d2_ros.parameter_files import load_params_file
from d2_ros.tracks.policy import may_follow

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", config_text.FILES)
def test_generated_files_are_up_to_date(name: str) -> None:
    text = getattr(config_text, config_text.FILES[name])()
    assert (ROOT / name).read_text(encoding="utf-8") == text, "run python -m d2_ros.config_text"


def test_the_yaml_holds_every_parameter_at_its_default_after_a_comment() -> None:
    values = load_params_file(ROOT / "config" / "frontend.yaml")
    defaults = {
        p.name: list(p.default) if isinstance(p.default, tuple) else p.default for p in parameters()
    }
    assert values == defaults
    lines = (ROOT / "config" / "frontend.yaml").read_text(encoding="utf-8").splitlines()
    for parameter in parameters():
        key = parameter.name.rpartition(".")[2] + ":"
        places = [n for n, line in enumerate(lines) if line.strip().startswith(key)]
        comments = [lines[n - 1] for n in places]
        assert any(parameter.description in comment for comment in comments)
        assert any(parameter.unit in comment for comment in comments)


def test_the_page_has_one_row_per_parameter() -> None:
    page = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    for parameter in parameters():
        rows = [line for line in page.splitlines() if line.startswith(f"| `{parameter.name}` ")]
        assert len(rows) == 1
        assert parameter.description in rows[0]
        assert parameter.range_text in rows[0]


OF_THE_FRONT_END = sorted({*(ROOT / "config").glob("*.yaml")} - {ROOT / "config" / "mapper.yaml"})


def test_the_mapper_s_yaml_holds_every_parameter_at_its_default() -> None:
    values = load_params_file(ROOT / "config" / "mapper.yaml", "d2_mapper")
    assert values == {p.name: p.default for p in parameters(MapperConfig())}


@pytest.mark.parametrize("path", OF_THE_FRONT_END, ids=lambda p: p.name)
def test_every_parameter_file_is_one_that_the_node_takes(path: Path) -> None:
    values = load_params_file(path)
    assert values
    check_config(with_values(Config(), values))


def test_the_preset_for_weak_computers_follows_and_every_line_of_it_changes_something() -> None:
    values = load_params_file(ROOT / "config" / "light.yaml")
    assert values is not None
    assert may_follow(with_values(Config(), values))
    defaults = {parameter.name: parameter.default for parameter in parameters()}
    assert all(defaults[name] != value for name, value in values.items())
    assert not {"runtime", "precision", "device"} & set(values)  # chosen by what the machine has
