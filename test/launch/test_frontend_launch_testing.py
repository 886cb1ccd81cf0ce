"""Runs frontend_process.py with launch_testing's own runner, where there is one.

Not by its pytest plugin, which does not know every version of pytest.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

pytest.importorskip(
    "launch_testing", reason="launch_testing is not on PyPI; install a ROS distribution"
)
pytest.importorskip("launch_ros", reason="launch_ros is not on PyPI; install a ROS distribution")

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch_testing.loader import LoadTestsFromPythonModule
from launch_testing.test_runner import LaunchTestRunner

FILE = Path(__file__).with_name("frontend_process.py")


def test_frontend_launch_starts_an_active_node_that_ends_with_code_0(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    try:
        get_package_prefix("d2_ros")
    except PackageNotFoundError:
        pytest.skip("d2_ros is not built; run `python -m colcon build` and source its setup.bash")
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    spec = importlib.util.spec_from_file_location(FILE.stem, FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    runner = LaunchTestRunner(LoadTestsFromPythonModule(module, name=FILE.stem))
    runner.validate()
    results = list(runner.run().values())
    assert len(results) == 1
    assert results[0].wasSuccessful(), [*results[0].errors, *results[0].failures]
