"""The node's and the cameras' state as ``diagnostic_msgs/DiagnosticArray``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from d2_ros.node.device import SharedDevice
from d2_ros.node.status import CameraStatus


def make_status(
    level: bytes,
    name: str,
    message: str,
    values: Mapping[str, object],
    node: str = "d2_frontend",
) -> DiagnosticStatus:
    """Return one entry of the array; `name` is ``node``, ``map`` or a camera."""
    return DiagnosticStatus(
        level=level,
        name=f"{node}: {name}",
        message=message,
        hardware_id=name,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )


def node_status(
    state: str, device: SharedDevice | None, weights: str, last_error: str
) -> DiagnosticStatus:
    """Return the node's own entry: an error if a transition failed, a warning on a fallback."""
    complaint = device.complaint if device else ""
    values = {
        "state": state,
        "device": device.name if device else "none",
        "device_memory_mb": device.memory_mb if device else "0",
        "process_memory_mb": process_memory_mb(),
        "solver_restarts": device.workers.solver.restarts if device else 0,
        "weights": weights,
        "last_error": last_error or complaint,
    }
    level = DiagnosticStatus.WARN if complaint else DiagnosticStatus.OK
    level = DiagnosticStatus.ERROR if last_error else level
    return make_status(level, "node", last_error or complaint or state, values)


def camera_status(status: CameraStatus) -> DiagnosticStatus:
    """Return a camera's entry: a warning if frames were refused since the last one, or while the
    window is dropped again and again."""
    warnings, values = status.report()
    if not warnings:
        return make_status(DiagnosticStatus.OK, status.camera, "ok", values)
    return make_status(DiagnosticStatus.WARN, status.camera, ", ".join(warnings), values)


def make_array(header: Header, statuses: list[DiagnosticStatus]) -> DiagnosticArray:
    """Return the message for ``/diagnostics``."""
    return DiagnosticArray(header=header, status=statuses)


def process_memory_mb() -> str:
    """Return the resident memory of this process, MiB, where the system tells it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return "unknown"
    return f"{pages * 4096 / 2**20:.0f}"
