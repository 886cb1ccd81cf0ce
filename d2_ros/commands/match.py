"""``d2-ros match``: two images, aligned matches out."""

from __future__ import annotations

import time
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d2_ros.commands.common import (
    Json,
    Overrides,
    ParamsFile,
    load_config,
    output_files,
    write_json,
)
from d2_ros.files import write_file

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from d2_ros.records import FrameResult

STAMPS = (1_000_000_000, 2_000_000_000)
"""The two images count as frames that are one second apart, ns."""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("match")(match)


def match(
    a: Annotated[Path, typer.Argument(metavar="A", help="First image.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Second image.")],
    out: Annotated[
        Path, typer.Option(metavar="M.npz", help="The arrays; overwritten if it exists.")
    ],
    camera: Annotated[
        Path | None,
        typer.Option(help="Their calibration: of ROS, a printed camera_info, or of OpenCV."),
    ] = None,
    params_file: ParamsFile = None,
    overrides: Overrides = None,
    json: Json = None,
) -> None:
    """Match two images and align the matches to sub-pixel accuracy.

    Writes, with one row per match: a, b (M, 2) refined pixels; a_detected, b_detected (M, 2);
    covariance (M, 2, 2) of b, px^2; similarity (M,); inlier (M,).
    """
    import numpy as np
    from rich.console import Console
    from rich.progress import track

    from d2_ros.frontend import FrontEnd
    from d2_ros.sources.calibration import load_camera
    from d2_ros.sources.images import read_image

    config = load_config(params_file, overrides)
    calibration = load_camera(camera) if camera else None
    images = [read_image(a), read_image(b)]
    output_files((out, json), a, b, camera, params_file)
    frontend = FrontEnd(config)
    started = time.perf_counter()
    shown = track(images, "Matching", console=Console(stderr=True))
    results = [
        frontend.process(
            image, stamp, calibration and calibration.at_size(image.shape[1], image.shape[0])
        )
        for image, stamp in zip(shown, STAMPS, strict=True)
    ]
    arrays = match_arrays(*results)
    seconds = time.perf_counter() - started
    stream = BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    write_file(out, stream.getvalue())
    matches, inliers = len(arrays["inlier"]), int(arrays["inlier"].sum())
    typer.echo(f"{out}: {matches} matches, {inliers} inliers")
    if json:
        figures = {"matches": matches, "inlier_matches": inliers, "seconds": seconds}
        write_json(json, figures)


def match_arrays(first: FrameResult, second: FrameResult) -> dict[str, NDArray[Any]]:
    """Return the arrays of the file, from the results of two frames one after the other.

    Returns
    -------
    ``a``, ``b``, ``a_detected``, ``b_detected`` ``(M, 2)`` float32 px, ``covariance``
    ``(M, 2, 2)`` float32 px^2 of ``b``, ``similarity`` ``(M,)`` float32, ``inlier`` ``(M,)`` bool.
    """
    import numpy as np

    def columns(table: NDArray[np.void], *names: str) -> NDArray[Any]:
        return np.stack([table[name] for name in names], axis=-1)

    rows = second.matches
    ours, theirs = second.features[rows["index"]], first.features[rows["keyframe_index"]]
    covariance = columns(ours, "sigma_uu", "sigma_uv", "sigma_uv", "sigma_vv")
    return {
        "a": columns(rows, "keyframe_u", "keyframe_v"),
        "b": columns(rows, "u", "v"),
        "a_detected": columns(theirs, "u_detected", "v_detected"),
        "b_detected": columns(ours, "u_detected", "v_detected"),
        "covariance": covariance.reshape(-1, 2, 2),
        "similarity": np.array(rows["similarity"]),
        "inlier": rows["inlier"].astype(bool),
    }
