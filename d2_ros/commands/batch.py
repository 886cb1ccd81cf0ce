"""``d2-ros batch``: one verb on many recordings, here or on a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from d2_ros.commands.common import output_folder, write_json
from d2_ros.errors import D2RosError

if TYPE_CHECKING:
    from d2_ros.batch.jobs import Ended, Job

SUMMARY = "summary.json"
_WORDS = "d2_ros.batch.words"


class _WithVerb(TyperCommand):
    """A command whose arguments end at the first ``--``; what follows is left for its verb."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the arguments before ``--`` and keep the others."""
        own, words = args, []
        if "--" in args:
            at = args.index("--")
            own, words = args[:at], args[at + 1 :]
        ctx.meta[_WORDS] = words
        return super().parse_args(ctx, own)


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("batch", cls=_WithVerb, options_metavar="[OPTIONS] -- VERB [ARGS]")(batch)


def batch(
    context: typer.Context,
    sources: Annotated[list[str], typer.Argument(metavar="SRC...", help="Recordings.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Gets a folder for each recording, and a summary.")
    ],
    jobs: Annotated[int, typer.Option(min=1, help="Recordings at a time, on this machine.")] = 1,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run on a Ray cluster: host:port, or auto."),
    ] = None,
    gpus: Annotated[
        float, typer.Option(min=0, help="With --cluster: GPUs that each recording gets.")
    ] = 0,
) -> None:
    """Run one verb, replay, evaluate or map, on every SRC, each in a process of its own.

    What is behind -- is the verb and its options, without SRC, --out and --json. A recording that
    is finished is not run again, one that has failed is; a failure does not stop the others, and
    the exit code is then 2. DIR gets NAME/ with a verb's outputs, figures.json and log.txt, and
    summary.json and report.html of all.
    """
    from d2_ros.batch.jobs import ended
    from d2_ros.batch.runners import run_here, run_on_cluster

    if gpus and cluster is None:
        raise D2RosError("--gpus goes with --cluster; here a verb takes -p device:=cuda")
    threads = 0 if cluster else max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else 0
    work = jobs_of(sources, out, context.meta[_WORDS], threads)
    output_folder(out, *sources)
    finished = {job.name: end for job in work if (end := ended(job)) and end.code == 0}
    for job in work:
        other = ended(job)
        if other is not None and other.arguments != job.arguments:
            raise D2RosError(
                f"{job.folder} has the outputs of `d2-ros {' '.join(other.arguments)}`; choose "
                "another --out"
            )
    for name in finished:
        typer.echo(f"{name}: finished before")
    left = [job for job in work if job.name not in finished]
    ends = dict(finished)
    try:
        running = run_on_cluster(left, cluster, gpus) if cluster else run_here(left, jobs)
        for job, end in _told(running, len(left)) if left else ():
            ends[job.name] = end
    finally:
        _sum_up(
            out, context.meta[_WORDS], [(job, ends[job.name]) for job in work if job.name in ends]
        )
    failed = [(job, ends[job.name]) for job in work if ends[job.name].code]
    if failed:
        job, end = failed[0]
        raise D2RosError(
            f"{len(failed)} of {len(work)} recordings failed, the first of them {job.name}: "
            f"{end.reason} (see {job.folder}); the same command tries them again"
        )


def jobs_of(sources: Sequence[str], out: Path, words: Sequence[str], threads: int) -> list[Job]:
    """Return a job for each source.

    Raises
    ------
    D2RosError
        If the verb is none for many recordings, or a source is given twice.
    """
    from d2_ros.batch.jobs import Job, names_of, verb_of

    verb_of(words)
    folder, here = Path(os.path.abspath(out)), os.getcwd()
    return [
        Job(name, source, folder / name, tuple(words), here, threads)
        for name, source in zip(names_of(sources), sources, strict=True)
    ]


def _told(running: Iterator[tuple[Job, Ended]], total: int) -> Iterator[tuple[Job, Ended]]:
    """Say of each job, as it ends, how it did."""
    for number, (job, end) in enumerate(running, start=1):
        how = "done" if end.code == 0 else f"failed, {end.reason}"
        typer.echo(f"{number}/{total} {job.name}: {how} ({end.seconds:.1f} s)")
        yield job, end


def _sum_up(out: Path, words: Sequence[str], ends: Sequence[tuple[Job, Ended]]) -> None:
    """Print and write what is there of all recordings."""
    from d2_ros.batch.summary import flat, rows_of, tables_of
    from d2_ros.evaluation.page import write_page
    from d2_ros.evaluation.tables import show

    rows = rows_of(ends)
    tables = tables_of(rows)
    everything = flat(rows)
    show(rows, tables)
    write_page(out, f"Batch: {' '.join(words)}", rows, tables, everything, {})
    write_json(out / SUMMARY, everything)
    typer.echo(f"Look at {out / 'report.html'}")
