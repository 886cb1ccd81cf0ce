"""package.xml, setup.py, the pins, README.md and .ci/run agree with each other and the code."""

import ast
import re
import runpy
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import d2_ros

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "d2_ros"
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULE_TO_DISTRIBUTION = {
    "cv2": "opencv-python-headless",
    "yaml": "PyYAML",
    "skimage": "scikit-image",
    "cv_bridge": "cv-bridge",
    "rerun": "rerun-sdk",
    "faiss": "faiss-cpu",
}


@pytest.fixture(scope="module")
def package_xml():
    return ElementTree.parse(ROOT / "package.xml").getroot()


@pytest.fixture(scope="module")
def setup_arguments():
    """What setup.py hands to setuptools."""
    setuptools = pytest.importorskip("setuptools")
    caught = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", caught.update)
        patch.chdir(ROOT)
        runpy.run_path("setup.py")
    return caught


def imported_roots(folder):
    roots = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                roots |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                roots.add(node.module.split(".")[0])
    return {root for root in roots if root not in sys.stdlib_module_names} - {"d2_ros"}


def is_ros(module):
    return module.endswith(("_msgs", "_interfaces", "_srvs")) or module in {
        "rclpy",
        "launch",
        "launch_ros",
        "ament_index_python",
    }


def test_one_name_version_and_licence(package_xml, setup_arguments):
    assert package_xml.get("format") == "3"
    assert package_xml.findtext("name") == setup_arguments["name"] == "d2_ros"
    assert package_xml.findtext("version") == setup_arguments["version"] == d2_ros.__version__
    assert package_xml.findtext("license") == setup_arguments["license"] == "Apache-2.0"
    assert package_xml.find("export").findtext("build_type") == "ament_python"
    assert (ROOT / package_xml.find("export").findtext("rosdoc2")).is_file()
    maintainer = package_xml.find("maintainer")
    assert maintainer.text == setup_arguments["maintainer"]
    assert maintainer.get("email") == setup_arguments["maintainer_email"]
    assert re.fullmatch(r"[\w.+-]+@([a-z0-9-]+\.)+[a-z]{2,}", maintainer.get("email"))
    assert "example" not in maintainer.get("email")
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()


def test_package_xml_names_every_ros_package_that_is_imported(package_xml):
    declared = {element.text for element in package_xml.findall("exec_depend")}
    imported = imported_roots(PACKAGE) | imported_roots(ROOT / "launch")
    assert {name for name in imported if is_ros(name)} - declared == set()
    assert {"rclpy", "cv_bridge", "sensor_msgs", "python3-numpy", "python3-opencv"} <= declared


def test_everything_imported_is_declared(setup_arguments):
    required = {canonicalize_name(Requirement(r).name) for r in setup_arguments["install_requires"]}
    pinned = {
        canonicalize_name(Requirement(r).name) for r in setup_arguments["extras_require"]["ros"]
    }
    for_training = {
        canonicalize_name(Requirement(r).name) for r in setup_arguments["extras_require"]["train"]
    }
    extras = {
        name: {
            canonicalize_name(Requirement(r).name) for r in setup_arguments["extras_require"][name]
        }
        for name in ("openvino", "onnxruntime", "mapping", "cluster", "view", "places")
    }
    for module in imported_roots(PACKAGE):
        name = canonicalize_name(MODULE_TO_DISTRIBUTION.get(module, module))
        if module in {"launch", "launch_ros"}:
            continue  # not on PyPI
        if is_ros(module):
            assert f"ros-{name}" in pinned, module
        elif module in {"cv_bridge", "skimage"}:
            assert name in pinned, module
        elif module in {"pycolmap", "h5py"}:  # imported where their files are read
            assert name in for_training, module
            assert name in extras["mapping"] or module == "h5py"
        elif module in {"ray", "rerun", "faiss"}:
            extra = {"ray": "cluster", "rerun": "view", "faiss": "places"}[module]
            assert name in extras[extra], module
        elif module in {"openvino", "nncf"}:
            assert name in extras["openvino"], module
        elif module in {"onnx", "onnxruntime"}:
            assert name in extras["onnxruntime"], module
        else:
            assert name in required, module


def test_pins_are_exact_complete_and_satisfy_the_package(setup_arguments):
    for extra in set(setup_arguments["extras_require"]):
        pins = [Requirement(line) for line in setup_arguments["extras_require"][extra]]
        assert all(re.fullmatch(r"==[^*]+", str(pin.specifier)) for pin in pins)
    ros = {
        canonicalize_name(Requirement(line).name): str(Requirement(line).specifier)[2:]
        for line in setup_arguments["extras_require"]["ros"]
    }
    assert ros["torch"] == "2.13.0"
    for line in setup_arguments["install_requires"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(ros[canonicalize_name(requirement.name)]), line


def test_requirements_of_the_package_and_of_a_robot_never_pin(setup_arguments):
    lines = (ROOT / "requirements" / "robot.txt").read_text().splitlines()
    robot = [line for line in lines if line and not line.startswith("#")]
    assert set(robot) <= set(setup_arguments["install_requires"])
    assert not [r for r in setup_arguments["install_requires"] if "==" in r]
    # The machine's own: see README.md, "On a robot".
    assert not [r for r in robot if re.match("torch|numpy|opencv", r)]


def test_everything_is_installed(setup_arguments):
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    packages = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(setup_arguments["packages"]) == packages

    data = {
        target: [ROOT / file for file in files] for target, files in setup_arguments["data_files"]
    }
    assert all(file.is_file() for files in data.values() for file in files)
    marker = data["share/ament_index/resource_index/packages"]
    assert [path.name for path in marker] == ["d2_ros"]
    installed = {path for files in data.values() for path in files}
    wanted = [ROOT / "package.xml", *(ROOT / "launch").glob("*.py"), *(ROOT / "config").glob("*")]
    assert set(wanted) <= installed
    assert len(wanted) >= 5

    weights = setup_arguments["package_data"]["d2_ros.features"]
    shipped = {path for pattern in weights for path in (PACKAGE / "features").glob(pattern)}
    assert any(path.suffix == ".safetensors" for path in shipped)


def test_console_scripts_lead_somewhere(setup_arguments):
    scripts = dict(line.split(" = ") for line in setup_arguments["entry_points"]["console_scripts"])
    assert set(scripts) == {"d2-ros", "d2_frontend", "d2_mapper"}
    for target in scripts.values():
        module, function = target.split(":")
        tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
        assert function in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}


def test_ci_finds_exactly_one_test_command_in_the_readme():
    blocks = re.findall(r"^```bash\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    commands = [
        line for b in blocks for line in b.splitlines() if line.endswith("python -m pytest")
    ]
    assert len(commands) == 1
    assert commands[0].startswith(
        "python3 -m venv .venv && .venv/bin/pip install '.[ros,test,train,places]'"
    )
    assert "d2-ros demo" in blocks[0]  # the first command a newcomer sees


def test_links_of_the_documents_lead_somewhere():
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for document in documents:
        text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)", text):
            if not target.startswith(("http://", "https://")):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_notice_credits_the_weights_and_the_methods():
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for words in (
        "Karen Simonyan",
        "Andrew Zisserman",
        "Attribution 4.0",
        "Dusmanu",
        "Schönberger",
    ):
        assert words in notice
