"""``d2-ros doctor --self-test``: every stage on this machine's device, against the CPU in fp32.

Each stage gets the same input on both sides, so that the one that is wrong is the one that is
named; the last one is the whole path, each side with its own network.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from d2_ros.benchmark.machine import device_name
from d2_ros.benchmark.self_test import SelfTest, Verdict
from d2_ros.benchmark.stages import STAGES
from d2_ros.commands.common import load_config, output_file, write_json
from d2_ros.config import with_values


def title(test: SelfTest, asked: str) -> str:
    """What is tested against what, in a sentence; `asked` is the parameter ``device``."""
    plan = test.tested.plan
    what = f"network in {plan.precision} by {plan.runtime}"
    if plan.device.type != "cpu":
        return f"{device_name(plan.device)}, {what}, against the CPU in fp32:"
    why = "" if asked == "cpu" else "There is no GPU here that torch can use. Tested instead: "
    return f"{why}this CPU, {what}, against itself in fp32, torch's batched alignment included:"


def report(
    device: str | None,
    params_file: Path | None,
    overrides: Sequence[str] | None,
    json_file: Path | None,
) -> bool:
    """Print a line per stage; whether all are good.

    Raises
    ------
    D2RosError
        For parameters that the node would refuse, and as :class:`SelfTest` does.
    """
    config = load_config(params_file, overrides)
    config = config if device is None else with_values(config, {"device": device})
    if json_file:
        output_file(json_file, params_file)
    test, verdicts = SelfTest(config), []
    typer.echo(title(test, config.device))
    for verdict in test.run(STAGES):
        verdicts.append(verdict)
        typer.echo(line(verdict))
    if json_file:
        write_json(json_file, to_figures(verdicts))
    wrong = ", ".join(verdict.stage for verdict in verdicts if not verdict.good)
    typer.echo(f"\nNot as on the CPU: {wrong}." if wrong else "\nEvery stage is as on the CPU.")
    return not wrong


def line(verdict: Verdict) -> str:
    """A verdict in words."""
    state = typer.style(
        f"{'ok' if verdict.good else 'FAIL':5}", fg="green" if verdict.good else "red"
    )
    if verdict.difference is None:
        return f"{verdict.stage:12} {state} {verdict.reason}"
    compared, worst, tolerance = verdict.difference
    times = f"CPU {verdict.reference_ms:.1f} ms, tested {verdict.tested_ms:.1f} ms"
    return f"{verdict.stage:12} {state} {compared}: {worst:.2g} (at most {tolerance:g}); {times}"


def to_figures(verdicts: Sequence[Verdict]) -> dict[str, float | int | str]:
    """Flatten verdicts to ``<stage>.state``, ``.worst``, ``.tolerance`` and times in ms.

    Of a stage that has raised an exception there is ``.reason`` instead of figures.
    """
    figures: dict[str, float | int | str] = {}
    for verdict in verdicts:
        figures[f"{verdict.stage}.state"] = "ok" if verdict.good else "FAIL"
        if verdict.difference is None:
            figures[f"{verdict.stage}.reason"] = verdict.reason
            continue
        figures[f"{verdict.stage}.compared"] = verdict.difference.compared
        figures[f"{verdict.stage}.worst"] = min(verdict.difference.worst, sys.float_info.max)
        figures[f"{verdict.stage}.tolerance"] = verdict.difference.tolerance
        figures[f"{verdict.stage}.cpu_ms"] = verdict.reference_ms
        figures[f"{verdict.stage}.tested_ms"] = verdict.tested_ms
    return figures
