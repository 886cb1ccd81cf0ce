"""``d2-ros doctor``: what this machine can do, and what to do about each gap.

Imports nothing at the top that may be missing: this is the command for when something is.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

import d2_ros

PIP_NAMES = {
    "opencv": "opencv-python-headless<5",
    "onnxruntime": "onnx onnxruntime",
    "yaml": "PyYAML",
    "rclpy": "ros-rclpy ros-rmw-fastrtps-cpp",
    "messages": "ros-sensor-msgs ros-std-srvs ros-diagnostic-msgs ros-lifecycle-msgs "
    "ros-rosgraph-msgs",
    "cv_bridge": "cv-bridge",
    "rerun": "rerun-sdk",
    "faiss": "faiss-cpu",
}
APT_NAMES = {
    "rclpy": "rclpy",
    "messages": "common-interfaces ros-{distro}-lifecycle-msgs ros-{distro}-rosgraph-msgs",
    "cv_bridge": "cv-bridge",
    "launch_ros": "ros2launch",
}
OPTIONAL = {
    "matplotlib": "plots",
    "evo": "trajectory metrics",
    "scikit-image": "the textures of the synthetic sequence (demo, tests)",
    "openvino": "runtime openvino",
    "nncf": "runtime openvino with precision int8",
    "onnxruntime": "runtime onnxruntime",
    "pycolmap": "export colmap, evaluate reconstruction, training on COLMAP's models",
    "rerun": "view",
    "faiss": "places, evaluate places",
    "ray": "batch --cluster",
    "launch_ros": "ros2 launch; without it start the node as `d2_frontend`",
}
TIMEOUT_S = 120
SMALL_MEMORY_MIB = 2048
SMALL_BUFFER_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Finding:
    """One line of the report; `state` is ok, note (works, with a limit) or missing (required)."""

    name: str
    state: str
    found: str
    remedy: str = ""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("doctor")(doctor)


def doctor(
    # Not commands.common.Json: that module needs PyYAML, and this command must run without.
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the findings to this flat JSON file.")
    ] = None,
    parameters: Annotated[
        bool, typer.Option("--parameters", help="List every parameter instead.")
    ] = False,
    self_test: Annotated[
        bool,
        typer.Option(
            "--self-test", help="Instead hold every stage, on the GPU, against the CPU in fp32."
        ),
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="With --self-test: auto, cpu or cuda, what to test.")
    ] = None,
    params_file: Annotated[
        Path | None, typer.Option("--params-file", help="With --self-test: the node's parameters.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("-p", metavar="NAME:=VALUE", help="With --self-test: one parameter."),
    ] = None,
) -> None:
    """Say what this machine can do; exit code 1 if anything required is missing or wrong."""
    if parameters:
        typer.echo("\n".join(parameter_lines()))
        return
    if self_test:
        from d2_ros.commands.self_test import report

        raise typer.Exit(0 if report(device, params_file, overrides, json_file) else 1)
    if device or params_file or overrides:
        raise typer.BadParameter("--device, --params-file and -p go with --self-test only")
    if json_file:
        from d2_ros.commands.common import output_file, write_json

        output_file(json_file)
    findings = []
    for finding in examine():
        findings.append(finding)
        _print(finding)
    if json_file:
        write_json(json_file, to_figures(findings))
    missing = [finding.name for finding in findings if finding.state == "missing"]
    if missing:
        typer.echo(f"\nNot usable, though required: {', '.join(missing)}.")
        raise typer.Exit(1)
    typer.echo("\nEverything required is there.")


def examine() -> Iterator[Finding]:
    """Yield the findings in a fixed order, each as soon as it is known."""
    from d2_ros.commands.probes import PROBES

    yield python_version()
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield from pool.map(probe, PROBES)
    yield free_memory(Path("/proc/meminfo"))
    yield receive_buffer(Path("/proc/sys/net/core/rmem_max"))


def probe(name: str) -> Finding:
    """Run one probe in its own process; whatever happens there becomes a finding."""
    root = str(Path(d2_ros.__file__).parents[1])
    paths = [path for path in (os.environ.get("PYTHONPATH"), root) if path]
    try:
        child = subprocess.run(
            [sys.executable, "-m", "d2_ros.commands.probes", name],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return _gap(name, f"no answer within {TIMEOUT_S} s")
    if child.returncode < 0:
        return _gap(name, f"crashes Python (signal {-child.returncode})")
    if child.returncode > 0:
        return _gap(name, (child.stderr.strip().splitlines() or ["fails without a word"])[-1])
    found, limit = json.loads(child.stdout.strip().splitlines()[-1])
    if limit:
        return Finding(name, "note", found, limit)
    return Finding(name, "ok", found)


def _gap(name: str, reason: str) -> Finding:
    if name in OPTIONAL:
        return Finding(name, "note", reason, f"needed for {OPTIONAL[name]}; {remedy(name)}")
    return Finding(name, "missing", reason, remedy(name))


def remedy(name: str) -> str:
    """What to do about a library that is absent or unusable."""
    distro = os.environ.get("ROS_DISTRO")
    if name == "ros_logs":
        return "set ROS_LOG_DIR to a folder that can be written to; no node starts without"
    if name == "weights":
        return "install d2_ros again, and whatever is missing above"
    if name in ("gtsam", "cv_bridge", "torch") and (clash := numpy_clash(name)):
        return clash
    if distro and name in APT_NAMES:
        return f"sudo apt install ros-{distro}-{APT_NAMES[name].format(distro=distro)}"
    if name == "launch_ros":
        return "it comes with a ROS distribution, not from PyPI"
    return shlex.join([sys.executable, "-m", "pip", "install", *PIP_NAMES.get(name, name).split()])


def numpy_clash(name: str) -> str:
    """Advice if NumPy 2 is present and the library, also present, may be built for NumPy 1."""
    if importlib.util.find_spec(name) is None or not _installed("numpy").startswith("2"):
        return ""
    version = _installed({"cv_bridge": "cv-bridge"}.get(name, name)) or "of the distribution"
    return (
        f"{name} {version} may be built for NumPy 1, and NumPy {_installed('numpy')} is installed: "
        f"take a newer {name}, or {sys.executable} -m pip install 'numpy<2' in an environment of "
        "its own"
    )


def _installed(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def python_version() -> Finding:
    """Python itself: which one runs is worth knowing beside ROS."""
    return Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")


def free_memory(meminfo: Path) -> Finding:
    """Memory that programs can still take."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        mib = int(lines["MemAvailable"].split()[0]) // 1024
    except (OSError, KeyError, ValueError):
        return Finding("memory", "ok", "cannot be told on this system")
    if mib < SMALL_MEMORY_MIB:
        advice = "little for the network: close programs, or lower features.max_edge"
        return Finding("memory", "note", f"{mib} MiB available", advice)
    return Finding("memory", "ok", f"{mib} MiB available")


