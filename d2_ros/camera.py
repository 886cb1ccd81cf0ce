"""Camera models: raw pixels <-> bearings (x, y, 1) in the camera's optical frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2_ros.distortion import Lens
from d2_ros.errors import D2RosError

MODELS = {"plumb_bob": (0, 4, 5), "rational_polynomial": (5, 8, 12, 14), "equidistant": (4,)}
"""Distortion models of ``sensor_msgs/CameraInfo`` and how many coefficients each may have."""

_MOST = 14
"""Coefficients that any driver pads to: OpenCV's most. More are no padding but a mistake."""

ALIASES = {"": "plumb_bob", "none": "plumb_bob", "fisheye": "equidistant"}
"""Other names under which drivers send them: ``none`` comes with no coefficients or zeros."""

FOCAL_RANGE = (1e-3, 1e7)
"""Focal lengths, px, that a camera may have; others would send bearings out of float32's range."""

SAME_CAMERA = 0.05
"""px: calibrations whose projections differ by less than this all over the image are the same.

A track is published with a median error of 0.03 px and a match counts as an inlier within whole
pixels, while a calibration itself is known to a tenth of a pixel at best: what drivers that round
or jitter change is invisible below this, and what a new calibration changes lies above it.
"""

_GRID = 9
"""Columns and rows of the pixels at which cameras are compared, the outermost on the border."""

_FOUND = 1e-3
"""px: a direction is that of a pixel if it is projected this close to it."""


