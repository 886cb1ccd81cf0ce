"""The package's programs in processes of their own, as a user starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_COMMAND = ("-c", "from d2_ros.cli import main; main()")


def start_command(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """``d2-ros`` with `arguments`; stdout and stderr are pipes unless `options` say otherwise."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return _start(*_COMMAND, *map(str, arguments), **(pipes | options))


@contextmanager
def starting_nodes(module: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Give a function that starts a node's module with ROS arguments; all are killed at the end.

    It returns at once, or with `until` when stderr, a pipe, has had a line with that text.
    """
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, until: str = "") -> subprocess.Popen[str]:
        process = _start("-m", module, "--ros-args", *arguments, stderr=subprocess.PIPE)
        started.append(process)
        stream = process.stderr
        assert stream is not None
        if until and not any(until in line for line in stream):
            raise AssertionError(f"the node ended with {process.wait()}")
        return process

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.communicate()


def _start(*words: str, **options: Any) -> subprocess.Popen[str]:
    path = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen([sys.executable, *words], env=environment, text=True, **options)
