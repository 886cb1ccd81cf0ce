"""One recording: the command that is run on it, what it leaves, and running it once."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import d2_ros
from d2_ros.errors import D2RosError
from d2_ros.files import write_file

LOG, FIGURES, STATE = "log.txt", "figures.json", "batch.json"
"""In the folder of a recording: what the command said, its --json file, and how it ended."""

OUTPUTS = {
    ("replay",): "features.mcap",
    ("evaluate", "sequence"): "",
    ("evaluate", "reconstruction"): "",
    ("map",): "",
}
"""Verb -> what its --out is called in the folder of a recording; empty where it is the folder."""

LOCK_WAIT_S = 10.0
"""How long a process that a lost worker has left behind may take to end."""

_LOCK = ".lock"
_TAIL_BYTES = 4096

_RUN = "from d2_ros.cli import main; main()"


@dataclass(frozen=True)
class Job:
    """A verb on one recording.

    Attributes
    ----------
    name
        Of the recording in tables, and of its folder.
    source
        As it was given.
    folder
        Where everything goes.
    words
        The verb, and what comes behind its source.
    cwd
        Where relative paths begin.
    threads
        Cores that the process should keep to; 0 for all.
    """

    name: str
    source: str
    folder: Path
    words: tuple[str, ...]
    cwd: str
    threads: int = 0

    @property
    def arguments(self) -> list[str]:
        """Of ``d2-ros``."""
        verb = verb_of(self.words)
        place = self.folder / OUTPUTS[verb]
        outputs = ["--out", str(place), "--json", str(self.folder / FIGURES)]
        return [*verb, self.source, *outputs, *self.words[len(verb) :]]


@dataclass(frozen=True)
class Ended:
    """How a job has ended.

    Attributes
    ----------
    arguments
        Of ``d2-ros``.
    code
        Exit code, negative for a signal; 0 is success.
    seconds
        How long it took.
    reason
        Of a failure: the last thing that it said.
    """

    arguments: list[str]
    code: int
    seconds: float
    reason: str = ""


def verb_of(words: Sequence[str]) -> tuple[str, ...]:
    """Return the verb that `words` begin with.

    Raises
    ------
    D2RosError
        If it is none that can be run on many recordings, or names outputs.
    """
    for verb in OUTPUTS:
        if tuple(words[: len(verb)]) == verb:
            break
    else:
        given = " ".join(words) or "nothing"
        known = ", ".join(" ".join(verb) for verb in OUTPUTS)
        raise D2RosError(f"batch cannot run {given!r}; give one of {known} behind --")
    for word in words:
        if word.split("=")[0] in ("--out", "--json"):
            raise D2RosError(f"batch chooses {word} itself, in a folder for each recording")
    return verb


def names_of(sources: Sequence[str]) -> list[str]:
    """Return a folder's name for each source: its last part, and as many before as tell it apart.

    Raises
    ------
    D2RosError
        If one source is given twice.
    """
    for source, count in Counter(os.path.realpath(source) for source in sources).items():
        if count > 1:
            raise D2RosError(f"{source} is given {count} times; give every recording once")
    parts = [_parts(source) for source in sources]
    depth = [1] * len(sources)
    while True:
        names = ["_".join(part[-take:]) for part, take in zip(parts, depth, strict=True)]
        counts = Counter(names)
        longer = [
            take + (counts[name] > 1 and take < len(part))
            for name, take, part in zip(names, depth, parts, strict=True)
        ]
        if longer == depth:
            break
        depth = longer
    seen: Counter[str] = Counter()
    for index, name in enumerate(names):  # such as "a b" and "a_b", which make one name
        seen[name] += 1
        names[index] = name if seen[name] == 1 else f"{name}-{seen[name]}"
    return names


def _parts(source: str) -> list[str]:
    if source.partition(":")[0] == "synthetic":
        return [_plain(source)]
    path = Path(os.path.abspath(source))
    known = path.with_suffix("") if path.suffix in (".mcap", ".bag", ".db3") else path
    return [_plain(part) for part in known.parts[1:]] or ["root"]


def _plain(text: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", text).strip("_.") or "_"


def ended(job: Job) -> Ended | None:
    """Return how the job has ended when it was last run, None if it has not."""
    try:
        return Ended(**json.loads((job.folder / STATE).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def run(job: Job) -> Ended:
    """Run the job once: a finished one is left as it is, and so is one that another runs."""
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / _LOCK).open("w") as lock:
        if not _locked(lock):
            return Ended(job.arguments, -1, 0.0, "another process is at work on it; wait for it")
        before = ended(job)
        if before is not None and before.code == 0:
            return before
        (job.folder / STATE).unlink(missing_ok=True)
        began = time.monotonic()
        code = _in_a_process(job, lock)
        reason = "" if code == 0 else _reason(job.folder / LOG, code)
        result = Ended(job.arguments, code, time.monotonic() - began, reason)
        write_file(job.folder / STATE, (json.dumps(asdict(result), indent=2) + "\n").encode())
        return result


def _in_a_process(job: Job, lock: IO[str]) -> int:
    """Run the command; it holds the lock too, so that nobody begins beside what outlives us."""
    root = str(Path(d2_ros.__file__).parents[1])
    paths = [path for path in (root, os.environ.get("PYTHONPATH")) if path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    if job.threads:
        environment["OMP_NUM_THREADS"] = str(job.threads)
    with (job.folder / LOG).open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-c", _RUN, *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=job.cwd if Path(job.cwd).is_dir() else None,
            env=environment,
            pass_fds=[lock.fileno()],
        )
        with _running(child):
            return child.wait()


_children: set[subprocess.Popen[bytes]] = set()


@contextmanager
def _running(child: subprocess.Popen[bytes]) -> Iterator[None]:
    _children.add(child)
    try:
        yield
    except BaseException:
        child.terminate()
        child.wait()
        raise
    finally:
        _children.discard(child)


def end_all() -> None:
    """Ask every process of this one to end, as Ctrl-C would: what it has so far is kept."""
    for child in list(_children):
        child.terminate()


def _locked(lock: IO[str]) -> bool:
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        else:
            return True


def _reason(log: Path, code: int) -> str:
    """Last line that a command has said, or the signal that has ended it."""
    if code < 0:
        return f"ended by signal {-code}"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
    return lines[-1].removeprefix("d2-ros: ") if lines else f"exit code {code} without a word"


def figures_of(job: Job) -> Mapping[str, float | int | str]:
    """Figures that the job has left; none where there are none."""
    try:
        found = json.loads((job.folder / FIGURES).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
