"""The engine `rados` on a real Ceph, looked at with QEMU and the tool `rbd`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
from snf_extstorage.rados.engine import RadosVolumes
from snf_extstorage.rados.images import Client
from snf_extstorage.volume import (
    Exists,
    FromBase,
    FromSnapshot,
    FromVolume,
    InUse,
    NotFound,
    SizeRefused,
    SnapshotName,
)
from snf_lab.ceph import Ceph

from synnefo_light.ceph import CephFault
from synnefo_light.errors import UserError
from synnefo_light.ganeti import VolumeName
from synnefo_light.store.commit import Commit
from synnefo_light.store.identity import BLOCK_SIZE, MapId
from synnefo_light.store.maps import Map, open_map
from synnefo_light.store.store import Store
from synnefo_light.units import Bytes
from tests.real.snf_extstorage.rados_site import MIB, POOL, RadosSite

UUID = "efa8d6e0-c062-4b14-b829-467e6499f266"
SIZE = Bytes(32 * MIB)


PAIRS = """
import signal, sys, rados, rbd
conf, pool, *names = sys.argv[1:]
cluster = rados.Rados(conffile=conf, name="client.ganeti")
cluster.connect()
images = [rbd.Image(cluster.open_ioctx(pool), name) for name in names]
number, over = 0, []
signal.signal(signal.SIGTERM, lambda *_: over.append(True))
while not over:
    number += 1
    for image in images:
        image.write(number.to_bytes(8, "big"), 0)
        image.flush()
    if number == 1:
        print("begun", flush=True)
for image in images:
    image.close()
