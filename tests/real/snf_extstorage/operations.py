"""Every operation of a node on volumes and images: what is before it, and what must be true after it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import pytest
from snf_extstorage.catalog import Catalog, Cut
from snf_extstorage.directory.engine import DirectoryVolumes
from snf_extstorage.volume import FromVolume, SnapshotName, Trace, no_trace

from synnefo_light.errors import UserError
from synnefo_light.store import names
from synnefo_light.store.directory import Directory, make_directory
from synnefo_light.store.formats import Format
from synnefo_light.store.maps import open_map
from synnefo_light.store.store import open_store
from synnefo_light.units import MIB, Bytes
from tests.real.snf_extstorage.places import Site, own_names, write

V, W = own_names(2)
SIZE = Bytes(9 * MIB)
CONTENT: Final = bytes(range(256)) * 4096  # 1 MiB, at the beginning of V


@dataclass
class Node:
    """One node's volumes and store; both tell `trace` of their steps."""

    site: Site
    name: str = "node1"
    trace: Trace = no_trace

    @property
    def volumes(self) -> DirectoryVolumes:
        return self.site.node(self.name, self.trace)

    @property
    def catalog(self) -> Catalog:
        path = self.site.place.root / "store"
        if not (path / "FORMAT").exists():
            make_directory(path, Format(uuid=uuid4()))
        store = open_store(Directory(path, trace=self.trace), trace=self.trace)
        return Catalog(store, self.volumes, engine="directory")


Act = Callable[[Node], object]


def made(node: Node) -> None:
    node.volumes.create(V, uuid=None, size=SIZE)
    with open(node.site.place.disk("volumes", V), "r+b") as file:
        file.write(CONTENT)
        os.fsync(file.fileno())


def opened(node: Node) -> None:
    made(node)
    node.volumes.attach(V)
    node.volumes.open(V, exclusive=True)


def opened_elsewhere(node: Node) -> None:
    opened(Node(node.site, "node2"))
    node.volumes.attach(V)


def frozen(node: Node) -> None:
    made(node)
    if "golden" not in {n.name for n in node.catalog.listing()}:
        node.catalog.snapshot([Cut(volume=V, name="golden")])


def registered(node: Node) -> None:
    made(node)
    register(node)


def register(node: Node) -> None:
    fd = os.open(node.site.place.disk("volumes", V), os.O_RDONLY)
    try:
        node.catalog.register("image", fd, SIZE, origin="test", properties={})
    except UserError as e:  # it was published before the crash
        assert "there is an image image already" in str(e) or "is taken" in str(e)
    finally:
        os.close(fd)


def content_of(node: Node, kind: str, name: str) -> bytes:
    with open(node.site.place.disk(kind, name), "rb") as file:
        return file.read(len(CONTENT))


def is_clone(node: Node) -> None:
    assert node.volumes.facts(W).size == 2 * SIZE
    assert content_of(node, "volumes", W) == CONTENT
    assert node.site.place.disk("volumes", W).stat().st_size == 2 * SIZE


def is_in_store(node: Node, name: str) -> None:
    catalog = node.catalog
    entry = names.load(catalog.store, name).entry
    assert entry.map is not None
    opened_map = open_map(catalog.store, entry.map)
    assert opened_map.size == SIZE
    assert opened_map.read(0)[: len(CONTENT)] == CONTENT
    assert opened_map.read(2) == bytes(MIB)


def remove_image(node: Node) -> None:
    with contextlib.suppress(UserError):  # it was removed before the crash
        node.catalog.remove("image")


@dataclass(frozen=True)
class Case:
    before: Act
    act: Act
    after: Act
    steps: int  # at least; an operation that lost its steps would pass otherwise


def nothing(node: Node) -> None:
    pass


def snapshot_again(node: Node) -> None:
    with contextlib.suppress(UserError):  # it was published before the crash
        node.catalog.snapshot([Cut(volume=V, name="golden")])


def is_gone(node: Node) -> None:
    assert list(node.volumes.volumes()) == []
    assert node.volumes._access._loops.named(V) == []


def is_shut(node: Node) -> None:
    device = node.volumes.attach(V).device
    assert device is not None
    assert not write(device, CONTENT[:4096])


def adopt(node: Node) -> None:
    node.volumes.adopt(V, W, uuid="w", size=SIZE)


def adopted(node: Node) -> None:
    made(node)
    adopt(node)


def is_back(node: Node) -> None:
    assert list(node.volumes.volumes()) == [V]
    assert node.volumes.facts(V).uuid is None
    assert content_of(node, "volumes", V) == CONTENT


def holders(*wanted: str) -> Act:
    def after(node: Node) -> None:
        assert node.volumes.facts(V).holders == wanted
        assert content_of(node, "volumes", V) == CONTENT

    return after


CASES: Final[dict[str, Case]] = {
    "create": Case(nothing, lambda n: n.volumes.create(W, uuid="w", size=SIZE), nothing, 4),
    "clone": Case(
        made,
        lambda n: n.volumes.clone(FromVolume(volume=V), W, uuid="w", size=Bytes(2 * SIZE)),
        is_clone,
        4,
    ),
    "snapshot": Case(made, snapshot_again, lambda n: n.volumes.snapshot_facts(next(iter(n.volumes.snapshots()))), 5),
    "attach": Case(made, lambda n: n.volumes.attach(V), is_shut, 2),
    "open": Case(made, lambda n: n.volumes.open(V, exclusive=True), holders("node1"), 1),
    "fence": Case(opened_elsewhere, lambda n: n.volumes.open(V, exclusive=True), holders("node1"), 5),
    "close": Case(opened, lambda n: n.volumes.close(V), holders(), 1),
    "detach": Case(opened, lambda n: n.volumes.detach(V), holders(), 1),
    "grow": Case(
        opened,
        lambda n: n.volumes.grow(V, Bytes(2 * SIZE)),
        lambda n: (holders("node1")(n), n.volumes.facts(V).size == 2 * SIZE or pytest.fail("not grown")),
        3,
    ),
    "remove": Case(opened, lambda n: n.volumes.remove(V), is_gone, 1),
    "adopt": Case(made, adopt, lambda n: content_of(n, "volumes", W) == CONTENT or pytest.fail("lost"), 2),
    "give back": Case(adopted, lambda n: n.volumes.remove(W), is_back, 2),
    "register": Case(made, register, lambda n: is_in_store(n, "image"), 8),
    "commit": Case(frozen, lambda n: n.catalog.commit("golden"), lambda n: is_in_store(n, "golden"), 8),
    "remove image": Case(
        registered,
        remove_image,
        lambda n: list(n.catalog.listing()) == [] or pytest.fail("still there"),
        2,
    ),
}


def compose(node: Node) -> None:
    catalog = node.catalog
    entry = names.load(catalog.store, "image").entry
    assert entry.map is not None
    node.volumes.compose(open_map(catalog.store, entry.map))


def drop(node: Node) -> None:
    node.volumes.drop_snapshot(SnapshotName("golden"))


def clear(site: Site) -> None:
    """Back to an empty place."""
    for name in ("node1", "node2"):
        for volume in (V, W):
            volumes = site.node(name)
            for loop in volumes._access._loops.named(volume):
                assert volumes._access._loops.detach(volume, loop)
    volumes = site.node()
    for kind in ("volumes", "snapshots", "bases"):
        for thing in site.place.names(kind):
            site.place.discard(kind, thing)
    catalog = Node(site).catalog
    for named in list(catalog.listing()):
        catalog.remove(named.name)
