"""kill -9 at every step of every operation: nothing is half made, nothing is lost, and asking again ends as asked."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest
from snf_extstorage.catalog import Catalog, Cut
from snf_extstorage.directory.engine import DirectoryVolumes
from snf_extstorage.directory.kept import held
from snf_extstorage.directory.place import init_place
from snf_extstorage.volume import Exists, FromVolume, SnapshotName, Trace, no_trace

from synnefo_light.errors import UserError
from synnefo_light.ganeti import VolumeName
from synnefo_light.store import fsck, gc, names
from synnefo_light.store.directory import Directory, make_directory
from synnefo_light.store.formats import Format
from synnefo_light.store.identity import MapId
from synnefo_light.store.maps import open_map
from synnefo_light.store.store import open_store
from synnefo_light.units import MIB, Bytes
from tests.real.snf_extstorage.places import Site, write

V, W = VolumeName("a.ext.disk0"), VolumeName("b.ext.disk0")
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
    node.volumes.create(V, uuid="u", size=SIZE)
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
        assert "there is a image image already" in str(e) or "is taken" in str(e)
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
    "fence": Case(opened_elsewhere, lambda n: n.volumes.open(V, exclusive=True), holders("node1"), 4),
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
    "register": Case(made, register, lambda n: is_in_store(n, "image"), 8),
    "commit": Case(frozen, lambda n: n.catalog.commit("golden"), lambda n: is_in_store(n, "golden"), 8),
    "remove image": Case(
        registered,
        remove_image,
        lambda n: list(n.catalog.listing()) == [] or pytest.fail("still there"),
        2,
    ),
}


def run_and_die(site: Site, act: Act, at: int) -> bool:
    """Whether a child that does it, and is killed at step `at`, was."""
    pid = os.fork()
    if pid == 0:
        told = 0

        def die(step: str) -> None:
            nonlocal told
            if told == at:
                os.kill(os.getpid(), signal.SIGKILL)
            told += 1

        try:
            act(Node(site, trace=die))
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("name", CASES)
def test_killed_at_every_step(site: Site, name: str) -> None:
    case = CASES[name]
    died = 0
    while True:
        node = Node(site)
        case.before(node)
        if not run_and_die(site, case.act, died):
            break
        assert list(node.catalog.problems()) == []
        assert fsck.check(node.catalog.store).exit_code in (0, 2)
        if V in node.volumes.volumes():
            assert content_of(node, "volumes", V) == CONTENT
        case.act(node)
        case.after(node)
        assert list(node.catalog.problems()) == []
        gc.collect(node.catalog.store)
        case.after(node)
        died += 1
        clear(site)
    assert died >= case.steps
    case.after(Node(site))


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


def test_a_device_is_shut_from_the_moment_that_it_is_there(site: Site) -> None:
    """Killed between binding it and looking at who may write: nobody has attached it since."""
    made(Node(site))
    assert run_and_die(site, lambda n: n.volumes.attach(V), 1)
    (loop,) = site.node()._access._loops.named(V)
    assert not write(loop.path, b"X" * 4096)
    assert content_of(Node(site), "volumes", V) == CONTENT


def test_what_a_crash_leaves_is_swept_when_it_is_old(site: Site) -> None:
    assert run_and_die(site, lambda n: n.volumes.create(V, uuid=None, size=SIZE), 2)
    left = [p for p in Path(site.place.folder("volumes")).iterdir() if p.name.startswith(".tmp-")]
    assert len(left) == 1
    assert site.place.sweep() == []
    assert site.place.sweep(older_than_s=-1) == left
    assert list(site.place.folder("volumes").iterdir()) == []


def test_what_a_fence_left_that_died_is_swept(site: Site) -> None:
    opened_elsewhere(Node(site))
    assert run_and_die(site, lambda n: n.volumes.open(V, exclusive=True), 1)
    left = site.place.folder("volumes", V) / ".tmp-disk"
    assert left.exists()
    assert site.place.sweep() == []
    with held(site.place, V):  # a fence that takes its time
        assert site.place.sweep(older_than_s=-1) == []
    assert site.place.sweep(older_than_s=-1) == [left]
    assert content_of(Node(site), "volumes", V) == CONTENT


def test_who_works_for_hours_is_not_swept(site: Site) -> None:
    """Neither the folder that a base is composed in, nor anything of it, however old."""
    with site.place.making("bases", lambda: "0" * 64) as folder:
        (folder / "disk").write_bytes(CONTENT)
        os.utime(folder, (0, 0))
        assert site.place.sweep() == []
    assert content_of(Node(site), "bases", "0" * 64) == CONTENT
    # The control: the same, and its maker dead.
    assert run_and_die(site, lambda n: n.volumes.create(V, uuid=None, size=SIZE), 2)
    (left,) = (p for p in site.place.folder("volumes").iterdir() if p.name.startswith(".tmp-"))
    os.utime(left, (0, 0))
    assert site.place.sweep() == [left]


def compose(node: Node) -> None:
    catalog = node.catalog
    entry = names.load(catalog.store, "image").entry
    assert entry.map is not None
    node.volumes.compose(open_map(catalog.store, entry.map))


def drop(node: Node) -> None:
    for snapshot in node.volumes.snapshots():
        node.volumes.drop_snapshot(snapshot)
    node.volumes.drop_snapshot(SnapshotName("golden"))


@pytest.mark.parametrize(
    ("before", "act", "synced"),
    [
        (nothing, lambda n: n.volumes.create(V, uuid="u", size=SIZE), "volumes"),
        (made, lambda n: n.volumes.clone(FromVolume(volume=V), W, uuid="w", size=SIZE), "volumes"),
        (made, adopt, "volumes"),
        (made, lambda n: n.volumes.remove(V), "volumes"),
        (frozen, drop, "snapshots"),
        (registered, compose, "bases"),
        (registered, lambda n: n.volumes.drop_base(MapId("0" * 64)), "bases"),
        (opened, lambda n: n.volumes.open(V, exclusive=True), f"volumes/{V}/record"),
        (opened, lambda n: n.volumes.close(V), f"volumes/{V}/record"),
        (opened, lambda n: n.volumes.detach(V), f"volumes/{V}/record"),
        (opened, lambda n: n.volumes.grow(V, SIZE), f"volumes/{V}/record"),
        (opened, lambda n: n.volumes.set_info(V, "originstname+a"), f"volumes/{V}/record"),
        (nothing, lambda n: init_place(n.site.place.root), ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_who_asks_again_is_answered_when_it_is_durable(
    site: Site, monkeypatch: pytest.MonkeyPatch, before: Act, act: Act, synced: str
) -> None:
    """The first may have died, or its sync may have failed, after everybody could see what it did."""
    node = Node(site)
    before(node)
    act(node)
    seen: list[Path] = []
    for call in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, call, lambda fd: seen.append(Path(f"/proc/self/fd/{fd}").readlink()))
    act(node)
    assert site.place.folder(synced) in seen


def test_two_that_make_the_same_volume_make_one(site: Site) -> None:
    """The other comes between the last step and the rename."""

    def other(step: str) -> None:
        if step == "create publish":
            site.node("node2").create(V, uuid="other", size=SIZE)

    with pytest.raises(Exists, match="another one"):
        site.node(trace=other).create(V, uuid="u", size=SIZE)
    assert site.node().facts(V).uuid == "other"
    assert [p.name for p in site.place.folder("volumes").iterdir()] == [V]
