"""Parameter files and ``name:=value`` texts, read as ROS reads them.

The commands are to act as the node would with the same file, so names of nodes, types of values and
precedence follow ROS's own ``rcl_yaml_param_parser`` and rclpy (ROS 2 Kilted), without needing ROS:

- a section counts for the node that its name matches; ``*`` is one part of a name, ``**`` any
  number; of those that match, later ones win, in the order in which their names first appear;
- a value's type is told by its text, as the C library's ``strtoll`` (base 0) and ``strtod`` do:
  ``1e1`` is a number and ``1_000`` a text, where PyYAML sees the opposite;
- anchors, sequences of mixed types and empty values are refused.

Two accidents of that parser are refused instead of repeated: a value given twice with different
types (there the type decides, not the order), and sequences in sequences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from d2_ros.errors import D2RosError

NODE = "d2_frontend"

_KEY = "ros__parameters"
_DEEPEST = 50

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, which ROS reads with as well

_TRUE = {"Y", "y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"}
_FALSE = {"N", "n", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"}
_INTEGER = re.compile(r"[ \t-\r]*([+-]?)(0[xX][0-9a-fA-F]+|[0-9]+)")
_DECIMAL = re.compile(r"[ \t-\r]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_HEXADECIMAL = re.compile(
    r"[ \t-\r]*[+-]?0[xX]([0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)([pP][+-]?[0-9]+)?"
)
_NOT_FINITE = re.compile(r"[ \t-\r]*([+-]?)(inf|infinity|nan(?:\([0-9A-Za-z_]*\))?)", re.IGNORECASE)
_DOTTED = {f"{sign}.{text}" for sign in ("", "+", "-") for text in ("inf", "Inf", "INF")} | {
    ".nan", ".NaN", ".NAN",
}  # fmt: skip
_SMALLEST_NORMAL = 2.2250738585072014e-308

_PART = r"[A-Za-z_][A-Za-z0-9_]*"
_NODE_NAME = re.compile(rf"/?(?:(?:\*\*?|{_PART})/)*(?:\*\*?|{_PART})")
_OVERRIDE = re.compile(
    rf"(?:(?P<node>{_PART}):(?!=))?(?P<name>{_PART}(?:[./]{_PART})*):=(?P<value>.*)", re.DOTALL
)
_OF_RCLPY = re.compile(r"use_sim_time|start_type_description_service|qos_overrides\..*")


def load_params_file(path: Path, name: str = NODE) -> dict[str, Any] | None:
    """Read what a ROS parameter file holds for the node `name`, by dotted names.

    The node is in the namespace that the file names it in, as ``/robot/d2_frontend`` does, without
    one otherwise. Parameters of rclpy itself, such as ``use_sim_time``, are left out.

    Returns
    -------
    None if no section of the file is for the node.

    Raises
    ------
    D2RosError
        If the file cannot be read, is not a ROS parameter file or names the node in several
        namespaces.
    """
    sections = read_sections(path)
    node = _node_of(sections, path, name)
    matching = [content for pattern, content in sections.items() if _matches(pattern, node)]
    if not matching:
        return None
    values: dict[str, Any] = {}
    for content in matching:
        values.update(content)
    return {key: value for key, value in values.items() if not _OF_RCLPY.fullmatch(key)}


def read_sections(path: Path) -> dict[str, dict[str, Any]]:
    """Read a ROS parameter file: names of nodes, as they are spelled, to dotted names to values.

    Raises
    ------
    D2RosError
        If the file cannot be read or is not a ROS parameter file.
    """
    sections: dict[str, dict[str, Any]] = {}
    try:
        group = read_group(path)
    except D2RosError as error:
        raise D2RosError(f"parameter file {path} cannot be read: {error}") from None
    try:
        for name, content in _sections("", group):
            _fill(sections.setdefault(name, {}), dotted(content))
    except D2RosError as error:
        raise D2RosError(f"parameter file {path} {error}; see config/frontend.yaml") from None
    return sections


def parse_override(text: str) -> tuple[str, Any]:
    """Return name and value of a ``name:=value`` or ``d2_frontend:name:=value``.

    Raises
    ------
    D2RosError
        If the text is not of that form, is for another node, or the value is not YAML.
    """
    found = _OVERRIDE.fullmatch(text)
    if found is None:
        raise D2RosError(f"-p {text} is not of the form name:=value")
    if found["node"] not in (None, NODE):
        raise D2RosError(f"-p {text} is for a node {found['node']}; the one here is {NODE}")
    try:
        return found["name"], parse_value(found["value"])
    except D2RosError as error:
        reason = str(error).partition(" in line ")[0]
        raise D2RosError(f"-p {text} has a value that cannot be read: {reason}") from None


def parse_value(text: str) -> Any:
    """Return a value of ``-p``: a scalar or a sequence in YAML, typed as ROS does it.

    Raises
    ------
    D2RosError
        If it is not.
    """
    documents = _documents(text)
    if len(documents) != 1 or isinstance(documents[0], Group):
        raise D2RosError("it is neither a value nor a list of values")
    return documents[0]


class Group(list[tuple[str, Any]]):
    """A YAML mapping: names and what they stand for, in order; a sequence is a plain list."""


def read_group(path: Path) -> Group:
    """Read a YAML file of nested groups, values typed as ROS does it; of several documents all.

    Raises
    ------
    D2RosError
        With the reason alone, if the file cannot be read or is not made of groups.
    """
    try:
        documents = _documents(path.read_bytes())
    except OSError as error:
        raise D2RosError(f"{error.strerror}") from None
    whole = Group()
    for document in documents:
        if document in ("~", "null"):
            continue
        if not isinstance(document, Group):
            raise D2RosError("it is not made of names and what belongs to them")
        whole += document
    return whole


def dotted(group: Group, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested groups by their dotted names.

    Raises
    ------
    D2RosError
        If a group is empty.
    """
    for name, content in group:
        if isinstance(content, Group):
            if not content:
                raise D2RosError(f"group {prefix}{name} is empty")
            yield from dotted(content, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", content


def _documents(text: str | bytes) -> list[Any]:
    """Return the content of every YAML document: group, list or value."""
    events = yaml.parse(text, _LOADER)
    documents = []
    try:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents.append(_read(next(events), events, 0))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}" if mark else ""
        raise D2RosError(f"{error.problem or error.context}{place}") from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise D2RosError(str(error).splitlines()[0]) from None
    return documents


