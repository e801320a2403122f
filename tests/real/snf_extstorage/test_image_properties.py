"""Properties that are given when a stream is received, and those that are changed later; read back from the store."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from uuid import uuid4

import pytest
from snf_extstorage.catalog import Catalog
from snf_extstorage.commandline import parse
from snf_extstorage.directory.place import init_place
from snf_extstorage.settings import Settings
from snf_extstorage.volume import Volumes

from synnefo_light.errors import UserError
from synnefo_light.store import names, stream
from synnefo_light.store.backend import Kind
from synnefo_light.store.directory import make_directory
from synnefo_light.store.errors import Conflict
from synnefo_light.store.formats import Format
from synnefo_light.store.names import EngineSnapshot, Entry
from synnefo_light.store.store import Store, open_store
from tests.real.store.contents import UUID_A, image

Command = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    init_place(tmp_path)
    return open_store(make_directory(tmp_path / "store", Format(uuid=uuid4(), grace_s=3600)))


@pytest.fixture
def command(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`snf-store` on a store without volumes; its last line."""
    catalog = Catalog(store, cast("Volumes", None), engine="directory")
    monkeypatch.setattr("snf_extstorage.commands.image.open_catalog", lambda settings: catalog)

    def run(*words: str, stdin: bytes = b"") -> str:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
        chosen, arguments = parse(words)
        said: list[str] = []
        assert chosen.run(Settings(folder=tmp_path, reserve_percent=0), arguments, said.append) == 0
        return said[-1]

    return run


def properties(store: Store, name: str) -> Mapping[str, str]:
    return names.load(store, name).entry.properties


def test_a_stream_brings_content_and_its_receiver_the_properties(store: Store, command: Command) -> None:
    map_id = image(store, "debian", {0: 1})
    sent = io.BytesIO()
    stream.send(store, map_id, sent.write)
    command("recv", "--property", "osfamily=linux", "--property", "USERS=root me", "copy", stdin=sent.getvalue())
    assert properties(store, "copy") == {"OSFAMILY": "linux", "USERS": "root me"}
    assert names.load(store, "copy").entry.map == map_id
    command("recv", "bare", stdin=sent.getvalue())
    assert properties(store, "bare") == {}
    with pytest.raises(UserError, match="not KEY=VALUE"):
        command("recv", "--property", "OSFAMILY", "wrong", stdin=sent.getvalue())
    assert set(store.backend.keys(Kind.NAME)) == {"debian", "copy", "bare"}


def test_the_properties_of_an_image_can_be_changed_and_nothing_else_of_it_is(store: Store, command: Command) -> None:
    image(store, "debian", {0: 1})
    before = names.load(store, "debian").entry
    said = command("image", "set", "debian", "--property", "osfamily=linux", "--property", "SWAP=file:64")
    assert said == "debian has OSFAMILY=linux SWAP=file:64"
    assert command("image", "set", "debian", "--property", "SWAP=", "--unset", "osfamily") == "debian has SWAP="
    assert names.load(store, "debian").entry == replace(before, properties={"SWAP": ""}, generation=3)
    assert command("image", "set", "debian", "--unset", "SWAP") == "debian has no properties"
    for words, sentence in (
        (("debian",), "nothing is to be changed of debian"),
        (("debian", "--unset", "x"), "there is no property 'x' to be unset; there are none"),
        (("none", "--property", "A=b"), "there is no image, snapshot or object none"),
    ):
        with pytest.raises(UserError, match=sentence):
            command("image", "set", *words)


def test_a_snapshot_that_is_not_in_the_store_yet_has_properties_too(store: Store, command: Command) -> None:
    held = EngineSnapshot(engine="directory", reference="golden-1")
    snapshot = Entry(uuid=UUID_A, kind="snapshot", size=4096, created_ms=0, snapshot=held)
    names.publish(store, "golden", snapshot, under=None)
    assert command("image", "set", "golden", "--property", "OSFAMILY=linux") == "golden has OSFAMILY=linux"
    assert names.load(store, "golden").entry.snapshot == held


def test_whoever_changes_an_image_at_the_same_time_is_not_overwritten(store: Store) -> None:
    image(store, "debian", {0: 1})
    catalog = Catalog(store, cast("Volumes", None), engine="directory")

    def slow(known: Mapping[str, str]) -> Mapping[str, str]:
        catalog.change("debian", lambda known: {"USERS": "me"})
        return {"SWAP": "file:64"}

    with pytest.raises(Conflict, match="changed by somebody else meanwhile"):
        catalog.change("debian", slow)
    assert properties(store, "debian") == {"USERS": "me"}