def receive_buffer(rmem_max: Path) -> Finding:
    """Largest UDP receive buffer: whole images from another machine must fit."""
    try:
        size = int(rmem_max.read_text())
    except (OSError, ValueError):
        return Finding("net_buffer", "ok", "cannot be told on this system")
    if size < SMALL_BUFFER_BYTES:
        advice = (
            "large images from other machines may be lost: sudo sysctl -w "
            "net.core.rmem_max=33554432 (nothing to do if camera and node share this machine)"
        )
        return Finding("net_buffer", "note", f"rmem_max is {size} bytes", advice)
    return Finding("net_buffer", "ok", f"rmem_max is {size} bytes")


def parameter_lines() -> Iterator[str]:
    """One line per parameter: name, default, range, unit and meaning."""
    from d2_ros.config import parameters

    for entry in parameters():
        default = list(entry.default) if isinstance(entry.default, tuple) else entry.default
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        kind = ", at run time" if entry.live else ""
        unit = f" {entry.unit}" if entry.unit else ""
        yield f"{entry.name}: {shown}{unit} ({entry.range_text}{kind}). {entry.description}"


def to_figures(findings: list[Finding]) -> dict[str, float | int | str]:
    """Flatten findings to ``<name>.state``, ``<name>.found`` and ``<name>.remedy``."""
    return {
        f"{finding.name}.{key}": getattr(finding, key)
        for finding in findings
        for key in ("state", "found", "remedy")
    }


def _print(finding: Finding) -> None:
    colour = {"ok": typer.colors.GREEN, "note": typer.colors.YELLOW, "missing": typer.colors.RED}
    state = typer.style(f"{finding.state:8}", fg=colour[finding.state])
    typer.echo(f"{finding.name:13} {state} {finding.found}")
    if finding.remedy:
        typer.echo(f"{'':13} -> {finding.remedy}")
