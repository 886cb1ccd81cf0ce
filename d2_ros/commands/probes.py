"""What ``d2-ros doctor`` tries out, each in its own process.

A library that is built against another NumPy can kill the process that imports it, so the doctor
runs ``python -m d2_ros.commands.probes NAME`` for each and survives. A probe returns what it
found and a limit worth knowing (or ""); any exception means that the thing is not usable.
ROS is asked for by name: outside d2_ros.node no module imports it.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

MESSAGES = (
    "builtin_interfaces",
    "diagnostic_msgs",
    "lifecycle_msgs",
    "rcl_interfaces",
    "rosgraph_msgs",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
)


def _version(module: Any, distribution: str, minimum: str, below: str = "") -> str:
    """Version of an imported module, checked; packages from apt may lack the metadata."""
    text = getattr(module, "__version__", "")
    try:
        text = text or metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown version"
    if _numbers(text) < _numbers(minimum) or (below and _numbers(text) >= _numbers(below)):
        bound = f" and below {below}" if below else ""
        raise RuntimeError(f"version {text} is installed; at least {minimum}{bound} is needed")
    return str(text).lstrip("v")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:2])


def library(name: str, distribution: str, minimum: str) -> Callable[[], tuple[str, str]]:
    """Probe that imports a module and looks at its version only."""

    def probe() -> tuple[str, str]:
        return _version(importlib.import_module(name), distribution, minimum), ""

    return probe


def torch() -> tuple[str, str]:
    """Version and device, which must be able to add, and what ``precision: auto`` is there."""
    import torch

    from d2_ros.features.device import auto_precision, cpu_flags

    chosen = auto_precision("cuda" if torch.cuda.is_available() else "cpu", cpu_flags())
    auto = f"precision auto is {chosen.name}: {chosen.reason}"
    version = _version(torch, "torch", "2.2")
    (torch.ones(2) + 1).numpy()  # fails where torch was built for another NumPy
    if torch.cuda.is_available():
        (torch.ones(2, device="cuda") + 1).cpu()
        return f"{version}, CUDA {torch.version.cuda} on {torch.cuda.get_device_name()}; {auto}", ""
    if torch.version.cuda:
        return (
            f"{version}; {auto}",
            f"built for CUDA {torch.version.cuda}, but finds no GPU: runs on the CPU",
        )
    if shutil.which("nvidia-smi"):
        return f"{version}; {auto}", "a build without CUDA on a machine that seems to have a GPU"
    return f"{version}, on the CPU; {auto}", ""


def openvino() -> tuple[str, str]:
    """Version, and whether ``runtime: auto`` takes it."""
    from d2_ros.config import Config
    from d2_ros.features.runtime import plan

    version = _version(importlib.import_module("openvino"), "openvino", "2024.0")
    chosen = plan(Config(device="cpu"))
    taken = f"runtime auto is {chosen.runtime}, precision {chosen.precision}, on this CPU"
    return f"{version}; {taken}", ""


def opencv() -> tuple[str, str]:
    """Version, rival distributions, and whether videos can be written."""
    import cv2
    import numpy as np

    version = _version(cv2, "opencv-python-headless", "4.5", "5")
    names = {str(dist.metadata["Name"]).lower() for dist in metadata.distributions()}
    rivals = sorted(name for name in names if re.fullmatch(r"opencv(-contrib)?-python.*", name))
    if len(rivals) > 1:
        return version, f"{' and '.join(rivals)} overwrite each other; uninstall all but one"
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "test.mp4")
        writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 64))
        for _ in range(3):
            writer.write(np.zeros((64, 64, 3), np.uint8))
        writer.release()
        if not cv2.VideoCapture(path).read()[0]:
            return version, "cannot write mp4: overlays are left as PNG files"
    return f"{version}, writes mp4", ""


def gtsam() -> tuple[str, str]:
    """Version, and a small problem solved."""
    import gtsam
    import numpy as np

    version = _version(gtsam, "gtsam", "4.2")
    graph, values = gtsam.NonlinearFactorGraph(), gtsam.Values()
    noise = gtsam.noiseModel.Isotropic.Sigma(2, 1.0)
    graph.add(gtsam.PriorFactorPoint2(0, np.array([1.0, 2.0]), noise))
    values.insert(0, np.zeros(2))
    solved = gtsam.LevenbergMarquardtOptimizer(graph, values).optimize().atPoint2(0)
    if not np.allclose(solved, [1.0, 2.0]):
        raise RuntimeError(f"{version} solved a problem wrongly: {solved} instead of [1. 2.]")
    return version, ""


def rclpy() -> tuple[str, str]:
    """The middleware in use, and a node created; where its logs go is another probe's affair."""
    rclpy = importlib.import_module("rclpy")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ROS_LOG_DIR"] = folder
        rclpy.init()
        try:
            rclpy.create_node("d2_ros_doctor").destroy_node()
        finally:
            rclpy.shutdown()
    return f"{rclpy.get_rmw_implementation_identifier()}, creates a node", ""


