"""What holds for every test."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"

# A shell that starts the tests in the background leaves Ctrl-C ignored, and every process the
# tests start would inherit that; the tests that press Ctrl-C need it to work.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def real_data():
    """Path of a file or folder of the shared recordings; skips where it is absent."""

    def find(name: str) -> Path:
        path = DATA / name
        if not path.exists():
            pytest.skip(f"real recording {path} is not on this machine")
        return path

    return find
