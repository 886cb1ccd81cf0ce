"""What the ecosystem expects: security policy, RViz, names, quality of service."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import yaml
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_check_compatible
from rclpy.qos import QoSCompatibility as Compatibility

from d2_ros.node.frontend_node import FrontEndNode
from d2_ros.node.inputs import image_qos
from d2_ros.records import FEATURES

ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / "config" / "d2_frontend.policy.xml"
NAME = "d2_frontend"
MODES: list[dict[str, Any]] = [
    {"output__vins_format": "fusion", "output__descriptors": "uint8", "use_sim_time": True},
    {"input__compressed": True, "places__enabled": True},
]


def used(node: Any, observer: Any, graph: Any) -> dict[str, set[str]]:
    """Return what the node has in the graph, as another node sees it, names without namespace."""
    space = node.get_namespace()

    def ask(whom: Any) -> dict[str, set[str]]:
        found = {
            "publish": whom.get_publisher_names_and_types_by_node(NAME, space),
            "subscribe": whom.get_subscriber_names_and_types_by_node(NAME, space),
            "reply": whom.get_service_names_and_types_by_node(NAME, space),
        }
        return {kind: {name.removeprefix(space) for name, _ in found[kind]} for kind in found}

    own = ask(node)
    graph.wait(lambda: ask(observer) == own)
    return own


def test_the_security_policy_allows_exactly_what_the_node_uses(
    graph: Any, make_driver: Any, fake: Any
) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed (extra places)")
    observer = make_driver("unrelated")
    seen: dict[str, set[str]] = {"publish": set(), "subscribe": set(), "reply": set()}
    for number, mode in enumerate(MODES):
        given = [Parameter(name.replace("__", "."), value=value) for name, value in mode.items()]
        node = FrontEndNode(
            parameter_overrides=given, use_global_arguments=False, namespace=f"/mode_{number}"
        )
        graph.add(node)
        node.trigger_configure()
        node.trigger_activate()
        for kind, names in used(node, observer, graph).items():
            seen[kind] |= names
    (profile,) = ElementTree.parse(POLICY).getroot().iter("profile")
    assert profile.attrib == {"ns": "/", "node": NAME}
    allowed: dict[str, set[str]] = {"publish": set(), "subscribe": set(), "reply": set()}
    for group in profile:
        ((kind, verdict),) = group.attrib.items()
        assert verdict == "ALLOW"
        names = [str(entry.text).replace("~", f"/{NAME}") for entry in group]
        allowed[kind] |= {name if name.startswith("/") else f"/{name}" for name in names}
    assert {kind: allowed[kind] - seen[kind] for kind in ("publish", "subscribe")} == {
        "publish": set(),
        "subscribe": set(),
    }
    assert all(seen[kind] <= allowed[kind] for kind in seen)
    # Humble's nodes do not have this one yet.
    assert allowed["reply"] - seen["reply"] <= {f"/{NAME}/get_type_description"}


DISPLAYS = {
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
    "rviz_default_plugins/PointCloud2": "sensor_msgs/msg/PointCloud2",
}


def test_every_display_of_rviz_shows_a_topic_of_the_node(make_node: Any, fake: Any) -> None:
    config = yaml.safe_load((ROOT / "config" / "frontend.rviz").read_text(encoding="utf-8"))
    node = make_node()
    node.trigger_configure()
    topics = dict(node.get_publisher_names_and_types_by_node(NAME, "/"))
    displays = [
        display for display in config["Visualization Manager"]["Displays"] if "Topic" in display
    ]
    assert len(displays) >= 3
    for display in displays:
        topic = f"/{display['Topic']['Value']}"  # relative: launched in the node's namespace
        assert topics[topic] == [DISPLAYS[display["Class"]]]
        (offered,) = node.get_publishers_info_by_topic(topic)
        asked = QoSProfile(
            depth=display["Topic"]["Depth"],
            reliability=ReliabilityPolicy[display["Topic"]["Reliability Policy"].upper()],
            durability=DurabilityPolicy[display["Topic"]["Durability Policy"].upper()],
        )
        verdict, reason = qos_check_compatible(offered.qos_profile, asked)
        assert verdict != Compatibility.ERROR, reason
        if "Channel Name" in display:
            assert display["Channel Name"] in (FEATURES.names or ())


def test_names_follow_rep_144_and_the_rules_of_topics(make_node: Any, fake: Any) -> None:
    node = make_node(output__vins_format="mono", output__descriptors="uint8")
    node.trigger_configure()
    node.trigger_activate()
    assert re.fullmatch(r"[a-z][a-z0-9_]*", node.get_name())
    for topic, _ in node.get_publisher_names_and_types_by_node(NAME, "/"):
        assert re.fullmatch(r"(/[a-z][a-z0-9_]*)+", topic), topic


@pytest.mark.parametrize("offered", list(ReliabilityPolicy)[1:3])
def test_live_images_come_from_publishers_of_any_reliability(offered: Any) -> None:
    publisher = QoSProfile(depth=5, reliability=offered)
    assert qos_check_compatible(publisher, image_qos("live"))[0] != Compatibility.ERROR
    strict = qos_check_compatible(publisher, image_qos("replay"))[0]
    assert (strict == Compatibility.ERROR) == (offered == ReliabilityPolicy.BEST_EFFORT)


def test_nothing_that_runs_what_it_reads_is_in_the_package() -> None:
    for path in (ROOT / "d2_ros").rglob("*.py"):
        for item in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(item, ast.Import | ast.ImportFrom):
                modules = {alias.name for alias in item.names} | {getattr(item, "module", "")}
                assert not modules & {"pickle", "marshal", "shelve"}, path
            if isinstance(item, ast.Call):
                assert ast.unparse(item.func) not in {"eval", "exec", "os.system", "yaml.load"}
                assert not any(key.arg == "shell" for key in item.keywords), path
                if ast.unparse(item.func) == "torch.load":
                    assert "weights_only=True" in ast.unparse(item), path