def ros_logs() -> tuple[str, str]:
    """The folder that ROS writes its logs to; without it no node starts (rcl_logging_interface)."""
    home = os.environ.get("ROS_HOME") or str(Path(os.environ.get("HOME", "")) / ".ros")
    folder = Path(os.environ.get("ROS_LOG_DIR") or Path(home) / "log")
    if folder.parts[:1] == ("~",):
        folder = Path(os.environ.get("HOME", ""), *folder.parts[1:])
    if not folder.is_absolute() and not os.environ.get("HOME"):
        raise RuntimeError("there is no home, so no folder for ROS's logs")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return str(folder), ""


def cv_bridge() -> tuple[str, str]:
    """An image to a message and back."""
    bridge = importlib.import_module("cv_bridge").CvBridge()
    import numpy as np

    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    back = bridge.imgmsg_to_cv2(bridge.cv2_to_imgmsg(image, "mono8"), "mono8")
    if not np.array_equal(image, back):
        raise RuntimeError("an image is changed on its way to a message and back")
    return "converts images", ""


def messages() -> tuple[str, str]:
    """All message packages of the node."""
    absent = []
    for name in MESSAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            absent.append(name)
    if absent:
        raise ImportError(f"no {', '.join(absent)}")
    return f"all {len(MESSAGES)} packages", ""


def weights() -> tuple[str, str]:
    """Every checkpoint known by name, against its checksum."""
    from d2_ros.errors import D2RosError
    from d2_ros.features.weights import SHIPPED, known_weights, verify_weights

    good, faults = [], []
    for file in known_weights():
        try:
            verify_weights(file.name)
            good.append(file.name)
        except D2RosError as error:
            if file.name in SHIPPED:
                raise
            faults.append(str(error))
    return f"verified: {', '.join(good)}", "; ".join(faults)


PROBES: dict[str, Callable[[], tuple[str, str]]] = {
    "numpy": library("numpy", "numpy", "1.21"),
    "opencv": opencv,
    "torch": torch,
    "gtsam": gtsam,
    "numba": library("numba", "numba", "0.57"),
    "safetensors": library("safetensors", "safetensors", "0.4"),
    "yaml": library("yaml", "PyYAML", "5.4"),
    "rich": library("rich", "rich", "12.0"),
    "scipy": library("scipy", "scipy", "1.8"),
    "rosbags": library("rosbags", "rosbags", "0.11"),
    "mcap": library("mcap", "mcap", "1.0"),
    "rclpy": rclpy,
    "ros_logs": ros_logs,
    "messages": messages,
    "cv_bridge": cv_bridge,
    "weights": weights,
    "matplotlib": library("matplotlib", "matplotlib", "3.5"),
    "evo": library("evo", "evo", "1.21"),
    "scikit-image": library("skimage", "scikit-image", "0.19"),
    "openvino": openvino,
    "nncf": library("nncf", "nncf", "2.9"),
    "onnxruntime": library("onnxruntime", "onnxruntime", "1.17"),
    "pycolmap": library("pycolmap", "pycolmap", "4.0"),
    "rerun": library("rerun", "rerun-sdk", "0.23"),
    "faiss": library("faiss", "faiss-cpu", "1.7.3"),
    "ray": library("ray", "ray", "2.9"),
    "launch_ros": library("launch_ros", "launch-ros", "0.19"),
}
"""By the name under which the doctor reports them."""


if __name__ == "__main__":
    # On its own line: libraries may print while they are imported.
    print("\n" + json.dumps(PROBES[sys.argv[1]]()))
