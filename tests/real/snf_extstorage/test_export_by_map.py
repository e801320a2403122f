"""What `image export` gives when the name that has the map becomes another image's meanwhile."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest
from snf_extstorage.catalog import Catalog
from snf_extstorage.commands.image import _export
from snf_extstorage.volume import Volumes

from synnefo_light.store import names
from synnefo_light.store.directory import make_directory
from synnefo_light.store.errors import Absent, Conflict
from synnefo_light.store.formats import Format
from synnefo_light.store.identity import MapId
from synnefo_light.store.store import Store, open_store
from tests.real.store.contents import block, image


class Replacing(Catalog):
    """Between the look at the name and its pin somebody removes it and gives it to another image."""

    def __init__(self, store: Store, *, replace: bool) -> None:
        super().__init__(store, cast("Volumes", None), engine="directory")
        self.replace = replace

    def commit(self, name: str) -> MapId:
        if self.replace:
            names.remove(self.store, name)
            image(self.store, name, {0: 2})
        return super().commit(name)


def exported(catalog: Catalog, text: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written))
    _export(catalog, text, Path("-"), ranges=True, out=lambda text: None)
    return written.getvalue()


def test_what_was_asked_for_by_its_map_never_becomes_another_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(make_directory(tmp_path / "store", Format(uuid=uuid4(), grace_s=3600)))
    map_id = image(store, "debian", {0: 1})
    assert block(1) in exported(Replacing(store, replace=False), f"map:{map_id}", monkeypatch)
    for text in (f"map:{map_id}", "debian"):
        names.remove(store, "debian")
        image(store, "debian", {0: 1})
        with pytest.raises(Conflict, match="debian was replaced while it was being exported"):
            exported(Replacing(store, replace=True), text, monkeypatch)
    # From here on nobody has that content by a name.
    with pytest.raises(Absent, match="has the map"):
        exported(Replacing(store, replace=False), f"map:{map_id}", monkeypatch)