def _read(event: Any, events: Iterator[Any], depth: int) -> Any:
    """Return what begins with `event`."""
    place = f"in line {event.start_mark.line + 1}"
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event)
    if isinstance(event, yaml.AliasEvent):
        raise D2RosError(f"an alias of an anchor stands {place}; ROS does not read such")
    if depth > _DEEPEST:
        raise D2RosError(f"groups are nested too deeply {place}")
    if isinstance(event, yaml.SequenceStartEvent):
        return _sequence(events, place)
    group = Group()
    while not isinstance(key := next(events), yaml.MappingEndEvent):
        if not isinstance(key, yaml.ScalarEvent) or not key.value:
            raise D2RosError(f"a key is no name in line {key.start_mark.line + 1}")
        group.append((key.value, _read(next(events), events, depth + 1)))
    return group


def _sequence(events: Iterator[Any], place: str) -> list[Any]:
    items: list[Any] = []
    while not isinstance(event := next(events), yaml.SequenceEndEvent):
        if not isinstance(event, yaml.ScalarEvent):
            raise D2RosError(f"a list holds more than plain values {place}")
        items.append(_scalar(event))
    if len({type(item) for item in items}) > 1:
        raise D2RosError(f"a list holds values of several types {place}")
    return items


def _scalar(event: yaml.ScalarEvent) -> bool | int | float | str:
    text = event.value
    if event.style not in ("'", '"'):
        if not text:
            raise D2RosError(f"there is no value in line {event.start_mark.line + 1}")
        if event.tag != "tag:yaml.org,2002:str":
            return _typed(text)
    return str(text)


def _typed(text: str) -> bool | int | float | str:
    """Return an unquoted text as what it means."""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    found = _INTEGER.fullmatch(text)
    if found and len(text) < 100:
        sign, digits = found.groups()
        octal = len(digits) > 1 and digits.isdigit() and digits[0] == "0"
        if not (octal and set(digits) & {"8", "9"}):
            value = int(sign + digits, 8 if octal else 16 if digits[1:2] in ("x", "X") else 10)
            if -(2**63) <= value < 2**63:
                return value
    number = _number(text)
    return text if number is None else number


def _number(text: str) -> float | None:
    """Return what ``strtod`` makes of all of `text`, None where it fails or leaves the range."""
    if text in _DOTTED:
        return float(text.replace(".", ""))
    if found := _NOT_FINITE.fullmatch(text):
        return float(found[1] + found[2][:3])
    if _DECIMAL.fullmatch(text):
        value = float(text)
        zero = not re.search("[1-9]", re.split("[eE]", text)[0])
    elif _HEXADECIMAL.fullmatch(text):
        try:
            value = float.fromhex(text.strip())
        except OverflowError:
            return None
        zero = not re.search("[1-9a-fA-F]", re.split("[pP]", text)[0].replace("0x", ""))
    else:
        return None
    in_range = abs(value) != float("inf") and abs(value) >= _SMALLEST_NORMAL
    return value if in_range or zero else None


def _sections(name: str, group: Group) -> Iterator[tuple[str, Group]]:
    """Yield every node's name and its parameters."""
    for key, content in group:
        if not isinstance(content, Group):
            raise D2RosError(f"has no {_KEY} under {name or key!r}")
        if key != _KEY:
            yield from _sections(f"{name}{'' if name in ('', '/') else '/'}{key}", content)
        elif not _NODE_NAME.fullmatch(name):
            raise D2RosError(f"has {_KEY} under {name!r}, which is no name of a node")
        else:
            yield name, content


def _fill(values: dict[str, Any], found: Iterator[tuple[str, Any]]) -> None:
    """Put what was found into `values`; later ones win."""
    for name, value in found:
        if name in values and type(values[name]) is not type(value):
            raise D2RosError(f"gives {name} twice, as {values[name]!r} and as {value!r}")
        values[name] = value


def _node_of(sections: Mapping[str, Any], path: Path, node: str) -> str:
    """Return the full name under which the file knows the node."""
    known = {"/" + name.lstrip("/") for name in sections}
    named = sorted(name for name in known if name.endswith(f"/{node}") and "*" not in name)
    if f"/{node}" in named or not named:
        return f"/{node}"
    if len(named) > 1:
        raise D2RosError(
            f"parameter file {path} knows the node as {' and '.join(named)}; a command needs a "
            "file with one of them"
        )
    return named[0]


def _matches(pattern: str, node: str) -> bool:
    forms = {"**": r"(/\w+)*", "*": r"/\w+"}
    parts = pattern.lstrip("/").split("/")
    return bool(re.fullmatch("".join(forms.get(part, f"/{part}") for part in parts), node))
