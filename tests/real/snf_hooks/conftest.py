from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for the address of a socket."""
    with tempfile.TemporaryDirectory(prefix="hk-", dir="/tmp") as name:
        yield Path(name)
