"""Small data that every test of the training may use."""

import cv2
import numpy as np
import pytest
import skimage.data

from d2_ros.training.config import AugmentationConfig

NO_LIGHT = {"blur": 0.0, "gain": 0.0, "gamma": 0.0, "noise": 0.0, "jpeg": 100, "shadow": 0.0,
            "lamps": 0, "tint": 0.0, "haze": 0.0, "night": 0.0}  # fmt: skip


@pytest.fixture(scope="session")
def photograph():
    """``(256, 256, 3)`` uint8 BGR."""
    return cv2.resize(skimage.data.astronaut()[..., ::-1], (256, 256), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory, photograph):
    """A folder of five different photographs."""
    folder = tmp_path_factory.mktemp("photographs")
    for index in range(5):
        image = np.roll(np.rot90(photograph, index), 40 * index, axis=1)
        cv2.imwrite(str(folder / f"{index}.png"), image)
    return folder


@pytest.fixture
def geometry_only():
    """Random homographies, but no change of light."""
    return AugmentationConfig(**NO_LIGHT)


def _gray_at(image, pixels):
    gray = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32), (0, 0), 1)
    u, v = pixels.astype(np.float32).T
    return cv2.remap(gray, u[:, None], v[:, None], cv2.INTER_LINEAR)[:, 0]


@pytest.fixture(scope="session")
def likeness():
    """How well the gray values at a pair's correspondences correlate."""

    def measure(pair):
        values = _gray_at(pair.first, pair.pixels), _gray_at(pair.second, pair.pixels_second)
        return float(np.corrcoef(*values)[0, 1])

    return measure
