"""One network for all tests of the features, loaded once."""

import numpy as np
import pytest
import skimage.data

from d2_ros.config import Config
from d2_ros.features.extractor import Extractor


@pytest.fixture(scope="session")
def extractor():
    return Extractor(Config(device="cpu"))


@pytest.fixture(scope="session")
def photograph():
    """``(240, 320, 3)`` uint8 BGR with texture, edges, blur and flat places."""
    return np.ascontiguousarray(skimage.data.astronaut()[:240, 100:420, ::-1])


@pytest.fixture(scope="session")
def response(extractor, photograph):
    return extractor.respond([photograph])[0]
