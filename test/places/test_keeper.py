"""Keyframes kept and looked up; where the light has changed, told at places of the early maps."""

from __future__ import annotations

import numpy as np
import pytest

from d2_ros.config import AlignmentConfig, Config
from d2_ros.places import keeper as module
from d2_ros.places.keeper import Keeper
from d2_ros.places.memory import PlaceMemory
from d2_ros.places.revisit import revisit
from d2_ros.places.vlad import load_vocabulary


@pytest.mark.parametrize("mode", ["auto", "gray"])
def test_what_is_told_of_another_light_is_aligned_by_early_maps(monkeypatch, shifted, mode):
    place, known = shifted((12, -7), lambda gray: 255 - gray)
    config = Config(alignment=AlignmentConfig(mode=mode))
    keeper = Keeper(PlaceMemory([known]), load_vocabulary(), config)
    monkeypatch.setattr(module, "place_of_result", lambda *_: place)
    monkeypatch.setattr(keeper._recognition, "look", lambda new: revisit(new, known, config))
    found = keeper.take(None, None, None)
    assert found.aligned == (mode == "auto")
    off = np.linalg.norm(found.pixels - found.known_pixels + [12, -7], axis=1)
    assert (np.median(off) < 0.15) == (mode == "auto")
    assert len(keeper.memory) == 2
