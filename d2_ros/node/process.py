"""The node in a process of its own, as on a robot."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d2_ros.errors import D2RosError

STOP_SECONDS = 15.0
"""Time the node has to finish the frame at hand before it is killed."""


def isolate() -> None:
    """Give this process and its children a ROS graph of their own on this machine.

    Domains up to 101 do not collide with the ports that Linux gives to other programs.
    """
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 101))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if os.environ.get("ROS_DISTRO") == "humble":  # which does not know the other name yet
        os.environ["ROS_LOCALHOST_ONLY"] = "1"


class NodeProcess:
    """A context manager that starts ``d2_frontend`` and always ends it.

    Parameters
    ----------
    parameters
        Dotted parameter names and values.
    folder
        Gets ``params.yaml`` and the node's ``node.log``.
    """

    def __init__(self, parameters: Mapping[str, Any], folder: Path) -> None:
        params_file = folder / "params.yaml"
        tree = {"/**": {"ros__parameters": dict(parameters)}}
        # JSON is YAML in which every text is quoted, so that none is taken for a number.
        params_file.write_text(json.dumps(tree, ensure_ascii=False), "utf-8", "surrogateescape")
        self._log = folder / "node.log"
        self._command = [sys.executable, "-m", "d2_ros.node.frontend_node"]
        self._command += ["--ros-args", "--params-file", str(params_file)]

    def __enter__(self) -> NodeProcess:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def check(self) -> None:
        """Make sure that the node still runs.

        Raises
        ------
        D2RosError
            If it has ended; the message holds the last line that it logged.
        """
        code = self._process.poll()
        if code is not None:
            raise D2RosError(f"the node ended with exit code {code}: {self.last_words()}")

    def last_words(self) -> str:
        """Return the last line of the log and where to find the rest."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        spoken = [line.strip() for line in lines if line.strip()]
        return f"{spoken[-1] if spoken else 'it said nothing'} (all of it: {self._log})"

    def stop(self) -> None:
        """Ask the node to end as Ctrl-C does; kill it if it does not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
