"""What collecting and checking do around the engine, with a real store and an engine that only counts."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest
from snf_extstorage.catalog import Catalog
from snf_extstorage.commands import gc as command
from snf_extstorage.settings import Settings
from snf_extstorage.volume import Volumes

from synnefo_light.store import names, pins
from synnefo_light.store.backend import Kind
from synnefo_light.store.directory import make_directory
from synnefo_light.store.errors import StoreFault
from synnefo_light.store.formats import Format
from synnefo_light.store.identity import MapId
from synnefo_light.store.names import EngineSnapshot, Entry
from synnefo_light.store.store import Store, open_store
from tests.real.store.contents import image


class Died(BaseException):
    pass


class Engine:
    """As `Volumes`, of a pool with bases and snapshots alone."""

    def __init__(self) -> None:
        self.at_base: list[MapId] = []
        self.at_snapshot: list[str] = []
        self.on_drop: Callable[[], None] = lambda: None

    def bases(self) -> list[MapId]:
        return list(self.at_base)

    def snapshots(self) -> list[str]:
        return list(self.at_snapshot)

    def volumes(self) -> list[str]:
        return []

    def age_s(self, kind: str, name: str) -> float:
        return 7200.0

    def drop_base(self, map_id: MapId) -> None:
        self.at_base.remove(map_id)
        self.on_drop()

    def check(self) -> Iterator[str]:
        yield from ()

    def sweep(self) -> list[str]:
        return []


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(make_directory(tmp_path / "store", Format(uuid=uuid4(), grace_s=3600)))


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def catalog(store: Store, engine: Engine) -> Catalog:
    return Catalog(store, cast("Volumes", engine), engine="rados")


def forgotten_base(store: Store, engine: Engine) -> MapId:
    """A base with its pin, and no name any more."""
    map_id = image(store, "a", {0: 1})
    with pins.hold(store, owner="test", names=["a"]) as held:
        pins.keep(store, f"base-{map_id}", owner=f"base {map_id}", map_id=map_id, under=held)
    names.remove(store, "a")
    engine.at_base.append(map_id)
    return map_id


def test_who_is_killed_while_a_base_is_dropped_leaves_no_pin_for_ever(
    store: Store, engine: Engine, catalog: Catalog
) -> None:
    map_id = forgotten_base(store, engine)
    assert pins.load(store, f"base-{map_id}").pin.expires_ms is None

    def die() -> None:
        raise Died

    engine.on_drop = die
    with pytest.raises(Died):
        catalog.collect(dry_run=False)
    assert pins.load(store, f"base-{map_id}").pin.expires_ms is not None


def test_a_collector_that_cannot_read_all_that_is_needed_drops_no_base_either(
    store: Store, engine: Engine, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "open_catalog", lambda _: catalog)
    arguments, said = argparse.Namespace(do=True), list[str]()
    map_id = forgotten_base(store, engine)
    needed = image(store, "b", {0: 2})
    root = store.backend.read(Kind.ROOT, needed)
    store.backend.set_aside(Kind.ROOT, needed)
    with pytest.raises(StoreFault, match="nothing was removed"):
        command.run(Settings(), arguments, said.append)
    assert engine.at_base == [map_id]
    store.backend.create(Kind.ROOT, needed, root)
    assert command.run(Settings(), arguments, said.append) == 0
    assert engine.at_base == []
    assert said[0] == f"base {map_id} removed"


def test_a_snapshot_that_is_made_while_it_is_looked_for_is_not_told_as_lost(
    store: Store, engine: Engine, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([[], ["golden-1"]])
    held = EngineSnapshot(engine="rados", reference="golden-1")
    entry = Entry(uuid=str(uuid4()), kind="snapshot", size=1, created_ms=0, snapshot=held)
    names.publish(store, "golden", entry, under=None)
    monkeypatch.setattr(engine, "snapshots", lambda: next(answers, []))
    assert list(catalog.problems()) == []
    (lost,) = catalog.problems()
    assert "its content is lost" in lost


def test_a_snapshot_whose_name_goes_while_it_is_looked_for_is_not_told_as_lost(
    store: Store, engine: Engine, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = EngineSnapshot(engine="rados", reference="golden-1")
    entry = Entry(uuid=str(uuid4()), kind="snapshot", size=1, created_ms=0, snapshot=held)
    names.publish(store, "golden", entry, under=None)
    looked: list[str] = []

    def snapshots() -> list[str]:
        if looked:
            names.remove(store, "golden")
        looked.append("once")
        return []

    monkeypatch.setattr(engine, "snapshots", snapshots)
    assert list(catalog.problems()) == []
    assert len(looked) == 2
