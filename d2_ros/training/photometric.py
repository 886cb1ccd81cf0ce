"""Changes of light, sensor and compression that leave every point where it is."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.training.config import AugmentationConfig

Image = NDArray[np.uint8]
Light = NDArray[np.float32]
"""``(H, W, 3)`` float32, 0 to 255 where it is not too bright."""

_NIGHT = (0.015, 0.2)  # share of the light that is left at night
_ELECTRONS, _READ_NOISE = 4.0, 2.0  # per gray value of a small sensor; of reading them out
_LAMPLIGHT = (0.55, 0.85, 1.0)  # BGR, of what light there is


def change(image: Image, rng: np.random.Generator, settings: AugmentationConfig) -> Image:
    """Apply every change, in the order of a camera, each as strong as `rng` says.

    Parameters
    ----------
    image
        ``(H, W, 3)`` uint8.
    rng
        Draws every strength uniformly, up to that of `settings`.
    settings
        The strongest changes; 0 (quality 100) leaves one out.
    """
    light = shade(image.astype(np.float32), rng, rng.uniform(0, settings.shadow))
    for _ in range(int(rng.integers(0, settings.lamps + 1))):
        light = lamp(light, rng, rng.uniform(0, settings.lamp))
    light = tint(light, np.exp(rng.uniform(-1, 1, 3) * settings.tint))
    light = haze(light, rng, rng.uniform(0, settings.haze))
    light = blur(light, rng.uniform(0, settings.blur))
    if rng.uniform() < settings.night:
        light = night(light, rng)
    gain, gamma = np.exp(rng.uniform(-1, 1, 2) * (settings.gain, settings.gamma))
    light = expose(light, gain, gamma)
    light = light + _noise(rng, light.shape) * rng.uniform(0, settings.noise)
    seen = np.rint(np.clip(light, 0, 255)).astype(np.uint8)
    return compress(seen, int(rng.integers(settings.jpeg, 101)))


def shade(light: Light, rng: np.random.Generator, strength: float) -> Light:
    """Darken one side of a random line by a share of `strength`, with a soft edge."""
    height, width = light.shape[:2]
    angle, softness = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.3)
    u, v = rng.uniform(0, 1, 2) * (width, height)
    columns, rows = np.arange(width) - u, np.arange(height)[:, None] - v
    away = (np.cos(angle) * columns + np.sin(angle) * rows) / max(width, height)
    covered = np.clip(0.5 + away / softness, 0, 1)
    return np.asarray(light * (1 - strength * covered)[..., None], np.float32)


def lamp(light: Light, rng: np.random.Generator, strength: float) -> Light:
    """Light up a round place in a colour of its own; the exposure follows.

    Against what is far from it, its middle becomes brighter by the factor 1 + `strength`.
    """
    height, width = light.shape[:2]
    radius = rng.uniform(0.1, 0.5) * max(width, height)
    u, v = rng.uniform(0, 1, 2) * (width, height)
    columns, rows = np.arange(width) - u, np.arange(height)[:, None] - v
    reach = np.exp(-(columns**2 + rows**2) / (2 * radius**2))
    gain = 1 + strength * reach[..., None] * rng.uniform(0.6, 1, 3)
    return np.asarray(light * (gain / gain.mean()), np.float32)


def tint(light: Light, gains: NDArray[np.float64]) -> Light:
    """Weigh blue, green and red by ``(3,)`` gains: another white balance."""
    return np.asarray(light * gains, np.float32)


def haze(light: Light, rng: np.random.Generator, strength: float) -> Light:
    """Mix with bright gray, by a share of `strength` at the top, of less further down."""
    airlight, least = rng.uniform(150, 240), rng.uniform(0.2, 1)
    share = strength * np.linspace(1, least, len(light))[:, None, None]
    return np.asarray(light * (1 - share) + airlight * share, np.float32)


def night(light: Light, rng: np.random.Generator) -> Light:
    """Leave a small part of the light, yellowish, and amplify it to half brightness again.

    With the noise of the few electrons that were left, and of reading them out.
    """
    expected = np.maximum(light, 0) * _LAMPLIGHT * (rng.uniform(*_NIGHT) * _ELECTRONS)
    electrons = rng.poisson(expected) + _noise(rng, light.shape) * _READ_NOISE
    level = min(0.5 * float(light.mean()), 100.0)
    return np.asarray(electrons * (level / max(float(expected.mean()), 1e-3)), np.float32)


def blur(light: Light, sigma: float) -> Light:
    """Gaussian blur; a standard deviation below a tenth of a pixel changes nothing."""
    return np.asarray(cv2.GaussianBlur(light, (0, 0), sigma) if sigma >= 0.1 else light)


def expose(light: Light, gain: float, gamma: float) -> Light:
    """Gray values 0 to 255 under another exposure and response curve."""
    return np.asarray(255 * np.clip(gain * light / 255, 0, 1) ** gamma, np.float32)


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Light:
    """Independent, of unit variance."""
    return rng.standard_normal(shape, np.float32)


def compress(image: Image, quality: int) -> Image:
    """Through a JPEG of that quality and back; 100 changes nothing."""
    if quality >= 100:
        return image
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
