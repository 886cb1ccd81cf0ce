"""Who runs the network and solves windows: each frame in turn, or others beside the frames."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from d2_ros.refinement.solvers import InlineSolver, Solver, SolverProcess


class InlineExecutor(Executor):
    """Runs what it is given at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn`; what it raises is raised by the result."""
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


@dataclass(frozen=True)
class Workers:
    """Who does what frames need not wait for.

    Attributes
    ----------
    network, solver
        Who runs the network, one image at a time, and who solves windows.
    beside
        Whether frames go on meanwhile.
    """

    network: Executor
    solver: Solver
    beside: bool

    def close(self) -> None:
        """End them; the network's run at hand is waited for."""
        self.network.shutdown(wait=True, cancel_futures=True)
        self.solver.close()


IN_TURN = Workers(InlineExecutor(), InlineSolver(), beside=False)
"""Every frame waits for the network and the solver: the same frames give the same bytes."""


_NICENESS = 10
"""Of the solver's process: frames come first where cores are few. The network takes its share, for
frames can only follow what it has seen: given way to, it answered when the camera was elsewhere."""


def workers_beside(tell: Callable[[str], object]) -> Workers:
    """A thread for the network and a process for the solver: frames go on meanwhile.

    Parameters
    ----------
    tell
        Is told, in a sentence, what goes wrong with the solver.
    """
    network = ThreadPoolExecutor(1, "d2_network")
    return Workers(network, SolverProcess(tell, niceness=_NICENESS), beside=True)
