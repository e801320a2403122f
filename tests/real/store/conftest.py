"""A fresh store on each backend; every test of this folder that asks for `store` runs on each of them."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from synnefo_light.store.directory import make_directory
from synnefo_light.store.formats import Format
from synnefo_light.store.store import Store, open_store

FORMAT = Format(uuid=UUID("6f6a2cb0-4d0d-4f0c-8a53-2d2d5c8d9a10"), grace_s=3600)


@pytest.fixture(params=["directory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(make_directory(tmp_path / "store", FORMAT))
