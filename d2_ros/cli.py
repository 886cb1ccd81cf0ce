"""The ``d2-ros`` command: one verb per module of ``d2_ros.commands``."""

from __future__ import annotations

import importlib
import io
import sys
from typing import NoReturn

import typer

from d2_ros import __version__
from d2_ros.errors import D2RosError
from d2_ros.interruption import end_on_signals

COMMANDS = (
    "demo", "replay", "play", "convert", "match", "map", "places", "evaluate", "export", "view",
    "batch", "benchmark", "train", "weights", "doctor",
)  # fmt: skip


def build_app() -> typer.Typer:
    """Collect the verbs; each module offers ``register(app)``."""
    app = typer.Typer(
        name="d2-ros",
        help="D2-Net features, tracked and refined to sub-pixel accuracy, for ROS 2.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @app.callback(invoke_without_command=True)
    def _root(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
        if version:
            typer.echo(__version__)
            raise typer.Exit

    for name in COMMANDS:
        try:
            module = importlib.import_module(f"d2_ros.commands.{name}")
        except ImportError as error:
            _register_unusable(app, name, error)  # the others, doctor above all, still work
        else:
            module.register(app)
    return app


def main() -> None:
    """Run the command line; bad input is one sentence on stderr and exit code 2."""
    end_on_signals()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be no text at all
    try:
        build_app()()
    except D2RosError as error:
        _refuse(str(error))
    except OSError as error:  # a place that cannot be read or written, wherever it was met
        place = f"{error.filename}: " if error.filename else ""
        _refuse(f"{place}{error.strerror or error}")
    except ImportError as error:
        if (error.name or "").startswith(__package__):
            raise  # a bug, not a gap of this machine
        typer.echo(f"d2-ros: {error}; `d2-ros doctor` says how to get it", err=True)
        sys.exit(1)


def _refuse(reason: str) -> NoReturn:
    """End with one line, whatever was quoted in it."""
    typer.echo(f"d2-ros: {' '.join(reason.split())}", err=True)
    sys.exit(2)


def _register_unusable(app: typer.Typer, name: str, error: ImportError) -> None:
    def unusable() -> None:
        raise error

    lax = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(name, help=f"Not usable: {error}.", context_settings=lax)(unusable)
