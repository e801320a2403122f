"""kill -9 in the midst of what stores something: its pin holds that until it expires, and then the collector has it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from snf_extstorage.catalog import WORK_S, Catalog, Cut
from snf_extstorage.commands.stats import at_work

from synnefo_light.store import gc, names, pins, stats, stream
from synnefo_light.store.backend import Instant, Kind
from synnefo_light.store.identity import MapId
from synnefo_light.store.names import Entry
from synnefo_light.units import MIB, Bytes
from tests.real.snf_extstorage.places import own_names, release
from tests.real.snf_extstorage.storages import OnDirectory, OnRados, Storage, catalog_of, run_and_die

(V,) = own_names(1)
SIZE = Bytes(5 * MIB)
#: Much less than a pin lives, so that it is the pin that holds what is there.
GRACE_S = 60


@pytest.fixture(params=["directory", "rados"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "rados":
        storage: Storage = OnRados(request.getfixturevalue("ceph"), grace_s=GRACE_S)
    else:
        root = request.getfixturevalue("xfs") / tmp_path.name
        storage = OnDirectory(root, grace_s=GRACE_S)
    yield storage
    if request.param == "directory":
        release(root)
    storage.close()


def put(catalog: Catalog, folder: Path) -> None:
    path = folder / "image"
    path.write_bytes(os.urandom(4096))
    fd = os.open(path, os.O_RDONLY)
    try:
        catalog.register("image", fd, Bytes(4096), origin="test", properties={})
    finally:
        os.close(fd)


def commit(catalog: Catalog, folder: Path) -> None:
    catalog.commit("golden")


def recv(catalog: Catalog, folder: Path) -> None:
    def entry(map_id: MapId, size: int) -> Entry:
        return Entry(uuid=str(uuid4()), kind="image", size=size, created_ms=0, map=map_id)

    stream.receive(catalog.store, io.BytesIO((folder / "stream").read_bytes()), "received", entry)


def prepared(storage: Storage, folder: Path) -> None:
    """A snapshot to be committed, and a stream to be received."""
    storage.volumes().create(V, uuid=None, size=SIZE)
    storage.write(V, 0, os.urandom(4096))
    catalog = catalog_of(storage)
    catalog.snapshot([Cut(volume=V, name="golden")])
    put(catalog, folder)
    raw = io.BytesIO()
    stream.send(catalog.store, MapId(str(names.load(catalog.store, "image").entry.map)), raw.write)
    (folder / "stream").write_bytes(raw.getvalue())
    remove_all(catalog)


def remove_all(catalog: Catalog) -> None:
    """The image and all that it kept, so that only what comes next is there."""
    catalog.remove("image")
    for base in list(catalog.volumes.bases()):
        catalog.volumes.drop_base(base)
    for held in list(pins.living(catalog.store, catalog.store.backend.now())):
        catalog.store.backend.delete(Kind.PIN, held.key, expected=held.version)
    gc.collect(catalog.store, now=in_s(catalog, 3 * GRACE_S))
    assert blocks(catalog) == 0


def blocks(catalog: Catalog) -> int:
    return len(list(catalog.store.backend.keys(Kind.BLOCK)))


def in_s(catalog: Catalog, seconds: float) -> Instant:
    return Instant(catalog.store.backend.now() + seconds)


@pytest.mark.parametrize(
    ("act", "owner", "lives_s"),
    [(put, "image image", WORK_S), (commit, "snapshot golden", WORK_S), (recv, "receive received", pins.HOLD_TTL_S)],
)
def test_what_a_killed_process_stored_stays_until_its_pin_expires(
    storage: Storage, tmp_path: Path, act: Callable[[Catalog, Path], None], owner: str, lives_s: float
) -> None:
    prepared(storage, tmp_path)
    assert run_and_die(storage, lambda catalog: act(catalog, tmp_path), "commit.4 root written")
    catalog = catalog_of(storage)
    assert blocks(catalog) > 0
    (told,) = at_work(catalog.store)
    assert told.startswith(f"{owner}; if it was killed, what it stored is kept until ")
    assert stats.measure(catalog.store).work == 1
    before = blocks(catalog)
    assert gc.collect(catalog.store, now=in_s(catalog, lives_s - 300)).removed == 0
    assert blocks(catalog) == before
    done = gc.collect(catalog.store, now=in_s(catalog, lives_s + 300))
    assert (blocks(catalog), done.pins) == (0, 1)
    assert list(at_work(catalog.store)) == []
    assert stats.measure(catalog.store).work == 0


@pytest.mark.parametrize("storage", ["directory"], indirect=True)
def test_without_the_pin_it_would_have_gone(storage: Storage, tmp_path: Path) -> None:
    """The control of the test above: at that time the grace alone holds nothing."""
    prepared(storage, tmp_path)
    assert run_and_die(storage, lambda catalog: recv(catalog, tmp_path), "commit.4 root written")
    catalog = catalog_of(storage)
    (held,) = pins.living(catalog.store, catalog.store.backend.now())
    catalog.store.backend.delete(Kind.PIN, held.key, expected=held.version)
    gc.collect(catalog.store, now=in_s(catalog, pins.HOLD_TTL_S - 300))
    assert blocks(catalog) == 0


def test_the_pin_of_a_base_that_is_gone_is_let_go(storage: Storage, tmp_path: Path) -> None:
    """Whoever dropped the base let the pin go first, and somebody who found the base there then has pinned it again."""
    catalog = catalog_of(storage)
    put(catalog, tmp_path)
    (base,) = catalog.volumes.bases()
    assert catalog.collect(dry_run=True) == []
    catalog.volumes.drop_base(base)
    assert catalog.collect(dry_run=True) == [f"pin base-{base}"]
    assert catalog.collect(dry_run=False) == [f"pin base-{base}"]
    assert catalog.collect(dry_run=False) == []
    catalog.remove("image")
    gc.collect(catalog.store, now=in_s(catalog, 3 * GRACE_S))
    assert blocks(catalog) == 0
