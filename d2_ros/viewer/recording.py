"""A Rerun recording of what the front-end has published, on the images' own time.

Rerun puts the corner of an image at (0, 0), and so the centre of its top-left pixel at
(0.5, 0.5), this package at (0, 0): half a pixel is added to everything that is drawn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError, optional_import
from d2_ros.published import PublishedFrame
from d2_ros.records import columns
from d2_ros.viewer.shapes import colours, ellipses, trails

TIMELINE = "stamp"
CAMERA, IMAGE = "world/camera", "world/camera/image"

TRAIL_FRAMES = 16
"""Frames that a trail reaches back, as the overlay's."""

CENTRE = 0.5
"""Rerun's place of the centre of the top-left pixel, px."""

_JPEG_QUALITY = 90
_GRAY, _WHITE, _RED = (150, 150, 150), (255, 255, 255), (230, 60, 60)
_PATHS = ((70, 200, 255), (255, 170, 40), (120, 230, 120), (230, 120, 230))
_UP = {(0, True): "X_UP", (0, False): "X_DOWN", (1, True): "Y_UP", (1, False): "Y_DOWN",
       (2, True): "Z_UP", (2, False): "Z_DOWN"}  # fmt: skip


def load_rerun() -> ModuleType:
    """Import Rerun.

    Raises
    ------
    D2RosError
        If it is not installed.
    """
    with optional_import("`d2-ros view` takes Rerun; install it with `pip install rerun-sdk`"):
        import rerun
    return rerun


class Recording:
    """Writes shapes to a Rerun stream, each at its image's stamp.

    Parameters
    ----------
    stream
        Of :func:`opened`.
    scale
        How many times as large as they are the ellipses of the covariances are drawn.
    """

    def __init__(self, stream: Any, scale: float) -> None:
        self._rerun = load_rerun()
        self._stream = stream
        self._scale = scale
        self._past: deque[NDArray[np.void]] = deque(maxlen=TRAIL_FRAMES)
        self._calibration: tuple[Any, ...] | None = None

    def _log(self, entity: str, *shapes: Any, stamp: int | None = None) -> None:
        """Log at a stamp, ns; without one for all time."""
        if stamp is None:
            self._stream.log(entity, *shapes, static=True)
            return
        self._stream.set_time(TIMELINE, timestamp=np.datetime64(stamp, "ns"))
        self._stream.log(entity, *shapes)

    def add_frame(self, frame: PublishedFrame) -> None:
        """Draw one frame; they come in time order."""
        rr, rows, stamp = self._rerun, frame.features, frame.stamp
        self._past.append(rows)
        self._calibrate(frame)
        tracked, alone = rows[rows["track_id"] > 0], rows[rows["track_id"] == 0]
        places, detected = _places(tracked, "u", "v"), _places(tracked, "u_detected", "v_detected")
        shades = colours(tracked["track_length"])
        paths = [trail + CENTRE for trail in trails(self._past)]
        moves = np.stack([detected, places], axis=1)
        outlines = ellipses(tracked, self._scale) + CENTRE
        for name, shape in {
            "tracks": rr.LineStrips2D(paths, colors=shades, radii=rr.Radius.ui_points(0.7)),
            "refined": rr.Points2D(places, colors=shades, radii=rr.Radius.ui_points(2)),
            "detected": rr.Points2D(detected, colors=[_RED], radii=rr.Radius.ui_points(1)),
            "moves": rr.LineStrips2D(moves, colors=[_WHITE], radii=rr.Radius.ui_points(0.4)),
            "covariances": rr.LineStrips2D(
                outlines, colors=[_WHITE], radii=rr.Radius.ui_points(0.4)
            ),
            "untracked": rr.Points2D(
                _places(alone, "u", "v"), colors=[_GRAY], radii=rr.Radius.ui_points(1)
            ),
        }.items():
            self._log(f"{IMAGE}/{name}", shape, stamp=stamp)
        inliers = int((frame.matches["inlier"] > 0).sum())
        old = int((tracked["track_length"] > 1).sum())  # those that this frame opens are no news
        for name, count in {"tracks": old, "inlier_matches": inliers}.items():
            self._log(f"counts/{name}", rr.Scalars(count), stamp=stamp)

    def _calibrate(self, frame: PublishedFrame) -> None:
        """Tell the camera where it has changed; Rerun knows no distortion."""
        camera = frame.camera
        told = (frame.size, None if camera is None else tuple(camera.matrix.ravel()))
        if camera is None or told == self._calibration:
            return
        self._calibration = told
        matrix = camera.matrix.copy()
        matrix[:2, 2] += CENTRE
        view = self._rerun.Pinhole(
            image_from_camera=matrix,
            resolution=frame.size,
            camera_xyz=self._rerun.ViewCoordinates.RDF,
        )
        self._log(IMAGE, view, stamp=frame.stamp)

    def add_image(self, stamp: int, image: NDArray[Any]) -> None:
        """Show an image, ``(H, W)`` gray or ``(H, W, 3)`` BGR, uint8 or uint16."""
        if image.dtype == np.uint16:
            image = np.rint(image / 257).astype(np.uint8)
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        shape = self._rerun.EncodedImage(contents=data.tobytes(), media_type="image/jpeg")
        self._log(IMAGE, shape, stamp=stamp)

    def add_trajectory(
        self, name: str, stamps: NDArray[np.int64], poses: NDArray[np.float64], number: int = 0
    ) -> None:
        """Draw a path; the first one, number 0, moves the camera and says which way is up.

        Parameters
        ----------
        name
            Of its entity.
        stamps
            ``(N,)`` integer nanoseconds.
        poses
            ``(N, 4, 4)`` T_world_camera; those with NaN are left out.
        number
            How many came before it.
        """
        rr = self._rerun
        known = np.isfinite(poses).all(axis=(1, 2))
        stamps, poses = stamps[known], poses[known]
        if not len(poses):
            return
        colour = _PATHS[number % len(_PATHS)]
        width = rr.Radius.ui_points(1.5)
        path = rr.LineStrips3D([poses[:, :3, 3]], colors=[colour], radii=width)
        self._log(f"world/trajectory/{name}", path)
        if number:
            return
        self._log("world", getattr(rr.ViewCoordinates, f"RIGHT_HAND_{up(poses)}"))
        for stamp, pose in zip(stamps.tolist(), poses, strict=True):
            place = rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3])
            self._log(CAMERA, place, stamp=stamp)

    def add_points(self, points: NDArray[np.float64], stamp: int | None = None) -> None:
        """Draw the points of a map, ``(N, 3)``, at a stamp (ns) or for all time."""
        rr = self._rerun
        known = points[np.isfinite(points).all(axis=1)]
        shape = rr.Points3D(known, colors=[_GRAY], radii=rr.Radius.ui_points(1))
        self._log("world/landmarks", shape, stamp=stamp)


