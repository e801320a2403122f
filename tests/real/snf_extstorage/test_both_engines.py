"""What either engine refuses, and what it keeps whatever the collector does, through the catalogue of the store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from snf_extstorage.archipelago import Archipelago
from snf_extstorage.catalog import Catalog, Cut
from snf_extstorage.origins import find_origin
from snf_extstorage.volume import NotFound, Origin

from synnefo_light.errors import UserError
from synnefo_light.ganeti import CreateEnv
from synnefo_light.store import names
from synnefo_light.store.backend import Kind
from synnefo_light.units import MIB, Bytes, MiB
from tests.real.snf_extstorage.places import own_names, release
from tests.real.snf_extstorage.storages import OnDirectory, OnRados, Storage, catalog_of, collect, uncollected

V, W = own_names(2)
SIZE = Bytes(5 * MIB)


@pytest.fixture(params=["directory", "rados"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "rados":
        storage: Storage = OnRados(request.getfixturevalue("ceph"))
    else:
        root = request.getfixturevalue("xfs") / tmp_path.name
        storage = OnDirectory(root)
    yield storage
    if request.param == "directory":
        release(root)
    storage.close()


def written(storage: Storage) -> bytes:
    """A volume V with bytes of its own; all of it."""
    data = uuid4().bytes * 4096
    storage.volumes().create(V, uuid=None, size=SIZE)
    storage.write(V, 0, data)
    return data.ljust(SIZE, b"\0")


def image(catalog: Catalog, name: str, path: Path, data: bytes) -> None:
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        catalog.register(name, fd, Bytes(len(data)), origin="test", properties={})
    finally:
        os.close(fd)


def state(storage: Storage) -> tuple[list[str], list[str], list[str], set[str], list[str]]:
    catalog = catalog_of(storage)
    volumes = catalog.volumes
    blocks = set(catalog.store.backend.keys(Kind.BLOCK))
    listed = sorted(n.name for n in catalog.listing())
    return sorted(volumes.volumes()), sorted(volumes.snapshots()), sorted(volumes.bases()), blocks, listed


@pytest.mark.parametrize("name", ["a@b", "a:b", "_a", "a/b", "a" * 201])
def test_an_odd_name_is_refused_before_anything_is_made(storage: Storage, name: str, tmp_path: Path) -> None:
    written(storage)
    before = state(storage)
    catalog = catalog_of(storage)
    acts: tuple[Callable[[], object], ...] = (
        lambda: image(catalog, name, tmp_path / "image", b"x" * 4096),
        lambda: catalog.snapshot([Cut(volume=V, name=name)]),
        lambda: catalog.snapshot([Cut(volume=V, name="fine"), Cut(volume=V, name=name)]),
    )
    for act in acts:
        with pytest.raises(UserError, match="is not 1 to 200 letters, digits and"):
            act()
    assert state(storage) == before


def test_a_name_that_is_taken_is_refused_before_anything_is_made(storage: Storage, tmp_path: Path) -> None:
    written(storage)
    catalog = catalog_of(storage)
    catalog.snapshot([Cut(volume=V, name="golden")])
    catalog.volumes.create(W, uuid=None, size=SIZE)
    before = state(storage)
    cut = [Cut(volume=W, name="other"), Cut(volume=V, name="golden")]
    for act in (
        lambda: catalog.snapshot(cut),
        lambda: image(catalog, "golden", tmp_path / "image", b"x" * 4096),
    ):
        with pytest.raises(UserError, match="there is a snapshot golden already; remove it first"):
            act()
    assert state(storage) == before


def test_images_that_are_removed_and_collected_leave_their_clones_as_they_are(storage: Storage, tmp_path: Path) -> None:
    data = written(storage)
    catalog = catalog_of(storage)
    catalog.snapshot([Cut(volume=V, name="golden")])
    image(catalog, "debian", tmp_path / "image", data[::-1])
    made = {"golden": W, "debian": own_names(1)[0]}
    for name, volume in made.items():
        catalog.volumes.clone(find_origin(catalog, name, engine=storage.engine), volume, uuid=None, size=SIZE)
        catalog.remove(name)
        collect(catalog)
    assert (storage.read("volumes", W), storage.read("volumes", made["debian"])) == (data, data[::-1])
    catalog.volumes.remove(V)
    for volume in made.values():
        catalog.volumes.remove(volume)
    collect(catalog)
    assert uncollected(catalog) == []
    assert state(storage) == ([], [], [], set(), [])
    assert list(catalog.problems()) == []


@pytest.mark.parametrize("kind", ["image", "snapshot"])
def test_what_is_collected_between_being_found_and_being_cloned_is_refused_and_nothing_is_half_made(
    storage: Storage, kind: str, tmp_path: Path
) -> None:
    data = written(storage)
    catalog = catalog_of(storage)
    if kind == "image":
        image(catalog, "golden", tmp_path / "image", data)
    else:
        catalog.snapshot([Cut(volume=V, name="golden")])
    origin = find_origin(catalog, "golden", engine=storage.engine)
    catalog.remove("golden")
    collect(catalog)
    with pytest.raises(NotFound):
        catalog.volumes.clone(origin, W, uuid=None, size=SIZE)
    assert (W in catalog.volumes.volumes(), list(catalog.problems())) == (False, [])
    image(catalog, "golden", tmp_path / "image", data)
    catalog.volumes.clone(find_origin(catalog, "golden", engine=storage.engine), W, uuid=None, size=SIZE)
    assert storage.read("volumes", W) == data


def test_a_snapshot_that_is_committed_between_being_found_and_being_cloned_is_cloned_all_the_same(
    storage: Storage,
) -> None:
    data = written(storage)
    catalog = catalog_of(storage)
    catalog.snapshot([Cut(volume=V, name="golden")])

    def find(text: str) -> Origin:
        found = find_origin(catalog, text, engine=storage.engine)
        catalog.commit(text)
        return found

    env = CreateEnv(
        volume=W, uuid=None, cname=None, access="userspace", params={"origin": "golden"}, size=MiB(SIZE // MIB)
    )
    Archipelago(catalog.volumes, find).create(env)
    assert storage.read("volumes", W) == data
    assert names.load(catalog.store, "golden").entry.map is not None


def test_who_knows_a_hash_gets_no_disk_of_it(storage: Storage, tmp_path: Path) -> None:
    """The blocks of a removed image are there for the grace; only a name gives a right to them."""
    catalog = catalog_of(storage)
    image(catalog, "secret", tmp_path / "image", uuid4().bytes * 512)
    removed = catalog.remove("secret").entry.map
    assert removed is not None
    for text in (f"map:{removed}", f"pithosmap://{removed}/8192"):
        with pytest.raises(UserError, match="no image, snapshot or object has the map"):
            find_origin(catalog, text, engine=storage.engine)
