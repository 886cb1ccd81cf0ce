"""Parameter files and name:=value as ROS reads them; test/node asks ROS itself."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2_ros.config import Config, parameters, with_values
from d2_ros.errors import D2RosError
from d2_ros.parameter_files import load_params_file, parse_override, parse_value

ALL = list(parameters())


def nested(values):
    """The tree that a ROS parameter file holds: dotted names as nested mappings."""
    tree = {}
    for name, value in values.items():
        *groups, leaf = name.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[leaf] = list(value) if isinstance(value, tuple) else value
    return tree


def valid_value(parameter):
    if parameter.choices:
        return st.sampled_from(parameter.choices)
    if isinstance(parameter.default, bool):
        return st.booleans()
    if isinstance(parameter.default, int):
        return st.integers(int(parameter.low), int(parameter.high))
    if isinstance(parameter.default, float):
        return st.floats(parameter.low, parameter.high, allow_subnormal=False)
    if isinstance(parameter.default, tuple):
        return st.lists(st.text("abcxyz_019", min_size=1), max_size=4).map(tuple)
    return st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=30)


def read(tmp_path, text):
    path = tmp_path / "p.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_params_file(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_valid_values_survive_the_yaml_file(data, tmp_path_factory):
    chosen = data.draw(st.lists(st.sampled_from(ALL), unique_by=lambda p: p.name))
    values = {p.name: data.draw(valid_value(p), label=p.name) for p in chosen}
    path = tmp_path_factory.mktemp("yaml") / "p.yaml"
    path.write_text(json.dumps({"d2_frontend": {"ros__parameters": nested(values)}}))
    assert with_values(Config(), load_params_file(path)) == with_values(Config(), values)


def test_dotted_names_groups_and_what_belongs_to_rclpy(tmp_path):
    text = (
        "/**:\n  ros__parameters:\n    use_sim_time: true\n    window.size: 4\n"
        "    start_type_description_service: false\n"
        "    features: {max_keypoints: 500}\n"
        "    qos_overrides: {/camera/image_raw: {subscription: {depth: 3}}}\n"
    )
    assert read(tmp_path, text) == {"window.size": 4, "features.max_keypoints": 500}


SECTION = "  ros__parameters: {x: %d}\n"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["d2_frontend"], 0),
        (["/d2_frontend"], 0),
        (["/robot/d2_frontend"], 0),
        (["camera_driver", "d2_frontend", "/nav/planner"], 1),
        (["/**"], 0),
        (["**"], 0),
        (["*"], 0),
        (["/*"], 0),
        (["/**/d2_frontend"], 0),
        (["/*/d2_frontend"], None),  # the node has no namespace
        (["/robot/d2_frontend", "/robot/*"], 1),
        (["/robot/d2_frontend", "/*/d2_frontend"], 1),
        (["/robot/d2_frontend", "/*"], 0),
        (["d2_frontend", "/robot/d2_frontend"], 0),
        (["/**", "d2_frontend"], 1),
        (["d2_frontend", "/**"], 1),  # the later one, not the more exact one
        (["camera_driver"], None),
        (["/robot/*"], None),
        (["d2_frontend2", "my_d2_frontend"], None),
    ],
)
def test_sections_that_match_the_node_count_in_their_order(tmp_path, names, expected):
    text = "".join(f"'{name}':\n{SECTION % n}" for n, name in enumerate(names))
    assert read(tmp_path, text) == (None if expected is None else {"x": expected})


def test_a_namespace_may_be_a_group_and_documents_add_up(tmp_path):
    text = (
        "robot:\n  d2_frontend:\n    ros__parameters: {a: 1}\n---\n/**: {ros__parameters: {b: 2}}"
    )
    assert read(tmp_path, text) == {"a": 1, "b": 2}
    assert read(tmp_path, "# all of it is commented out\n") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e1", 10.0), ("1.5", 1.5), (".5", 0.5), ("5.", 5.0), ("1_000", "1_000"), ("1:30", "1:30"),
        ("0x10", 16), ("010", 8), ("08", 8.0), ("0b11", "0b11"), ("+5", 5), ("-3", -3),
        ("9223372036854775807", 2**63 - 1), ("9223372036854775808", 2.0**63),
        ("1e999", "1e999"), ("1e-400", "1e-400"), ("0e-400", 0.0), ("1" * 5000, "1" * 5000),
        (".inf", math.inf), ("-inf", -math.inf), ("-.nan", "-.nan"), ("0x1p3", 8.0),
        ("0x0.0", 0.0), ("0x1p9999", "0x1p9999"),
        ("yes", True), ("y", True), ("Off", False), ("tRue", "tRue"), ("~", "~"), ("null", "null"),
        ("2001-01-01", "2001-01-01"), ("'5'", "5"), ("!!str 5", "5"), ('!!int "5"', "5"),
        ("a:=b", "a:=b"), ("a #c", "a"), ("[a, b]", ["a", "b"]), ("[1, 2]", [1, 2]), ("[]", []),
    ],
)  # fmt: skip
def test_values_have_the_type_that_ros_gives_them(text, value):
    read = parse_value(text)
    assert (type(read), read) == (type(value), value)


def test_nan_is_a_number():
    assert all(math.isnan(parse_value(text)) for text in ("nan", ".nan", ".NaN", "NAN(1)"))


@pytest.mark.parametrize(
    "text",
    ["", "#c", "[left, right", "@x", "%x", "`x", "{a: 1}", "a: b", "*x", "? a", "[a, 1]",
     "[[a], b]", "[a, {b: c}]", "-", "--- 1\n--- 2", '"\\ud800"', "[" * 100_000, "{a: " * 100_000],
)  # fmt: skip
def test_what_is_no_value_is_refused_in_a_sentence(text):
    with pytest.raises(D2RosError, match=r"^-p a:=") as refusal:
        parse_override(f"a:={text}")
    assert refusal.value.args[0].count("\n") == text.count("\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("window.size:=3", ("window.size", 3)),
        ("d2_frontend:window.size:=3", ("window.size", 3)),
        ("weights:=/a/b:=c.pth", ("weights", "/a/b:=c.pth")),
    ],
)
def test_overrides(text, expected):
    assert parse_override(text) == expected


@pytest.mark.parametrize(
    "text", ["", ":=", ":=1", "a", "a=1", "a b:=1", "1a:=1", "a-b:=1", "a..b:=1"]
)
def test_texts_that_are_no_override_are_refused(text):
    with pytest.raises(D2RosError, match="not of the form name:=value"):
        parse_override(text)


def test_an_override_for_another_node_is_refused():
    with pytest.raises(D2RosError, match="for a node camera; the one here is d2_frontend"):
        parse_override("camera:fps:=30")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"just words", "not made of names"),
        (b"- a\n- list\n", "not made of names"),
        (b"d2_frontend: 3\n", "no ros__parameters under 'd2_frontend'"),
        (b"d2_frontend: {window.size: 3}\n", "no ros__parameters under 'd2_frontend'"),
        (b"cam: 1\nd2_frontend: {ros__parameters: {a: 1}}\n", "no ros__parameters under 'cam'"),
        (b"d2_frontend: {ros__parameters: [1]}\n", "no ros__parameters under"),
        (b"ros__parameters: {a: 1}\n", "under '', which is no name of a node"),
        (b"d2 frontend: {ros__parameters: {a: 1}}\n", "'d2 frontend', which is no name"),
        (b"//d2_frontend: {ros__parameters: {a: 1}}\n", "which is no name of a node"),
        (b"a: [unclosed\n", "line"),
        (b"a:\n\tb: 1\n", "line"),
        (b"\xff\xfe\x00binary", "cannot be read"),
        (b"\x00", "cannot be read"),
        (b"d2_frontend: {ros__parameters: {a: }}\n", "no value in line 1"),
        (b"d2_frontend: {ros__parameters: {a: {}}}\n", "group a is empty"),
        (b"d2_frontend: {ros__parameters: {a: [1, x]}}\n", "several types in line 1"),
        (b"d2_frontend: {ros__parameters: {a: [[1]]}}\n", "more than plain values"),
        (b"d2_frontend: {ros__parameters: {a: 1, a: x}}\n", "gives a twice, as 1 and as 'x'"),
        (b"x: &q {ros__parameters: {a: 1}}\nd2_frontend: *q\n", "alias of an anchor"),
        (b"{d2_frontend: {ros__parameters: {[a]: 1}}}\n", "a key is no name"),
        (b"{a: " * 100_000, "nested too deeply"),
        (b"/a/d2_frontend: {ros__parameters: {a: 1}}\n/b/d2_frontend: {ros__parameters: {a: 1}}\n",
         "knows the node as /a/d2_frontend and /b/d2_frontend"),
    ],
)  # fmt: skip
def test_files_that_ros_does_not_read_are_refused_by_name(tmp_path, content, words):
    with pytest.raises(D2RosError, match=r"p\.yaml") as refusal:
        read(tmp_path, content)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_absent_files_and_folders_are_refused_by_name(tmp_path):
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(D2RosError, match=path.name):
            load_params_file(path)


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=60) | st.text("{}[]:,-#&*!|>'\"%@` \n\tab01.~", max_size=60))
def test_no_file_ends_in_anything_but_values_or_a_sentence(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    sentence = ""
    try:
        load_params_file(path)
    except D2RosError as error:
        sentence = str(error)
    assert not sentence or "any.yaml" in sentence
    assert "\n" not in sentence


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=40) | st.text("[]{}:=,-#&*!|>'\"%@` \nab01.~", max_size=40))
def test_no_override_ends_in_anything_but_a_value_or_a_sentence(text):
    for override in (text, f"a:={text}"):
        try:
            said, _ = parse_override(override)
        except D2RosError as error:
            said = str(error)
        assert said
