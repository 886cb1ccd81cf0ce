"""Windows solved in a process of its own: the same places, whatever happens to the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from d2_ros.config import RefinementConfig
from d2_ros.errors import D2RosError
from d2_ros.refinement.problem import Problem
from d2_ros.refinement.solvers import InlineSolver, SolverProcess
from d2_ros.tracks.graph import Edges

CONFIG = RefinementConfig()


def problem(count=20):
    """Tracks of two observations each; the second ones are 0.5 px off."""
    rng = np.random.default_rng(0)
    first = rng.uniform(0, 100, (count, 2))
    rows, ids = np.arange(count), np.arange(1, count + 1)
    squares = np.tile(np.eye(2), (count, 1, 1))
    edges = Edges(
        ids, np.ones(count, int), np.full(count, 2), first, first + 5.0, squares, 0.01 * squares
    )
    pixels = np.concatenate([first, first + 5.5])
    return Problem(pixels, np.arange(2 * count) < count, rows, rows + count, edges)


@pytest.fixture
def told():
    return []


@pytest.fixture
def solver(told):
    made = SolverProcess(told.append, patience=3.0)
    yield made
    made.close()


def running(pid):
    """Whether a process is there and no zombie."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def gone(pid, seconds=5.0):
    end = time.monotonic() + seconds
    while running(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not running(pid)


def test_a_process_gives_what_solving_here_gives(solver):
    expected = InlineSolver().submit(problem(), CONFIG).result()
    assert np.abs(expected[20:] - problem().pixels[:20] - 5).max() < 0.01
    for _ in range(2):
        np.testing.assert_array_equal(solver.submit(problem(), CONFIG).result(30), expected)
    assert solver.restarts == 0


def test_a_window_that_cannot_be_solved_is_told_and_costs_no_process(solver, told):
    with pytest.raises(IndexError):
        solver.submit(replace(problem(), first=np.full(20, 99)), CONFIG).result(30)
    assert len(told) == 1
    assert "could not be solved: index 99" in told[0]
    pid = solver.pid
    solver.submit(problem(), CONFIG).result(30)
    assert solver.pid == pid
    assert solver.restarts == 0


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        pytest.param(signal.SIGKILL, "has ended", id="killed"),
        pytest.param(signal.SIGSTOP, "has taken over 3 s for a window", id="hangs"),
    ],
)
def test_one_that_is_lost_is_replaced_and_told(solver, told, ending, reason):
    solver.submit(problem(), CONFIG).result(30)
    pid = solver.pid
    os.kill(pid, ending)
    with pytest.raises(D2RosError, match=reason):
        solver.submit(problem(), CONFIG).result(30)
    assert gone(pid)
    solver.submit(problem(), CONFIG).result(30)
    assert solver.restarts == 1
    assert told == [f"the solver's process {reason}; another one takes the next window"]


def test_what_a_problem_raises_is_raised_and_the_process_goes_on(solver):
    bad = problem()
    bad.edges.covariance[:] = np.nan
    with pytest.raises(Exception, match=r".+"):
        solver.submit(bad, RefinementConfig(solver="nonsense")).result(30)
    solver.submit(problem(), CONFIG).result(30)
    assert solver.restarts == 0


def test_closing_does_not_wait_for_a_solution(solver, told):
    solver.submit(problem(), CONFIG).result(30)
    pid = solver.pid
    os.kill(pid, signal.SIGSTOP)
    pending = solver.submit(problem(), CONFIG)
    time.sleep(0.2)
    begin = time.monotonic()
    solver.close()
    assert time.monotonic() - begin < 2
    assert pending.exception(1) is not None
    assert gone(pid)
    assert told == []


PARENT = """
import sys, time
sys.path.insert(0, {here!r})
from test_solvers import CONFIG, problem
from d2_ros.refinement.solvers import SolverProcess
if __name__ == "__main__":
    solver = SolverProcess()
    solver.submit(problem(), CONFIG).result(60)
    print(solver.pid, flush=True)
    time.sleep(60)
"""


def test_the_process_ends_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(here=str(Path(__file__).parent)))
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert running(pid)
    parent.kill()
    parent.wait()
    assert gone(pid)


def test_the_process_does_not_load_the_network():
    code = (
        "import sys; from d2_ros.refinement import solvers; "
        "print([m for m in ('torch', 'numba', 'cv2') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
