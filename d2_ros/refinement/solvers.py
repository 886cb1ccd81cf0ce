"""Solving a window's graph: here and now, or in a process beside the frames."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from d2_ros.config import RefinementConfig
from d2_ros.errors import D2RosError
from d2_ros.refinement import multiview, sparse
from d2_ros.refinement.problem import Problem

SOLVERS = {"gtsam": multiview.refine_graph, "sparse": sparse.refine_graph}
"""Parameter ``refinement.solver`` -> what solves the graph."""

PATIENCE = 20.0
"""Seconds that a process may take over one window, before it counts as hung."""


class Solver(Protocol):
    """What the front-end gives its windows to.

    Attributes
    ----------
    restarts
        How often it had to be replaced.
    """

    restarts: int

    def submit(self, problem: Problem, config: RefinementConfig) -> Future[NDArray[np.float64]]:
        """Solve a problem; the places ``(N, 2)``, px, at which its observations agree."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


def solve(problem: Problem, config: RefinementConfig) -> NDArray[np.float64]:
    """Places ``(N, 2)``, px, at which the observations of a problem agree."""
    return SOLVERS[config.solver](problem, config)


class InlineSolver:
    """Solves at once, so that the frame waits: for replay, where every run must be the same."""

    restarts = 0

    def submit(self, problem: Problem, config: RefinementConfig) -> Future[NDArray[np.float64]]:
        """Solve a problem."""
        done: Future[NDArray[np.float64]] = Future()
        done.set_result(solve(problem, config))
        return done

    def close(self) -> None:
        """Nothing is held."""


class SolverProcess:
    """Solves in a process of its own, since GTSAM holds Python's lock for most of a second.

    The process starts with the first problem and ends with its parent, however that ends, for its
    pipe is closed then. One that is killed or hangs is replaced: that solution fails, the next one
    is on time again.

    Parameters
    ----------
    tell
        Is told, in a sentence, when the process had to be replaced or a window was not solved.
    patience
        Seconds that it may take over one window.
    niceness
        By how much the process lowers its priority.

    Attributes
    ----------
    restarts
        How often it had to be replaced.
    """

    def __init__(
        self,
        tell: Callable[[str], object] = lambda fault: None,
        patience: float = PATIENCE,
        niceness: int = 0,
    ) -> None:
        self.restarts = 0
        self._tell = tell
        self._patience = patience
        self._niceness = niceness
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="d2_solver")
        self._closed = False
        self._process: Any = None
        self._pipe: Connection | None = None

    def submit(self, problem: Problem, config: RefinementConfig) -> Future[NDArray[np.float64]]:
        """Solve a problem after those that were submitted before.

        The result raises D2RosError where the process was killed or hung.
        """
        return self._thread.submit(self._ask, problem, config)

    @property
    def pid(self) -> int | None:
        """The process, where it has been started."""
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """End the process; whatever it is at is lost."""
        self._closed = True
        if self._process is not None:
            self._process.kill()
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._drop()

    def _drop(self) -> None:
        if self._process is not None and self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = self._pipe = None

    def _started(self) -> Connection:
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(
                target=_serve, args=(theirs, self._niceness), daemon=True
            )
            self._process.start()
            theirs.close()  # or the end of the process would go unnoticed
        return self._pipe

    def _ask(self, problem: Problem, config: RefinementConfig) -> NDArray[np.float64]:
        try:
            pipe = self._started()
            pipe.send((problem, config))
            if pipe.poll(self._patience):
                answer: Any = pipe.recv()
                if isinstance(answer, Exception):
                    self._tell(f"a window could not be solved: {answer}; it stays as it was")
                    raise answer
                return np.asarray(answer)
            fault = f"has taken over {self._patience:g} s for a window"
        except (OSError, EOFError):
            fault = "has ended"
        self._drop()
        if not self._closed:
            self.restarts += 1
            self._tell(f"the solver's process {fault}; another one takes the next window")
        raise D2RosError(f"the solver's process {fault}")


def _serve(pipe: Connection, niceness: int) -> None:
    """Solve what comes, until the parent is gone."""
    os.nice(niceness)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to deal with
    while True:
        try:
            problem, config = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer: Any = solve(problem, config)
        except Exception as error:  # the parent says it
            answer = error
        pipe.send(answer)
