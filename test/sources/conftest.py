"""What the tests of damaged recordings share."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

GIBIBYTE = 1 << 30


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Let no allocation take the process more than a gibibyte beyond what it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + GIBIBYTE, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