"""


class Died(BaseException):
    pass


@pytest.fixture
def site(ceph: Ceph) -> Iterator[RadosSite]:
    site = RadosSite(ceph=ceph)
    yield site
    site.close()


@pytest.fixture
def node(site: RadosSite) -> RadosVolumes:
    return site.node()


@pytest.fixture
def name() -> VolumeName:
    return VolumeName(f"{uuid4()}.ext.disk0")


@pytest.fixture
def other() -> VolumeName:
    return VolumeName(f"{uuid4()}.ext.disk1")


@pytest.fixture
def snap() -> SnapshotName:
    return SnapshotName(f"snap-{uuid4()}")


def image_of(store: Store, blocks: dict[int, bytes], *, size: int) -> Map:
    with Commit(store, size=size, owner="test") as commit:
        for index in sorted(blocks):
            commit.put(index, blocks[index])
        return open_map(store, commit.finish())


def committed(node: RadosVolumes, store: Store, snap: SnapshotName, since: MapId | None = None) -> Map:
    facts = node.snapshot_facts(snap)
    parent = None
    if since is not None:
        from synnefo_light.store import pins

        with Commit(store, size=facts.size, owner="keep") as commit:
            parent = pins.keep(store, f"kept-{since}", owner="test", map_id=since, under=commit.held)
    with Commit(store, size=facts.size, parent=parent, owner="test") as commit:
        return open_map(store, node.commit(snap, commit, since))


def content(found: Map) -> bytes:
    return b"".join(found.read(index) for index in range(found.block_count))


# --- making and removing


def test_a_new_volume_is_zeros_of_its_size_and_known_to_qemu(
    site: RadosSite, node: RadosVolumes, name: VolumeName
) -> None:
    node.create(name, uuid=UUID, size=SIZE)
    assert site.read(name, count=SIZE + 1) == bytes(SIZE)
    assert node.attach(name).stdout() == f"\nkvm:rbd:{POOL}/{name}:id=ganeti"
    assert node.attach(name) == node.attach(name)
    assert site.write(name, "A")
    assert site.read(name) == b"A" * 4096
    assert name in node.volumes()


def test_create_again_is_the_same_volume_until_somebody_opened_it(node: RadosVolumes, name: VolumeName) -> None:
    node.create(name, uuid=UUID, size=SIZE)
    node.create(name, uuid=UUID, size=SIZE)
    for uuid, size in ((UUID, 2 * SIZE), (UUID.replace("e", "f"), SIZE)):
        with pytest.raises(Exists, match="another one"):
            node.create(name, uuid=uuid, size=Bytes(size))
    node.open(name, exclusive=True)
    with pytest.raises(Exists, match="has been in use"):
        node.create(name, uuid=UUID, size=SIZE)


def test_an_image_that_is_not_ours_is_left_alone(site: RadosSite, node: RadosVolumes, name: VolumeName) -> None:
    site.ceph.run(["rbd", "create", "--size", "4M", f"{POOL}/{name}"])
    with pytest.raises(Exists, match="that is not ours"):
        node.create(name, uuid=UUID, size=SIZE)
    node.remove(name)
    assert name in site.images_there()
    node.adopt(name, name_of(name), uuid=UUID, size=Bytes(4 * MIB))
    node.adopt(name, name_of(name), uuid=UUID, size=Bytes(4 * MIB))
    assert {name, name_of(name)} & site.images_there() == {name_of(name)}


def name_of(name: str) -> VolumeName:
    return VolumeName(name.replace("disk0", "disk7"))


def test_adopt_takes_over_a_volume_with_its_bytes_and_asks_for_its_size(
    site: RadosSite, node: RadosVolumes, name: VolumeName, other: VolumeName
) -> None:
    node.create(name, uuid=None, size=SIZE)
    assert site.write(name, "A")
    with pytest.raises(SizeRefused):
        node.adopt(name, other, uuid=UUID, size=Bytes(2 * SIZE))
    node.adopt(name, other, uuid=UUID, size=SIZE)
    assert site.read(other) == b"A" * 4096
    assert name not in node.volumes()
    with pytest.raises(NotFound):
        node.adopt(name, VolumeName("third"), uuid=UUID, size=SIZE)


@pytest.mark.parametrize("step", ["create record", "create image", "create publish", "create done"])
def test_who_dies_while_making_a_clone_leaves_nothing_half_made(
    site: RadosSite, node: RadosVolumes, name: VolumeName, other: VolumeName, step: str
) -> None:
    node.create(name, uuid=None, size=SIZE)
    assert site.write(name, "A")

    def die(at: str) -> None:
        if at == step:
            raise Died(at)

    with pytest.raises(Died):
        site.node(trace=die).clone(FromVolume(volume=name), other, uuid=UUID, size=Bytes(2 * SIZE))
    if step != "create done":
        with pytest.raises(NotFound):
            node.attach(other)
        assert other not in node.volumes()
    node.clone(FromVolume(volume=name), other, uuid=UUID, size=Bytes(2 * SIZE))
    assert site.read(other, count=2 * SIZE + 1) == b"A" * 4096 + bytes(2 * SIZE - 4096)


@pytest.mark.parametrize("step", ["remove record", "remove image", "remove done"])
def test_who_dies_while_removing_can_remove_again_and_make_anew(
    site: RadosSite, node: RadosVolumes, name: VolumeName, step: str
) -> None:
    def die(at: str) -> None:
        if at == step:
            raise Died(at)

    node.create(name, uuid=None, size=SIZE)
    assert site.write(name, "A")
    with pytest.raises(Died):
        site.node(trace=die).remove(name)
    node.create(name, uuid=None, size=SIZE) if step != "remove record" else node.remove(name)
    if step != "remove record":
        assert site.read(name) == bytes(4096)
    node.remove(name)
    node.remove(name)
    assert name not in site.images_there()


# --- clones, snapshots, the store


def test_an_image_is_copied_once_and_its_clones_share_it(
    site: RadosSite, node: RadosVolumes, name: VolumeName, other: VolumeName
) -> None:
    store, marker = site.store(), uuid4().bytes
    found = image_of(store, {0: marker, 3: b"third"}, size=4 * BLOCK_SIZE + 512)
    with pytest.raises(NotFound, match="no base of map"):
        node.clone(FromBase(map=found.id), name, uuid=UUID, size=SIZE)
    node.compose(found)
    node.compose(found)
    assert found.id in node.bases()
    with pytest.raises(SizeRefused, match="ask for that much"):
        node.clone(FromBase(map=found.id), name, uuid=UUID, size=Bytes(4 * BLOCK_SIZE))
    for volume in (name, other):
        node.clone(FromBase(map=found.id), volume, uuid=UUID, size=SIZE)
        assert node.facts(volume).stored == 0
        assert node.facts(volume).origin == found.id
    assert site.read(name, count=SIZE + 1) == content(found).ljust(SIZE, b"\0")
    assert site.write(name, "A")
    assert site.read(other, count=16) == marker
    node.drop_base(found.id)
    assert found.id not in node.bases()
    assert site.read(other, at=3 * BLOCK_SIZE, count=5) == b"third"
    node.remove(name)
    node.remove(other)
    assert [image for image in trash(site) if found.id in image] == []


def trash(site: RadosSite) -> list[str]:
    return site.ceph.run(["rbd", "trash", "ls", POOL]).text.splitlines()


def test_a_snapshot_is_cloned_at_once_and_outlives_its_volume(
    site: RadosSite, node: RadosVolumes, name: VolumeName, other: VolumeName, snap: SnapshotName
) -> None:
    node.create(name, uuid=None, size=SIZE)
    assert site.write(name, "A")
    node.snapshot({name: snap})
    with pytest.raises(Exists):
        node.snapshot({name: snap})
    assert site.write(name, "B")
    node.clone(FromSnapshot(snapshot=snap), other, uuid=None, size=Bytes(2 * SIZE))
    assert (site.read(other), site.read(name)) == (b"A" * 4096, b"B" * 4096)
    node.remove(name)
    third = name_of(name)
    node.clone(FromSnapshot(snapshot=snap), third, uuid=None, size=SIZE)
    assert site.read(third) == b"A" * 4096
    node.drop_snapshot(snap)
    node.drop_snapshot(snap)
    assert site.read(other) == b"A" * 4096
    node.remove(other)
    assert site.read(third) == b"A" * 4096
    node.remove(third)
    assert not [image for image in site.images_there() if image.startswith("gone.")]


def test_a_commit_is_what_the_volume_was_at_the_snapshot(
    site: RadosSite, node: RadosVolumes, name: VolumeName, snap: SnapshotName
) -> None:
    store = site.store()
    node.create(name, uuid=None, size=Bytes(5 * BLOCK_SIZE + 4096))
    assert site.write(name, "A", at=BLOCK_SIZE)
    assert site.write(name, "Z", at=5 * BLOCK_SIZE)
    node.snapshot({name: snap})
    assert site.write(name, "B", at=2 * BLOCK_SIZE)
    found = committed(node, store, snap)
    assert content(found) == site.read(f"{name}@{snap}", count=found.size + 1)
    assert [index for index, _ in found.blocks()] == [1, 5]
    assert committed(node, store, snap).id == found.id


def test_what_changed_is_told_without_reading_what_did_not(
    site: RadosSite, node: RadosVolumes, name: VolumeName, other: VolumeName, snap: SnapshotName
) -> None:
    """Also what was discarded, and through a clone of a snapshot of a clone."""
    store = site.store()
    base = image_of(store, {n: bytes([n + 1]) * 100 + uuid4().bytes for n in range(6)}, size=6 * BLOCK_SIZE)
    node.compose(base)
    node.clone(FromBase(map=base.id), name, uuid=None, size=Bytes(base.size))
    assert site.write(name, "A", at=BLOCK_SIZE)
    site.discard(name, at=2 * BLOCK_SIZE, count=BLOCK_SIZE)
    node.snapshot({name: snap})
    dirty = [(e.start // BLOCK_SIZE, e.length // BLOCK_SIZE) for e in node.dirty(snap, base.id)]
    assert dirty == [(1, 2)]
    found = committed(node, store, snap, since=base.id)
    assert content(found) == site.read(name, count=base.size)
    assert found.read(2) == bytes(BLOCK_SIZE)
    assert found.block(3) == base.block(3)

    node.clone(FromSnapshot(snapshot=snap), other, uuid=None, size=Bytes(base.size))
    assert site.write(other, "B", at=4 * BLOCK_SIZE)
    later = SnapshotName(f"{snap}-later")
    node.snapshot({other: later})
    assert [(e.start // BLOCK_SIZE, e.length // BLOCK_SIZE) for e in node.dirty(later, base.id)] == [(1, 2), (4, 1)]
    assert content(committed(node, store, later, since=base.id)) == site.read(other, count=base.size)

    assert site.write(name, "C", at=5 * BLOCK_SIZE)
    second = SnapshotName(f"{snap}-second")
    node.snapshot({name: second})
    assert [(e.start // BLOCK_SIZE, e.length // BLOCK_SIZE) for e in node.dirty(second, found.id)] == [(5, 1)]
    unknown = MapId("0" * 64)
    assert [(e.start, e.length) for e in node.dirty(second, unknown)] == [(0, base.size)]


def test_without_an_object_map_everything_counts_as_changed(
    site: RadosSite, node: RadosVolumes, name: VolumeName, snap: SnapshotName
) -> None:
    node.create(name, uuid=None, size=SIZE)
    site.ceph.run(["rbd", "feature", "disable", f"{POOL}/{name}", "fast-diff", "object-map"])
    node.snapshot({name: snap})
    assert [(e.start, e.length) for e in node.dirty(snap, None)] == [(0, SIZE)]
    assert node.facts(name).stored is None


def test_one_cut_over_two_disks_while_both_are_written(
    site: RadosSite, node: RadosVolumes, name: VolumeName, other: VolumeName, snap: SnapshotName
) -> None:
    """Pairs are written to one disk and then to the other: in a cut the second is never ahead of the first."""
    for volume in (name, other):
        node.create(volume, uuid=None, size=SIZE)
    store, second = site.store(), SnapshotName(f"{snap}-b")
    with pytest.raises(NotFound):
        node.snapshot({name: snap, VolumeName("none"): second})
    assert snap not in node.snapshots()
    writer = pair_writer(site, name, other)
    with writer:
        time.sleep(1)
        node.snapshot({name: snap, other: second})
        time.sleep(0.5)
    first, then = (content(committed(node, store, which))[:8] for which in (snap, second))
    ahead = int.from_bytes(first, "big") - int.from_bytes(then, "big")
    assert int.from_bytes(then, "big") > 0
    assert ahead in (0, 1)
    with pytest.raises(UserError, match="cut together"):
        node.clone(FromSnapshot(snapshot=snap), name_of(name), uuid=None, size=SIZE)
    node.remove(name)
    node.drop_snapshot(snap)
    assert committed(node, store, second).size == SIZE
    node.drop_snapshot(second)
    node.remove(other)
    assert site.ceph.run(["rbd", "group", "ls", POOL]).text.split() == []
    assert not [image for image in site.images_there() if image.startswith("gone.")]


@contextlib.contextmanager
def pair_writer(site: RadosSite, name: str, other: str) -> Iterator[None]:
    """A process that writes 1, 2, 3... to the start of one image and then of the other, each flushed."""
    words = [sys.executable, "-c", PAIRS, str(site.ceph.client_conf), POOL, name, other]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        try:
            yield
            assert process.poll() is None
        finally:
            process.terminate()


# --- use


def test_grow_is_seen_by_who_has_it_open_and_what_is_new_is_zeros(
    site: RadosSite, node: RadosVolumes, name: VolumeName
) -> None:
    node.create(name, uuid=None, size=SIZE)
    with site.writer(name) as guest:
        assert "wrote" in site.tell(guest, "write -P 65 0 4096")
        node.grow(name, Bytes(2 * SIZE))
        node.grow(name, Bytes(2 * SIZE))
    assert node.facts(name).size == 2 * SIZE
    assert site.read(name, count=2 * SIZE + 1) == b"A" * 4096 + bytes(2 * SIZE - 4096)
    with pytest.raises(SizeRefused, match="only grow"):
        node.grow(name, SIZE)


def test_remove_refuses_while_a_qemu_has_it_open(site: RadosSite, node: RadosVolumes, name: VolumeName) -> None:
    node.create(name, uuid=None, size=SIZE)
    with site.writer(name) as guest:
        assert "wrote" in site.tell(guest, "write -P 65 0 4096")
        with pytest.raises(InUse, match="has it open"):
            node.remove(name)
        assert "wrote" in site.tell(guest, "write -P 66 0 4096")
    assert name in node.volumes()


def test_detach_and_remove_and_close_of_what_is_not_there_succeed(node: RadosVolumes, name: VolumeName) -> None:
    for act in (node.detach, node.remove, node.close):
        act(name)
        act(name)
    with pytest.raises(NotFound):
        node.attach(name)
    with pytest.raises(NotFound):
        node.open(name, exclusive=True)


def test_a_live_migration_hands_the_volume_over_and_one_writer_is_left(site: RadosSite, name: VolumeName) -> None:
    one, two = site.node("node1"), site.node("node2")
    one.create(name, uuid=None, size=SIZE)
    one.open(name, exclusive=True)
    two.attach(name)
    two.close(name)
    with pytest.raises(InUse, match="node1 has it for itself"):
        two.open(name, exclusive=False)
    one.open(name, exclusive=False)
    with site.writer(name) as source, site.writer(name) as target:
        assert "wrote" in site.tell(source, "write -P 65 0 4096")
        two.open(name, exclusive=False)
        assert "wrote" in site.tell(target, "write -P 66 4096 4096")
        one.close(name)
        two.open(name, exclusive=True)
        assert "wrote" in site.tell(target, "write -P 67 8192 4096")
    one.detach(name)
    assert two.facts(name).holders == ("node2",)
    assert two.facts(name).generation == 0
    assert site.read(name, count=12288) == b"A" * 4096 + b"B" * 4096 + b"C" * 4096
    with pytest.raises(InUse, match="node2 has it open"):
        one.remove(name)


def test_a_dead_nodes_late_writes_reach_nobody(site: RadosSite, name: VolumeName) -> None:
    dead, next_node = site.node("node1"), site.node("node2")
    dead.create(name, uuid=None, size=SIZE)
    dead.open(name, exclusive=True)
    with site.writer(name) as late, site.writer(name) as bystander:
        assert "wrote" in site.tell(late, "write -P 65 0 4096")
        address = clients(next_node, name)
        with site.writer(name) as ours:
            site.ours = clients(next_node, name) - address
            next_node.open(name, exclusive=True)
            assert "wrote" in site.tell(ours, "write -P 66 0 4096")
            assert "wrote" not in site.tell(late, "write -P 67 0 4096")
            assert "wrote" not in site.tell(bystander, "write -P 68 0 4096")
            assert site.tell(ours, "read -P 66 0 4096").startswith("read 4096")
    facts = next_node.facts(name)
    assert (facts.holders, facts.exclusive, facts.generation) == (("node2",), True, 1)
    assert site.read(name) == b"B" * 4096


def test_without_the_fence_late_writes_would_be_seen(site: RadosSite, name: VolumeName) -> None:
    """The control of the test above: the same writers, and nobody opens the volume in between."""
    site.node().create(name, uuid=None, size=SIZE)
    with site.writer(name) as late, site.writer(name) as ours:
        assert "wrote" in site.tell(late, "write -P 65 0 4096")
        assert "wrote" in site.tell(ours, "write -P 66 0 4096")
        assert "wrote" in site.tell(late, "write -P 67 0 4096")
    assert site.read(name) == b"C" * 4096


def test_a_take_over_fails_when_the_blocklist_call_does(site: RadosSite, name: VolumeName) -> None:
    dead = site.node("node1")
    dead.create(name, uuid=None, size=SIZE)
    dead.open(name, exclusive=True)
    images = site.images(timeout_s=3)
    taker = site.node("node2", images=images)
    with site.writer(name) as late:
        assert "wrote" in site.tell(late, "write -P 65 0 4096")
        assert images.clients(name) != ()
        with frozen(site.ceph, "mon.a"), pytest.raises(CephFault, match="on the blocklist, without which"):
            taker.open(name, exclusive=True)
        assert "wrote" in site.tell(late, "write -P 67 0 4096")
    assert dead.facts(name).holders == ("node1",)


def clients(node: RadosVolumes, name: str) -> set[str]:
    return {client.address for client in node._images.clients(name)}


# --- Ceph is not there


@contextlib.contextmanager
def frozen(ceph: Ceph, daemon: str) -> Iterator[None]:
    pid = ceph.pids()[daemon]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_an_osd_that_does_not_answer_is_told_in_time_and_leaves_nothing_half_made(
    site: RadosSite, node: RadosVolumes, name: VolumeName
) -> None:
    quick = site.node(images=site.images(timeout_s=2, limit_s=6))
    with pytest.raises(NotFound):
        quick.attach(name)
    with frozen(site.ceph, "osd.0"):
        began = time.monotonic()
        with pytest.raises(Exception, match="did not answer in time"):
            quick.create(name, uuid=UUID, size=SIZE)
        assert time.monotonic() - began < 20
    assert name not in node.volumes()
    node.create(name, uuid=UUID, size=SIZE)
    assert site.read(name) == bytes(4096)


def test_monitors_that_do_not_answer_are_told_in_time(site: RadosSite, name: VolumeName) -> None:
    with frozen(site.ceph, "mon.a"):
        began = time.monotonic()
        with pytest.raises(CephFault, match="Ceph did not answer in time"):
            site.node(images=site.images(timeout_s=2)).attach(name)
        assert time.monotonic() - began < 10


def test_a_pool_that_is_not_there_is_named(site: RadosSite, name: VolumeName) -> None:
    with pytest.raises(CephFault, match="the pool 'none' does not exist"):
        site.node(images=site.images(pool="none")).create(name, uuid=UUID, size=SIZE)


@pytest.mark.parametrize(("pool", "namespace"), [("with-hyphen", ""), (POOL, "tenant")])
def test_a_place_that_ganeti_could_not_name_is_refused_before_anything_is_made(
    site: RadosSite, name: VolumeName, pool: str, namespace: str
) -> None:
    images = site.images(pool=pool, namespace=namespace)
    with pytest.raises(UserError, match=r"Ganeti 3\.1 cannot pass to QEMU"):
        site.node(images=images).create(name, uuid=UUID, size=SIZE)


def test_objects_are_as_small_as_asked_for(site: RadosSite, name: VolumeName) -> None:
    site.node(images=site.images(object_size=65536)).create(name, uuid=UUID, size=SIZE)
    assert "order 16 (64 KiB objects)" in site.ceph.run(["rbd", "info", f"{POOL}/{name}"]).text
    assert site.write(name, "A", at=65536 - 4096, count=8192)
    assert site.read(name, at=65536 - 4096, count=8192) == b"A" * 8192


def test_a_client_tells_its_host() -> None:
    assert Client(address="10.0.0.1:0/123").host == "10.0.0.1"
    assert Client(address="[2001:db8::1]:0/123").host == "[2001:db8::1]"
