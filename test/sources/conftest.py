from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture
def real_data():
    """Path of a folder of the shared recordings; skips where it is absent."""

    def find(name: str) -> Path:
        path = DATA / name
        if not path.is_dir():
            pytest.skip(f"real recording {path} is not on this machine")
        return path

    return find
