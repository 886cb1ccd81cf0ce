"""A view graph as COLMAP's database and, at known poses, as its model.

COLMAP puts the centre of the top-left pixel at (0.5, 0.5), this package at (0, 0): half a pixel is
added to keypoints and principal points on the way out, and taken away on the way in.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError, optional_import
from d2_ros.export.view_graph import View, ViewGraph

if TYPE_CHECKING:
    import pycolmap

CORNER = 0.5
"""COLMAP's place of the centre of the top-left pixel, px."""

UNKNOWN_FOCAL = 1.2
"""Focal length of an uncalibrated camera over its long edge: COLMAP's own first guess."""

SEED = 0
"""Of COLMAP's random choices, so that the same bag gives the same model."""

PRIORS = ("qw", "qx", "qy", "qz", "tx", "ty", "tz")
"""Columns ``prior_...`` of an image that COLMAP 3 asks for by name and COLMAP 4 has no more."""

MAX_ERROR, MIN_ANGLE = 4.0, 1.5
"""px and degrees: what COLMAP's mapper filters by after each adjustment."""


def load_pycolmap() -> ModuleType:
    """Import pycolmap.

    Raises
    ------
    D2RosError
        If it is not installed.
    """
    with optional_import("COLMAP's files take pycolmap; install it with `pip install pycolmap`"):
        import pycolmap
    return pycolmap


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep COLMAP's log from stderr: pycolmap 4.2 tells every step, whatever level is set."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def colmap_camera(camera: Camera | None, size: tuple[int, int]) -> pycolmap.Camera:
    """Return the camera in COLMAP's model.

    Parameters
    ----------
    camera
        ``plumb_bob`` becomes OPENCV (FULL_OPENCV with a third radial coefficient),
        ``rational_polynomial`` FULL_OPENCV, ``equidistant`` OPENCV_FISHEYE. None, no calibration:
        SIMPLE_RADIAL with COLMAP's own guess of the focal length, marked as one.
    size
        (width, height) of the image, px.

    Raises
    ------
    D2RosError
        For coefficients that no model of COLMAP has.
    """
    pycolmap = load_pycolmap()
    width, height = size
    if camera is None:
        focal = UNKNOWN_FOCAL * max(size)
        model = pycolmap.CameraModelId.SIMPLE_RADIAL
        return pycolmap.Camera.create_from_model_id(
            pycolmap.INVALID_CAMERA_ID, model, focal, width, height
        )
    (fx, skew, cx), (_, fy, cy) = camera.matrix[:2]
    if abs(skew) > 1e-6 * fx:
        raise D2RosError(f"the calibration has a skew of {skew:g} px, which no model of COLMAP has")
    model, distortion = _distortion(camera)
    return pycolmap.Camera(
        model=model,
        width=width,
        height=height,
        params=[fx, fy, cx + CORNER, cy + CORNER, *distortion],
        has_prior_focal_length=True,
    )


def _distortion(camera: Camera) -> tuple[str, list[float]]:
    if camera.model == "equidistant":
        return "OPENCV_FISHEYE", camera.distortion.tolist()
    if camera.distortion[8:].any():
        raise D2RosError(
            f"rational_polynomial with {len(camera.distortion)} coefficients has thin prism or "
            "tilt terms, which COLMAP's FULL_OPENCV has not; undistort the images first"
        )
    full = np.zeros(8)
    full[: len(camera.distortion[:8])] = camera.distortion[:8]
    if full[4:].any():
        return "FULL_OPENCV", full.tolist()
    return "OPENCV", full[:4].tolist()


def write_database(
    path: Path, graph: ViewGraph, T_world_camera: NDArray[np.float64] | None = None
) -> Mapping[int, int]:
    """Write cameras, images, keypoints, matches and verified geometries to a new database.

    Matches are verified already, by the front-end: each pair's are the inliers of its geometry.

    Parameters
    ----------
    path
        A file that is not there.
    graph
        What was observed.
    T_world_camera
        ``(V, 4, 4)`` poses, NaN where unknown; a pair of which both are known gets its relative
        pose and essential matrix from them.

    Returns
    -------
    Number of a view -> id of its image.
    """
    pycolmap = load_pycolmap()
    with pycolmap.Database.open(path) as database, pycolmap.DatabaseTransaction(database):
        cameras: dict[bytes, Any] = {}
        images: dict[int, int] = {}
        for number, view in enumerate(graph.views):
            camera = cameras.setdefault(_key(view), colmap_camera(view.camera, view.size))
            if camera.camera_id == pycolmap.INVALID_CAMERA_ID:
                camera.camera_id = database.write_camera(camera)
                rig = pycolmap.Rig(rig_id=camera.camera_id)
                rig.add_ref_sensor(camera.sensor_id)
                database.write_rig(rig, use_rig_id=True)
            images[number] = _write_image(database, view, camera)
        for (first, second), rows in graph.pairs.items():
            ends = images[first], images[second]
            database.write_matches(*ends, rows)
            database.write_two_view_geometry(
                *ends, _geometry(graph, (first, second), rows, T_world_camera)
            )
    with closing(sqlite3.connect(path)) as tables, tables:
        for name in PRIORS:
            tables.execute(f"ALTER TABLE images ADD COLUMN prior_{name} REAL")
    return images