@contextmanager
def opened(out: Path | None, in_space: bool) -> Iterator[Any]:
    """Open a stream to a file or, without `out`, to a viewer that is started.

    Parameters
    ----------
    out
        The ``.rrd`` file, written in full when the block ends.
    in_space
        Whether there is a trajectory or a map to show beside the image.
    """
    rr = load_rerun()
    stream = rr.RecordingStream("d2_ros")
    layout = _layout(rr.blueprint, in_space)
    try:
        if out is None:
            stream.spawn(default_blueprint=layout)
        else:
            stream.save(out, default_blueprint=layout)
        yield stream
    except (OSError, RuntimeError) as error:
        place = "start a viewer" if out is None else f"write {out}"
        raise D2RosError(f"Rerun cannot {place}: {error}") from None
    finally:
        stream.flush()
        stream.disconnect()


def _layout(blueprint: Any, in_space: bool) -> Any:
    views = [blueprint.Spatial2DView(origin=IMAGE, name="image")]
    if in_space:
        # What is drawn on the image would be drawn on its plane in space once more.
        contents = ["world/**", *(f"- {IMAGE}/{name}" for name in ("tracks/**", "untracked/**"))]
        contents += [f"- {IMAGE}/{name}/**" for name in ("detected", "moves", "covariances")]
        views.append(blueprint.Spatial3DView(origin="world", contents=contents, name="map"))
    rows = [blueprint.Horizontal(*views), blueprint.TimeSeriesView(origin="counts", name="counts")]
    return blueprint.Blueprint(
        blueprint.Vertical(*rows, row_shares=[4, 1]),
        blueprint.TimePanel(timeline=TIMELINE),
        collapse_panels=True,
    )


def up(poses: NDArray[np.float64]) -> str:
    """Return the world's axis that points most upwards, as cameras are mostly held upright.

    Parameters
    ----------
    poses
        ``(N, 4, 4)`` T_world_camera; y of a camera points down.
    """
    axis = -poses[:, :3, 1].mean(axis=0)
    largest = int(np.abs(axis).argmax())
    return _UP[largest, bool(axis[largest] > 0)]


def _places(rows: NDArray[np.void], u: str, v: str) -> NDArray[np.float64]:
    return columns(rows, u, v) + CENTRE
