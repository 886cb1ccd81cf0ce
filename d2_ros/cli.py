"""The ``d2-ros`` command: one verb per module of ``d2_ros.commands``."""

from __future__ import annotations

import importlib
import sys

import typer

from d2_ros import __version__
from d2_ros.errors import D2RosError

COMMANDS = ("demo", "replay", "play", "convert", "match", "weights", "doctor")


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
        importlib.import_module(f"d2_ros.commands.{name}").register(app)
    return app


def main() -> None:
    """Run the command line; bad input is one sentence on stderr and exit code 2."""
    try:
        build_app()()
    except D2RosError as error:
        typer.echo(f"d2-ros: {error}", err=True)
        sys.exit(2)
