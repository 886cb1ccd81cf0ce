"""The layers of the package, and that all but the node works where ROS is absent."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "d2_ros"
MODULES = sorted(PACKAGE.rglob("*.py"))
ROS = ("rclpy", "cv_bridge", "std_srvs", "rcl_interfaces", "builtin_interfaces", "launch")
ROS += ("launch_ros", "ament_index_python", "rosbag2_py", "rosidl_runtime_py")

# Data flows to the right; each may import what stands left of it, and nothing right of it.
FLOW = ["features", "matching", "tracks", "refinement", "workers", "output"]
FLOW += ["extraction", "frontend", "node"]
# Beside the flow: the leaves that everyone may import, and those that only use the flow.
LEAVES = {"config", "camera", "distortion", "records", "errors", "timing", "machine_code"}
LEAVES |= {"parameter_files", "user_folders", "imu", "files", "two_view"}
ALLOWED = {
    **{name: LEAVES | set(FLOW[:index]) for index, name in enumerate(FLOW)},
    **{name: {"errors"} for name in LEAVES},
}
ALLOWED["camera"] |= {"distortion"}
ALLOWED["distortion"] |= {"machine_code"}
ALLOWED["vins"] = LEAVES
ALLOWED["published"] = {"camera"}
# What the topics lack, all users lack.
ALLOWED["export"] = {"records", "camera", "errors", "published"}
ALLOWED["viewer"] = ALLOWED["export"]
ALLOWED["mapper"] = {*ALLOWED["export"], "imu", "two_view"}
ALLOWED["places"] = LEAVES | {"features", "matching"}  # beside tracks, off the frame's path
# Plays and records; one topic; a second node; what is kept for good.
ALLOWED["node"] |= {"sources", "vins", "mapper", "places"}
ABOVE = {"node", "commands", "cli", "evaluation", "training", "frontend"}


def imports(path):
    """Yield the absolute dotted names that a module imports anywhere, in functions too."""
    package = [*path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def room(path):
    """The part of the package that a module belongs to: a folder, or a module at the top."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def rooms_used(path):
    used = {name.split(".")[1] for name in imports(path) if name.startswith("d2_ros.")}
    return {name for name in used if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()}


def name_of(path):
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_node_imports_ros(path):
    found = set(imports(path))
    ros = {n for n in found if n.split(".")[0] in ROS or n.split(".")[0].endswith("_msgs")}
    assert room(path) == "node" or not ros


@pytest.mark.parametrize("path", [p for p in MODULES if room(p) in ALLOWED], ids=name_of)
def test_no_room_imports_one_to_its_right(path):
    assert rooms_used(path) <= ALLOWED[room(path)] | {room(path)}


@pytest.mark.parametrize("path", [p for p in MODULES if room(p) == "sources"], ids=name_of)
def test_sources_know_nothing_of_what_reads_them(path):
    assert not rooms_used(path) & (ABOVE | set(FLOW))


def test_the_reader_of_imports_sees_them_all():
    # The tests above are worth what `imports` is worth.
    assert "d2_ros.errors.D2RosError" in set(imports(PACKAGE / "camera.py"))
    assert "d2_ros" in set(imports(PACKAGE / "commands" / "doctor.py"))
    assert any(n.startswith("rclpy") for p in MODULES if room(p) == "node" for n in imports(p))
    assert {room(path) for path in MODULES} >= set(FLOW) | LEAVES


def test_every_folder_with_modules_is_a_package():
    # find_packages would leave it out of the installation otherwise.
    assert [p for p in {m.parent for m in MODULES} if not (p / "__init__.py").exists()] == []


WITHOUT_ROS = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        root = name.split(".")[0]
        if root in {ros!r} or root.endswith("_msgs"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
for name in {names!r}:
    importlib.import_module(name)
print("imported")
"""


def dotted(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize(
    "names",
    [["d2_ros.frontend"], [dotted(path) for path in MODULES if room(path) != "node"]],
    ids=["frontend", "everything but the node"],
)
def test_works_where_ros_is_absent(names):
    code = WITHOUT_ROS.format(ros=ROS, names=names)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip().endswith("imported"), done.stderr
