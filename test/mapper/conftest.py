"""The scene of the mapper's tests, as fixtures."""

from __future__ import annotations

import pytest
import scene

from d2_ros.mapper.config import MapperConfig
from d2_ros.mapper.mapper import Mapper


@pytest.fixture
def make_scene():
    return scene.Scene


@pytest.fixture
def make_mapper():
    return lambda imu=None, **values: Mapper(MapperConfig(**values), imu)


@pytest.fixture
def send():
    return scene.play


@pytest.fixture
def judge():
    return scene.errors


@pytest.fixture
def camera():
    return scene.CAMERA


@pytest.fixture
def tracks_of():
    return scene.tracks
