"""``config/*.yaml`` and ``docs/parameters.md``, written from the configurations.

``python -m d2_ros.config_text`` in a checkout writes the files anew.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from d2_ros.config import Config, Parameter, parameters
from d2_ros.mapper.config import MapperConfig

FILES = {
    "config/frontend.yaml": "as_yaml",
    "config/mapper.yaml": "mapper_yaml",
    "docs/parameters.md": "as_markdown",
}
"""Generated file, relative to the checkout -> the function here that returns its text."""

_FILES = """\
## Files

The commands read a parameter file as ROS does, so that one file serves both:

- A section counts if its name is that of the node, `d2_frontend`, with or without a namespace
  (`/robot/d2_frontend`), or matches it: `*` stands for one part of the name, `**` for any number.
  Of several that count, the later one wins, whichever is more exact (so in Kilted's rclpy; older
  ones know `/**` and the exact name only, and there the exact one wins). Sections for other nodes
  are passed over.
- A command takes the node to be in the namespace that the file knows it in, and refuses a file
  that knows it in several.
- `use_sim_time`, `qos_overrides` and what else belongs to rclpy is left to the node.
- An unquoted value is a truth value (`true`, `yes`, `on`, `y` and the like), an integer as in C
  (`16`, `0x10`, `020`), a number (`1.5`, `1e1`, `.inf`), or else a text; all values of a list are
  of one type; anchors are not read.
- `-p name:=value` wins over the file, always. ROS itself lets a section of the node's own name win
  that stands behind a section `/**` of the same file.
"""


def as_yaml() -> str:
    """Return a ROS parameter file with every parameter at its default."""
    lines = [
        "# Every parameter of d2_frontend at its default. Generated from d2_ros/config.py by",
        "# `python -m d2_ros.config_text`; copy it, keep what you change, and give your copy to",
        "# `ros2 launch d2_ros frontend.launch.py params_file:=...` or `d2-ros ... --params-file`.",
        "/**:",
        "  ros__parameters:",
    ]
    return "\n".join([*lines, *yaml_lines(Config(), " " * 4)]) + "\n"


def mapper_yaml() -> str:
    """Return a ROS parameter file with every parameter of the mapper at its default."""
    lines = [
        "# Every parameter of d2_mapper at its default. Generated from d2_ros/mapper/config.py by",
        "# `python -m d2_ros.config_text`; copy it, keep what you change, and give your copy to",
        "# `ros2 launch d2_ros mapper.launch.py params_file:=...` or `d2-ros map --params-file`.",
        "/**:",
        "  ros__parameters:",
    ]
    return "\n".join([*lines, *yaml_lines(MapperConfig(), " " * 4)]) + "\n"


def yaml_lines(config: Any, indent: str = "") -> list[str]:
    """Return every parameter of a configuration with its meaning, as lines of YAML."""
    lines = []
    for group, members in _groups(config):
        if group:
            lines.append(f"{indent}{group}:")
        inner = indent + "  " * bool(group)
        for parameter in members:
            lines.append(f"{inner}# {_sentence(parameter)}")
            lines.append(f"{inner}{parameter.name.removeprefix(group + '.')}: {_value(parameter)}")
    return lines


def as_markdown() -> str:
    """Return the reference page of all parameters."""
    lines = [
        "# Parameters",
        "",
        "Generated from `d2_ros/config.py` by `python -m d2_ros.config_text`. The node, `d2-ros",
        "replay` and every other command that runs the front-end know the same names: in a file",
        "([config/frontend.yaml](../config/frontend.yaml)) or as `-p name:=value`.",
        "",
        "*Live* parameters can be set while the node runs and count from its next frame on; the",
        "others are read-only after the start. A name or value that is not listed here is refused.",
        "",
        *_FILES.splitlines(),
    ]
    for group, members in _groups(Config()):
        lines += ["", f"## {group or 'General'}", ""]
        lines += ["| name | default | unit | range | live | meaning |", "|---|---|---|---|---|---|"]
        lines += [
            f"| `{parameter.name}` | `{_value(parameter)}` | {parameter.unit} "
            f"| {parameter.range_text} | {'yes' if parameter.live else ''} "
            f"| {parameter.description} |"
            for parameter in members
        ]
    return "\n".join(lines) + "\n"


def _groups(config: Any) -> list[tuple[str, list[Parameter]]]:
    """All parameters by the first part of their names; '' for those without a group."""
    by_group = groupby(parameters(config), key=lambda parameter: parameter.name.rpartition(".")[0])
    return [(group, list(members)) for group, members in by_group]


def _sentence(parameter: Parameter) -> str:
    """Description, unit and range in one line."""
    allowed = [] if parameter.range_text == "any" else [parameter.range_text]
    unit = [parameter.unit] if parameter.unit else []
    notes = ", ".join([*unit, *allowed, *(["live"] if parameter.live else [])])
    return f"{parameter.description} [{notes}]" if notes else parameter.description


def _value(parameter: Parameter) -> str:
    """Return the default in YAML, which is also what ``-p name:=value`` takes."""
    value = parameter.default
    if isinstance(value, tuple):
        value = list(value)
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("...\n").strip()


def main() -> None:
    """Write the files into the checkout that holds this package."""
    root = Path(__file__).resolve().parent.parent
    for name, function in FILES.items():
        (root / name).write_text(globals()[function](), encoding="utf-8")


if __name__ == "__main__":
    main()