@dataclass(frozen=True)
class Camera:
    """A calibrated camera at one image size.

    Attributes
    ----------
    width, height
        Size of the raw image, px; 0 where the calibration does not say it.
    matrix
        ``(3, 3)`` float64 intrinsics in centre-of-pixel coordinates, px.
    distortion
        ``(D,)`` float64 coefficients in the order of OpenCV and CameraInfo.
    model
        A key of :data:`MODELS`.
    """

    width: int
    height: int
    matrix: NDArray[np.float64]
    distortion: NDArray[np.float64]
    model: str = "plumb_bob"

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrix", np.asarray(self.matrix, np.float64).reshape(3, 3))
        object.__setattr__(self, "distortion", np.asarray(self.distortion, np.float64).ravel())
        if self.model not in MODELS:
            known = ", ".join(MODELS)
            raise D2RosError(f"distortion model {self.model[:40]!r} is unknown; known are {known}")
        if len(self.distortion) not in MODELS[self.model]:
            others = [name for name, counts in MODELS.items() if len(self.distortion) in counts]
            raise D2RosError(
                f"{self.model} calibration has {len(self.distortion)} coefficients; "
                f"it must have {' or '.join(map(str, MODELS[self.model]))}"
                + (f", or be named {others[0]}, which has so many" if others else "")
            )
        if not (np.isfinite(self.matrix).all() and np.isfinite(self.distortion).all()):
            raise D2RosError("calibration holds NaN or infinity; calibrate the camera again")
        focal = self.matrix[[0, 1], [0, 1]]
        if focal.min() < FOCAL_RANGE[0] or focal.max() > FOCAL_RANGE[1]:
            raise D2RosError(
                f"calibration has focal lengths {focal[0]:g} and {focal[1]:g} px; both must be "
                f"positive, {FOCAL_RANGE[0]:g} to {FOCAL_RANGE[1]:g} "
                "(all zero means the driver is not calibrated)"
            )

    @property
    def focal(self) -> float:
        """Mean focal length, px."""
        return float(self.matrix[0, 0] + self.matrix[1, 1]) / 2

    def at_size(self, width: int, height: int) -> Camera:
        """The same camera, of that image size where it has none of its own."""
        if self.width and self.height:
            return self
        return replace(self, width=self.width or width, height=self.height or height)

    @cached_property
    def lens(self) -> Lens:
        """What of the distortion can be inverted."""
        return Lens.of(self.model, self.distortion)

    def bearings(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Undistort raw pixels.

        Parameters
        ----------
        pixels
            ``(N, 2)`` (u, v), px.

        Returns
        -------
        ``(N, 3)`` float64 bearings (x, y, 1), optical frame. NaN, all three, where the pixel has
        none: 90 degrees and more from the axis, which (x, y, 1) cannot say, and where the model is
        no longer monotonic, so that the pixel may be of one direction or of another.
        """
        pixels = np.asarray(pixels, np.float64).reshape(-1, 2)
        if len(pixels) == 0:
            return np.empty((0, 3))
        focal = self.matrix[[0, 1], [0, 1]]
        flat, error = self.lens.unbend((pixels - self.matrix[:2, 2]) / focal)
        bearings = np.column_stack([flat, np.ones(len(pixels))])
        bearings[~(np.isfinite(flat).all(1) & (error * focal.max() < _FOUND))] = np.nan
        return bearings

    def project(self, points: ArrayLike) -> NDArray[np.float64]:
        """Project points of the optical frame into the raw image.

        Parameters
        ----------
        points
            ``(N, 3)``, optical frame.

        Returns
        -------
        ``(N, 2)`` float64 pixels (u, v); NaN for points that are not in front of the camera, or so
        far aside that the model is no longer monotonic.
        """
        points = np.asarray(points, np.float64).reshape(-1, 3)
        front = points[:, 2] > 0
        flat = np.full((len(points), 2), np.nan)
        flat[front] = points[front, :2] / points[front, 2:]
        pixels = self._projected(flat)
        pixels[~self.lens.sees(flat)] = np.nan
        return pixels

    def _projected(self, flat: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the model says of ``(N, 2)`` directions at depth 1, even where it is senseless."""
        if len(flat) == 0:
            return np.empty((0, 2))
        zero, rays = np.zeros(3), np.column_stack([flat, np.ones(len(flat))])[:, None]
        if self.model == "equidistant":
            pixels, _ = cv2.fisheye.projectPoints(rays, zero, zero, self.matrix, self.distortion)
        else:
            pixels, _ = cv2.projectPoints(rays, zero, zero, self.matrix, self.distortion)
        return np.asarray(pixels, np.float64).reshape(-1, 2)


def same_camera(a: Camera | None, b: Camera | None) -> bool:
    """Return whether two calibrations say the same of the whole image.

    Two are the same if their sizes and models are equal and every direction that `a` sees falls
    within :data:`SAME_CAMERA` of the same pixel in both: parameters that compensate each other
    may differ. None is no calibration, and the same as None only.

    The relation is not transitive. Compare with one camera that is held, such as that of the
    keyframe window, never with the last one that was found the same: a calibration that drifts
    by less than the tolerance a message would else walk away unnoticed.
    """
    if a is None or b is None or a is b:
        return a is b
    if (a.width, a.height, a.model) != (b.width, b.height, b.model):
        return False
    if np.array_equal(a.matrix, b.matrix) and np.array_equal(a.distortion, b.distortion):
        return True
    edges = (np.linspace(-0.5, size - 0.5, _GRID) for size in (a.width, a.height))
    pixels = np.stack(np.meshgrid(*edges), -1).reshape(-1, 2)
    seen = a.bearings(pixels)[:, :2]
    seen = seen[np.isfinite(seen).all(1)]
    gap = np.linalg.norm(a._projected(seen) - b._projected(seen), axis=1)
    return len(gap) > 0 and bool((gap < SAME_CAMERA).all())


class HeldCamera:
    """The calibration and image size that a keyframe window goes by, and what ends the window.

    The camera is held from the first calibrated frame of the window on, and frames get it instead
    of their own while that is the same: calibrations that jitter leave no trace in the bearings,
    and one that drifts is found when it has drifted away from the window's, however small its
    steps. Frames without a calibration in between have no bearings and end nothing.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: the window was dropped."""
        self._camera: Camera | None = None
        self._size: tuple[int, int] | None = None

    @property
    def calibrated(self) -> bool:
        """Whether the window has a camera."""
        return self._camera is not None

    def update(self, camera: Camera | None, size: tuple[int, int]) -> tuple[Camera | None, str]:
        """Take over what the next frame comes with.

        Parameters
        ----------
        camera
            Its own calibration, or None.
        size
            Width and height of the image, px.

        Returns
        -------
        camera
            To process the frame with.
        change
            Why the window must be dropped first, to come after "because"; empty if it need not.
        """
        change = ""
        if self._size not in (None, size):
            change = "the size of the images changed"
        elif self._size is not None and camera and not same_camera(self._camera, camera):
            change = "the calibration changed" if self._camera else "a calibration came"
        if change:
            self.forget()
        self._size = size
        self._camera = self._camera or camera
        return (self._camera if camera else None), change


def from_calibration(
    width: int,
    height: int,
    model: str,
    k: ArrayLike,
    d: ArrayLike,
    p: ArrayLike | None = None,
    *,
    binning: tuple[int, int] = (0, 0),
    roi: tuple[int, int, int, int] = (0, 0, 0, 0),
    rectified: bool = False,
) -> Camera:
    """Build a camera from the fields of a ``sensor_msgs/CameraInfo``.

    Parameters
    ----------
    width, height
        Full sensor resolution of the calibration, px; 0 if it is not said.
    model
        ``distortion_model``, or one of :data:`ALIASES`.
    k, d, p
        Row-major 3x3 intrinsics, distortion coefficients and 3x4 projection matrix. Zeros beyond
        the coefficients of the model, to which some drivers pad them, are cut off.
    binning
        ``(binning_x, binning_y)``; 0 means 1.
    roi
        ``(x_offset, y_offset, width, height)`` on the unbinned sensor; all zero is the full one.
    rectified
        Images are rectified: use `p` and no distortion.

    Raises
    ------
    D2RosError
        If the calibration is unusable.
    """
    matrix: NDArray[np.float64] = np.array(k, np.float64).reshape(3, 3)
    distortion: NDArray[np.float64] = np.asarray(d, np.float64).ravel()
    if rectified:
        if p is None:
            raise D2RosError("rectified images need the projection matrix P in camera_info")
        matrix = np.array(p, np.float64).reshape(3, 4)[:, :3].copy()
        model, distortion = "plumb_bob", np.empty(0)
    model, distortion = _plain_distortion(model, distortion)
    if matrix[2, :2].any() and np.isfinite(matrix).all():
        raise D2RosError(
            f"the last row of K is {matrix[2].tolist()}; it must be 0 0 1 "
            "(K is row-major: fx 0 cx, 0 fy cy, 0 0 1)"
        )
    matrix[2] = 0, 0, 1
    offset_x, offset_y, roi_width, roi_height = roi
    matrix[0, 2] -= offset_x
    matrix[1, 2] -= offset_y
    size = np.array([roi_width or width, roi_height or height])
    bins = np.maximum(binning, 1)
    # Centre-of-pixel coordinates: pixel 0 of a binned image is the mean of the first `bins`.
    matrix[:2, :2] /= bins[:, None]
    matrix[:2, 2] = (matrix[:2, 2] + 0.5) / bins - 0.5
    binned = size // bins
    if ((binned == 0) & (size > 0)).any():
        raise D2RosError(
            f"binning {bins[0]}x{bins[1]} leaves nothing of {size[0]}x{size[1]} pixels"
        )
    return Camera(int(binned[0]), int(binned[1]), matrix, distortion, model)


def _plain_distortion(
    model: str, distortion: NDArray[np.float64]
) -> tuple[str, NDArray[np.float64]]:
    """A model's own name, and no more coefficients than it has, where that changes nothing."""
    if model == "none" and distortion.any():
        raise D2RosError(
            f"distortion model 'none' comes with coefficients {distortion.tolist()[:5]}; "
            "name their model or send none"
        )
    if model == "none":
        distortion = np.empty(0)
    model = ALIASES.get(model, model)
    counts = MODELS.get(model, ())
    if len(distortion) not in counts and len(distortion) <= _MOST:
        used = np.trim_zeros(distortion, "b")
        fitting = [count for count in counts if len(used) <= count < len(distortion)]
        distortion = distortion[: min(fitting)] if fitting else distortion
    return model, distortion


def on_pair(r: ArrayLike, p: ArrayLike, rectified: bool = False) -> NDArray[np.float64] | None:
    """Where a camera is on its stereo pair, by its ``sensor_msgs/CameraInfo``.

    Parameters
    ----------
    r, p
        R (3x3) and P (3x4), row-major: P's last column is the baseline times the focal length.
    rectified
        The images are rectified, and R leads to their frame.

    Returns
    -------
    ``(4, 4)`` ``T_pair_camera``, m, of which the pair's frame is that of the rectified left camera;
    None where R and P are unusable.
    """
    turn, projection = np.array(r, np.float64).reshape(3, 3), np.array(p, np.float64).reshape(3, 4)
    with np.errstate(invalid="ignore", divide="ignore"):
        place = -projection[:2, 3] / projection[[0, 1], [0, 1]]
    if not (np.isfinite(place).all() and np.allclose(turn @ turn.T, np.eye(3), atol=1e-3)):
        return None
    T_pair_camera = np.eye(4)
    T_pair_camera[:2, 3] = place
    if not rectified:
        T_pair_camera[:3, :3] = turn
    return T_pair_camera


def right_of(
    T_pair_left: NDArray[np.float64] | None, T_pair_right: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    """``(4, 4)`` T_left_right of two cameras on one body, m; None where it is not known."""
    if T_pair_left is None or T_pair_right is None:
        return None
    T_left_right = np.linalg.inv(T_pair_left) @ T_pair_right
    return T_left_right if T_left_right[:3, 3].any() else None


Rectification = tuple[NDArray[np.float64], NDArray[np.float64]]
"""R (3x3) and P (3x4) of a ``sensor_msgs/CameraInfo``."""


def rectification(
    left: Camera, right: Camera, T_left_right: NDArray[np.float64]
) -> tuple[Rectification, Rectification]:
    """R and P of both cameras of a stereo pair (Fusiello et al. 2000, by OpenCV).

    Parameters
    ----------
    left, right
        Their calibrations.
    T_left_right
        ``(4, 4)`` maps points of the right camera's frame into the left one's, m.
    """
    turn = T_left_right[:3, :3].T
    shift = -turn @ T_left_right[:3, 3]
    size, none = (left.width, left.height), np.zeros(5)
    # Of the distortion only the focal length of P would know, which nothing here depends on.
    R1, R2, P1, P2, *_ = cv2.stereoRectify(left.matrix, none, right.matrix, none, size, turn, shift)
    first, second, third, fourth = (np.asarray(part, np.float64) for part in (R1, P1, R2, P2))
    return (first, second), (third, fourth)
