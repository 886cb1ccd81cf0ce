"""``d2-ros play``: publish a source over DDS, for machines without ``ros2 bag``."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from d2_ros.commands.common import ImageTopic, SourceName, progress
from d2_ros.errors import D2RosError

if TYPE_CHECKING:
    from d2_ros.node.source_publisher import SourcePublisher
    from d2_ros.sources import Source

POLL_SECONDS = 0.05


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("play")(play)


def play(
    source: SourceName,
    rate: Annotated[float, typer.Option(help="How many times faster than recorded.")] = 1.0,
    camera: Annotated[str, typer.Option(help="First part of the published topics.")] = "camera",
    image_topic: ImageTopic = None,
    loop: Annotated[bool, typer.Option(help="Start over at the end, until Ctrl-C.")] = False,
    wait_for_subscribers: Annotated[
        bool, typer.Option(help="Begin once somebody has subscribed to the images.")
    ] = False,
) -> None:
    """Publish SRC on <camera>/image_raw, <camera>/camera_info and /clock."""
    from d2_ros.node import require_ros
    from d2_ros.sources import open_source

    if not 0 < rate < float("inf"):
        raise D2RosError(f"--rate is {rate}; it must be a positive number")
    frames = open_source(source, image_topic)
    require_ros()
    from d2_ros.node.source_publisher import open_publisher

    with open_publisher(camera) as publisher:
        if wait_for_subscribers:
            _wait(publisher)
        _play(publisher, frames, rate, loop)


def _wait(publisher: SourcePublisher) -> None:
    typer.echo("waiting for subscribers", err=True)
    while not publisher.connected():
        time.sleep(POLL_SECONDS)


def _play(publisher: SourcePublisher, source: Source, rate: float, loop: bool) -> None:
    from d2_ros.node.source_publisher import Pace
    from d2_ros.sources.usable import usable

    pace = Pace(rate, publisher.tick, partial(typer.echo, err=True))
    refused: list[str] = []
    played = 0
    while True:
        refused.clear()
        played = 0
        found = usable(source, lambda error: refused.append(str(error)))
        for frame in progress(found, f"Playing {source.name}", len(source)):
            pace.wait(frame)
            publisher.publish(frame)
            played += 1
        if not loop:
            break
    if not publisher.flush():
        typer.echo("not every subscriber has taken the last frames", err=True)
    if refused:
        whole = played + len(refused)
        raise D2RosError(f"{len(refused)} of {whole} frames were left out: {refused[0]}")
    if not played:
        raise D2RosError(f"{source.name} has no frames; look at the source")
