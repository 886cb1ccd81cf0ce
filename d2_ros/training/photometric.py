"""Changes of light, sensor and compression that leave every point where it is."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from d2_ros.training.config import AugmentationConfig

Image = NDArray[np.uint8]


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
    light = shade(image.astype(np.float64), rng, rng.uniform(0, settings.shadow))
    light = blur(light, rng.uniform(0, settings.blur))
    gain, gamma = np.exp(rng.uniform(-1, 1, 2) * (settings.gain, settings.gamma))
    light = expose(light, gain, gamma)
    light = light + rng.normal(0, 1, light.shape) * rng.uniform(0, settings.noise)
    seen = np.rint(np.clip(light, 0, 255)).astype(np.uint8)
    return compress(seen, int(rng.integers(settings.jpeg, 101)))


def shade(
    light: NDArray[np.float64], rng: np.random.Generator, strength: float
) -> NDArray[np.float64]:
    """Darken one side of a random line by a share of `strength`, with a soft edge."""
    height, width = light.shape[:2]
    angle, softness = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.3)
    u, v = rng.uniform(0, 1, 2) * (width, height)
    columns, rows = np.arange(width) - u, np.arange(height)[:, None] - v
    away = (np.cos(angle) * columns + np.sin(angle) * rows) / max(width, height)
    covered = np.clip(0.5 + away / softness, 0, 1)
    return np.asarray(light * (1 - strength * covered)[..., None])


def blur(light: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Gaussian blur; a standard deviation below a tenth of a pixel changes nothing."""
    return np.asarray(cv2.GaussianBlur(light, (0, 0), sigma) if sigma >= 0.1 else light)


def expose(light: NDArray[np.float64], gain: float, gamma: float) -> NDArray[np.float64]:
    """Gray values 0 to 255 under another exposure and response curve."""
    return np.asarray(255 * np.clip(gain * light / 255, 0, 1) ** gamma)


def compress(image: Image, quality: int) -> Image:
    """Through a JPEG of that quality and back; 100 changes nothing."""
    if quality >= 100:
        return image
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
