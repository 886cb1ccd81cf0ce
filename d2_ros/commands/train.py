"""``d2-ros train``: fine-tune detection and description together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from d2_ros.commands.common import (
    Json,
    Overrides,
    output_files,
    output_folder,
    read_overrides,
    write_json,
)
from d2_ros.errors import D2RosError

if TYPE_CHECKING:
    from d2_ros.training.cache import Cache
    from d2_ros.training.validation import Accuracy


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(train)


def train(
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings, YAML; see docs/training.md.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for checkpoints and weights.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in DIR.")
    ] = False,
    overrides: Overrides = None,
    settings: Annotated[
        bool, typer.Option("--settings", help="Print every setting and its default, and end.")
    ] = False,
    json: Json = None,
) -> None:
    """Fine-tune the network on pairs of images; several processes through torchrun."""
    from d2_ros.training.checkpoints import BEST, CHECKPOINT
    from d2_ros.training.config import load_training_config, settings_text
    from d2_ros.training.distributed import arithmetic, joined
    from d2_ros.training.trainer import Trainer

    if settings:
        typer.echo(settings_text(), nl=False)
        return
    if config is None or out is None:
        raise D2RosError("train needs --config FILE and --out DIR; --settings lists the settings")
    chosen = load_training_config(config, read_overrides(overrides))
    output_files([json], config)
    read = chosen.data.sources  # a path, or one after what it is, as in photos:FOLDER
    folder = output_folder(out, *read, *(name.partition(":")[2] for name in read))
    if not resume and (folder / CHECKPOINT).exists():
        raise D2RosError(
            f"{folder} holds the checkpoint of a run; add --resume to go on, or choose another"
        )
    with arithmetic(chosen), joined(chosen.device, chosen.optimiser.batch) as process:
        trainer = Trainer(chosen, folder, process, resume)
        progress = trainer.progress
        with _watched(folder, progress.step, chosen.optimiser.steps, process.first) as watcher:
            trainer.run(watcher)
        if not process.first:
            return
    figures = progress.figures()
    typer.echo(
        f"{progress.step} steps: loss {figures['loss_first_tenth']:.3f} (first tenth) to "
        f"{figures['loss_last_tenth']:.3f} (last); matching accuracy at 3 px on held-back pairs "
        f"{figures['start.mma_3px']:.3f} before, {figures['best.mma_3px']:.3f} at its best "
        f"(step {progress.best_step}), {figures['last.mma_3px']:.3f} at the end"
    )
    typer.echo(f"Weights of step {progress.best_step}: -p weights:={folder / BEST}")
    if trainer.cache:
        figures |= {"cache.hits": trainer.cache.hits, "cache.added": trainer.cache.added,
                    "cache.size_bytes": trainer.cache.size}  # fmt: skip
        typer.echo(_kept(trainer.cache))
    if json:
        write_json(json, {**figures})


def _kept(cache: Cache) -> str:
    """What there is to say of a cache at the end."""
    count = sum(1 for _ in cache.entries())
    text = f"{count} pairs kept in {cache.folder}, {cache.size / 1e9:.3g} GB"
    if cache.full:
        text += "; it or the disk was full, the rest was computed anew each time (cache_size)"
    return text


class _Display:
    """A progress bar and TensorBoard."""

    def __init__(self, bar: Any, task: Any, board: Any) -> None:
        self._bar, self._task, self._board = bar, task, board

    def stepped(self, step: int, parts: Mapping[str, float]) -> None:
        self._bar.update(self._task, completed=step, loss=f"loss {parts['loss']:.3f}")
        if self._board:
            for name, value in parts.items():
                self._board.add_scalar(f"training/{name}", value, step)

    def validated(self, step: int, accuracy: Accuracy) -> None:
        self._bar.update(self._task, accuracy=f"within 3 px {accuracy.mma_3px:.3f}")
        if self._board:
            for name, value in vars(accuracy).items():
                self._board.add_scalar(f"held_back/{name}", value, step)


@contextmanager
def _watched(folder: Path, done: int, steps: int, shown: bool) -> Iterator[_Display]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("Training", BarColumn(), MofNCompleteColumn(), "{task.fields[loss]}",
               "{task.fields[accuracy]}", TimeRemainingColumn())  # fmt: skip
    board = _board(folder, done) if shown else None
    try:
        with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
            task = bar.add_task("", total=steps, completed=done, loss="", accuracy="")
            yield _Display(bar, task, board)
    finally:
        if board:
            board.close()


def _board(folder: Path, done: int) -> Any:
    """A TensorBoard writer, None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        typer.echo("No curves: TensorBoard is not installed (pip install tensorboard).", err=True)
        return None
    # Steps after the checkpoint are done again: what was said of them before is dropped.
    return SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1 if done else None)