def _key(view: View) -> bytes:
    camera = view.camera
    size = np.array(view.size).tobytes()
    if camera is None:
        return size
    return size + camera.model.encode() + camera.matrix.tobytes() + camera.distortion.tobytes()


def _write_image(database: pycolmap.Database, view: View, camera: pycolmap.Camera) -> int:
    pycolmap = load_pycolmap()
    image = int(database.write_image(pycolmap.Image(name=view.name, camera_id=camera.camera_id)))
    frame = pycolmap.Frame()
    frame.rig_id = camera.camera_id
    frame.add_data_id(database.read_image(image).data_id)
    database.write_frame(frame)
    database.write_keypoints(image, (view.keypoints + CORNER).astype(np.float32))
    return image


def _geometry(
    graph: ViewGraph,
    pair: tuple[int, int],
    rows: NDArray[np.uint32],
    T_world_camera: NDArray[np.float64] | None,
) -> pycolmap.TwoViewGeometry:
    pycolmap = load_pycolmap()
    calibrated = all(graph.views[number].camera is not None for number in pair)
    kind = pycolmap.TwoViewGeometryConfiguration
    geometry = pycolmap.TwoViewGeometry()
    geometry.config = kind.CALIBRATED if calibrated else kind.UNCALIBRATED
    geometry.inlier_matches = rows
    if T_world_camera is not None and calibrated:
        T_second_first = np.linalg.inv(T_world_camera[pair[1]]) @ T_world_camera[pair[0]]
        if np.isfinite(T_second_first).all():
            geometry.cam2_from_cam1 = pycolmap.Rigid3d(T_second_first[:3])
            geometry.E = pycolmap.essential_matrix_from_pose(geometry.cam2_from_cam1)
    return geometry


def triangulate(
    graph: ViewGraph,
    database: Path,
    images: Mapping[int, int],
    T_world_camera: NDArray[np.float64],
    out: Path,
    image_folder: Path | None = None,
) -> pycolmap.Reconstruction:
    """Triangulate the matches at known poses and write the model.

    Parameters
    ----------
    graph, images
        What :func:`write_database` was given, and what it returned.
    database
        Where it has written.
    T_world_camera
        ``(V, 4, 4)`` poses of the views; those with NaN are left out of the model.
    out
        An existing folder, for ``cameras.bin``, ``images.bin``, ``points3D.bin`` and so on.
    image_folder
        Images by their views' names, to colour the points.

    Raises
    ------
    D2RosError
        If fewer than two views have a calibration and a pose.
    """
    pycolmap = load_pycolmap()
    posed = [
        number
        for number, view in enumerate(graph.views)
        if view.camera is not None and np.isfinite(T_world_camera[number]).all()
    ]
    if len(posed) < 2:
        raise D2RosError(
            f"{len(posed)} of {len(graph.views)} images have a calibration and a known pose; two "
            "or more are needed: give poses by the clock of the images"
        )
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(database) as content:
        for camera in content.read_all_cameras():
            model.add_camera_with_trivial_rig(camera)
        for number in posed:
            image = content.read_image(images[number])
            pose = pycolmap.Rigid3d(np.linalg.inv(T_world_camera[number])[:3])
            fresh = pycolmap.Image(
                name=image.name, camera_id=image.camera_id, image_id=image.image_id
            )
            model.add_image_with_trivial_frame(fresh, pose)
    options = pycolmap.IncrementalPipelineOptions()
    options.extract_colors = image_folder is not None
    options.random_seed = SEED
    options.num_threads = 1
    places = database, image_folder or out, out
    with _quiet():
        return pycolmap.triangulate_points(model, *places, options=options)


def adjust(model: pycolmap.Reconstruction) -> None:
    """Bundle adjustment of all poses and points, in place; the calibration is held.

    Every observation counts by the square of its reprojection error. As in COLMAP's mapper, what
    lies :data:`MAX_ERROR` off, behind a camera or at less than :data:`MIN_ANGLE` is then left out,
    and the rest adjusted once more.
    """
    pycolmap = load_pycolmap()
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length = options.refine_extra_params = False
    options.print_summary = False
    options.ceres.solver_options.num_threads = 1  # the sums of several come in any order
    filtering = pycolmap.ObservationManager(model)
    with _quiet():
        pycolmap.bundle_adjustment(model, options)
        if filtering.filter_all_points3D(MAX_ERROR, MIN_ANGLE):
            pycolmap.bundle_adjustment(model, options)
            filtering.filter_all_points3D(MAX_ERROR, MIN_ANGLE)
    model.update_point_3d_errors()
