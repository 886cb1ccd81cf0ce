"""Pairs of images whose light differs and whose homography is known exactly.

Made from photographs that come with scikit-image, so that any clone can judge by them. Both
images are views of one photograph through known homographies, rendered anew from its floating
point pixels; the second is then seen in another light, or out of focus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.evaluation.seen import Truth
from d2_ros.sources.synthetic.textures import photograph

PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "motorcycle", "rocket")
"""Names of :func:`d2_ros.sources.synthetic.textures.photograph`."""

STRENGTHS: Mapping[str, tuple[float, ...]] = {
    "gamma": (1.5, 2.0, 2.7, 3.6, 5.0),  # exponent of the gray values
    "shading": (0.4, 0.6, 0.75, 0.87, 0.95),  # share of the light that is gone in full shade
    "night": (2.0, 3.0, 4.0, 5.0, 6.0),  # stops of light less
    "exposure": (0.5, 1.0, 1.5, 2.0, 2.5),  # stops of light more
    "blur": (0.0025, 0.005, 0.0075, 0.01, 0.015),  # standard deviation, share of the width
}
"""The changes, each at five strengths; strength 0 is no change."""

UNCHANGED = "unchanged"
"""Kind of the pairs that differ by the viewpoint alone."""

ROTATION_DEG, ZOOM, SHIFT, TILT = 8.0, 1.1, 0.05, 0.1
"""Most of the viewpoint change: degrees, factor, shares of the width (of it, along 1 / depth)."""

_WINDOW = 0.7  # share of the largest rectangle in the photograph that the first image shows
_FINER = 2  # pixels are averages of so many squared: no aliasing, finer steps of interpolation
_DISPLAY = 2.2  # exponent from gray values to light
_ELECTRONS, _READ_NOISE = 1000.0, 2.5  # at white by day; standard deviation of the read-out
_NIGHT_CURVE, _NIGHT_WHITE = 1.4, 0.6  # exponent and height of a tone curve that keeps night dark

Float = NDArray[np.float64]


@dataclass(frozen=True)
class LightPair:
    """Two images and the map between them: ``x_second ~ homography x_first``, px.

    Attributes
    ----------
    photo
        Name of the photograph.
    kind, strength
        Change of the second image: a key of :data:`STRENGTHS` with 1 to 5, or
        :data:`UNCHANGED` with 0.
    first, second
        ``(H, W, 3)`` uint8 BGR; every pixel of either shows the photograph.
    homography
        ``(3, 3)`` float64, its scale such that third coordinates are positive.
    """

    photo: str
    kind: str
    strength: int
    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    homography: Float

    @property
    def name(self) -> str:
        """Photograph, kind and strength."""
        return f"{self.photo} {self.kind} {self.strength}"


def illumination_pairs(
    seed: int,
    size: tuple[int, int] = (320, 240),
    photographs: Sequence[str] = PHOTOGRAPHS,
) -> Iterator[LightPair]:
    """Make the test set: of each photograph one unchanged pair, and one per kind and strength.

    The viewpoint, the shade and the noise of a photograph are drawn once, so that the pairs of
    a kind differ by the strength alone.

    Parameters
    ----------
    seed
        Draws viewpoints, shades and noise; the same seed gives the same bytes.
    size
        (width, height) of the images, px.
    photographs
        Names; the pairs of one do not depend on the others.

    Raises
    ------
    D2RosError
        If scikit-image is not installed.
    """
    for photo in photographs:
        place = PHOTOGRAPHS.index(photo)
        image = photograph(photo).astype(np.float32)
        base, homography = _views(image.shape[:2], size, np.random.default_rng([seed, place]))
        first, plain = (_render(image, H, size) for H in (base, homography @ base))
        before = _levels(first)
        yield LightPair(photo, UNCHANGED, 0, before, _levels(plain), homography)
        for number, kind in enumerate(STRENGTHS):
            for strength in range(1, len(STRENGTHS[kind]) + 1):
                rng = np.random.default_rng([seed, place, 1 + number])
                after = _levels(change(plain, kind, strength, rng))
                yield LightPair(photo, kind, strength, before, after, homography)


def seen_by(homography: Float, size: tuple[int, int]) -> Truth:
    """The truth of a pair: where places of the first image lie, and which the second one shows.

    Parameters
    ----------
    homography
        ``(3, 3)`` from the first to the second image.
    size
        (width, height) of the second image, px.
    """
    edge = np.array(size) - 0.5

    def truth(pixels: Float) -> tuple[Float, NDArray[np.bool_]]:
        there = transform(pixels, homography)
        return there, np.asarray(((there >= -0.5) & (there <= edge)).all(axis=1))

    return truth


def transform(pixels: Float, homography: Float) -> Float:
    """``(N, 2)`` places through a homography."""
    there = np.column_stack([pixels, np.ones(len(pixels))]) @ homography.T
    return np.asarray(there[:, :2] / there[:, 2:])


def change(level: Float, kind: str, strength: int, rng: np.random.Generator) -> Float:
    """Show an image in another light, or out of focus.

    Parameters
    ----------
    level
        ``(H, W, 3)`` gray values, 0 to 1.
    kind, strength
        A key of :data:`STRENGTHS`, and 1 to 5.
    rng
        Draws shade and noise, which do not depend on the strength.
    """
    return _CHANGES[kind](level, STRENGTHS[kind][strength - 1], rng)


def _gamma(level: Float, exponent: float, rng: np.random.Generator) -> Float:
    return np.asarray(level**exponent)


def _shading(level: Float, depth: float, rng: np.random.Generator) -> Float:
    """Shade as of objects beside the picture: smooth random shapes with soft edges."""
    height, width = level.shape[:2]
    noise = rng.normal(size=(height, width))
    field = _smooth(noise, width / 10)
    covered = 1 / (1 + np.exp(-4 * (field - np.median(field)) / field.std()))
    return np.asarray(_seen(_light(level) * (1 - depth * covered)[..., None]))


def _night(level: Float, stops: float, rng: np.random.Generator) -> Float:
    """Little light, amplified: shot and read-out noise, and a tone curve that stays dark."""
    white = _ELECTRONS * 2.0**-stops
    electrons = white * _light(level)
    noise = rng.normal(size=level.shape) * np.sqrt(electrons + _READ_NOISE**2)
    return np.asarray(_NIGHT_WHITE * _seen((electrons + noise) / white) ** _NIGHT_CURVE)


def _exposure(level: Float, stops: float, rng: np.random.Generator) -> Float:
    return _seen(_light(level) * 2.0**stops)


def _blur(level: Float, share: float, rng: np.random.Generator) -> Float:
    sigma = share * level.shape[1]
    return _seen(_smooth(_light(level), sigma))


def _smooth(image: Float, sigma: float) -> Float:
    return np.asarray(
        cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float64
    )


_CHANGES: Mapping[str, Callable[[Float, float, np.random.Generator], Float]] = {
    "gamma": _gamma,
    "shading": _shading,
    "night": _night,
    "exposure": _exposure,
    "blur": _blur,
}


def _light(level: Float) -> Float:
    return np.asarray(level**_DISPLAY)


def _seen(light: Float) -> Float:
    return np.asarray(np.clip(light, 0, 1) ** (1 / _DISPLAY))


def _levels(level: Float) -> NDArray[np.uint8]:
    return np.rint(255 * level).astype(np.uint8)


def _render(photo: NDArray[np.float32], H: Float, size: tuple[int, int]) -> Float:
    """What `H` (photograph to image, px) shows of a photograph, as gray values 0 to 1."""
    finer = np.diag([_FINER, _FINER, 1.0])
    finer[:2, 2] = (_FINER - 1) / 2
    large = (size[0] * _FINER, size[1] * _FINER)
    view = cv2.warpPerspective(
        photo, finer @ H, large, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    view = cv2.resize(view, size, interpolation=cv2.INTER_AREA)
    return np.clip(view.astype(np.float64) / 255, 0, 1)


def _views(
    photo: tuple[int, ...], size: tuple[int, int], rng: np.random.Generator
) -> tuple[Float, Float]:
    """Homographies from a photograph to the first image, and from that to the second.

    Drawn anew until the photograph fills the second image as well.
    """
    width, height = size
    scale = max(width / photo[1], height / photo[0]) / _WINDOW
    base = np.diag([scale, scale, 1.0])
    base[:2, 2] = (np.array(size) - 1) / 2 - scale * (np.array(photo[1::-1]) - 1) / 2
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) - 0.5
    for attempt in count():
        H = _viewpoint(size, rng, 0.99**attempt)  # less and less far, so that it comes to an end
        back = transform(corners, np.linalg.inv(H @ base))
        if ((back >= 0) & (back <= np.array(photo[1::-1]) - 1)).all():
            break
    return base, H


def _viewpoint(size: tuple[int, int], rng: np.random.Generator, reach: float) -> Float:
    """Draw a turn, a zoom, a shift and a tilt about the centre, up to a share of the most."""
    angle = np.radians(rng.uniform(-1, 1) * reach * ROTATION_DEG)
    zoom = ZOOM ** (rng.uniform(-1, 1) * reach)
    shift = rng.uniform(-1, 1, 2) * reach * SHIFT * size[0]
    tilt = rng.uniform(-1, 1, 2) * reach * TILT / size[0]
    cosine, sine = zoom * np.cos(angle), zoom * np.sin(angle)
    motion = np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]], [*tilt, 1.0]])
    to_centre = np.eye(3)
    to_centre[:2, 2] = (1 - np.array(size)) / 2
    return np.asarray(np.linalg.inv(to_centre) @ motion @ to_centre)
