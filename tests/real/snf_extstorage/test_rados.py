"""The engine `rados` on a real Ceph, looked at with QEMU and the tool `rbd`."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from snf_extstorage.rados.engine import RadosVolumes
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


def image_of(store: Store, blocks: dict[int, bytes], *, size: int) -> Map:
    with Commit(store, size=size, owner="test") as commit:
        for index in sorted(blocks):
            commit.put(index, blocks[index])
        return open_map(store, commit.finish())


def committed(engine: RadosVolumes, store: Store, snap: SnapshotName, since: MapId | None = None) -> Map:
    facts = engine.snapshot_facts(snap)
    parent = None
    if since is not None:
        from synnefo_light.store import pins

        with Commit(store, size=facts.size, owner="keep") as commit:
            parent = pins.keep(store, f"kept-{since}", owner="test", map_id=since, under=commit.held)
    with Commit(store, size=facts.size, parent=parent, owner="test") as commit:
        return open_map(store, engine.commit(snap, commit, since))


def content(found: Map) -> bytes:
    return b"".join(found.read(index) for index in range(found.block_count))


# --- making and removing


def test_a_new_volume_is_zeros_of_its_size_and_known_to_qemu(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName
) -> None:
    engine.create(name, uuid=UUID, size=SIZE)
    assert rados.read(name, count=SIZE + 1) == bytes(SIZE)
    assert engine.attach(name).stdout() == f"\nkvm:rbd:{POOL}/{name}:id=ganeti"
    assert engine.attach(name) == engine.attach(name)
    assert rados.write(name, "A")
    assert rados.read(name) == b"A" * 4096
    assert name in engine.volumes()


def test_create_again_is_the_same_volume_until_somebody_opened_it(engine: RadosVolumes, name: VolumeName) -> None:
    engine.create(name, uuid=UUID, size=SIZE)
    engine.create(name, uuid=UUID, size=SIZE)
    for uuid, size in ((UUID, 2 * SIZE), (UUID.replace("e", "f"), SIZE)):
        with pytest.raises(Exists, match="another one"):
            engine.create(name, uuid=uuid, size=Bytes(size))
    engine.open(name, exclusive=True)
    with pytest.raises(Exists, match="has been in use"):
        engine.create(name, uuid=UUID, size=SIZE)


def test_an_image_that_is_not_ours_is_left_alone(rados: RadosSite, engine: RadosVolumes, name: VolumeName) -> None:
    rados.ceph.run(["rbd", "create", "--size", "4M", f"{POOL}/{name}"])
    with pytest.raises(Exists, match="that is not ours"):
        engine.create(name, uuid=UUID, size=SIZE)
    engine.remove(name)
    assert name in rados.images_there()
    engine.adopt(name, name_of(name), uuid=UUID, size=Bytes(4 * MIB))
    engine.adopt(name, name_of(name), uuid=UUID, size=Bytes(4 * MIB))
    assert {name, name_of(name)} & rados.images_there() == {name_of(name)}


def name_of(name: str) -> VolumeName:
    return VolumeName(name.replace("disk0", "disk7"))


def test_adopt_takes_over_a_volume_with_its_bytes_and_asks_for_its_size(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, other: VolumeName
) -> None:
    engine.create(name, uuid=None, size=SIZE)
    assert rados.write(name, "A")
    with pytest.raises(SizeRefused):
        engine.adopt(name, other, uuid=UUID, size=Bytes(2 * SIZE))
    engine.adopt(name, other, uuid=UUID, size=SIZE)
    assert rados.read(other) == b"A" * 4096
    assert name not in engine.volumes()
    with pytest.raises(NotFound):
        engine.adopt(name, VolumeName("third"), uuid=UUID, size=SIZE)


def test_adopt_takes_neither_the_engines_own_images_nor_another_disks(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, other: VolumeName
) -> None:
    base = VolumeName("base." + "0" * 64)
    with pytest.raises(UserError, match="are the engine's own"):
        engine.adopt(base, other, uuid=UUID, size=SIZE)
    engine.create(name, uuid=UUID.replace("e", "f"), size=SIZE)
    with pytest.raises(UserError, match="Ganeti made it for its disk"):
        engine.adopt(name, other, uuid=UUID, size=SIZE)
    assert {name, other} & rados.images_there() == {name}


def test_a_creation_that_is_undone_gives_back_what_it_adopted_and_one_that_was_used_is_removed(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, other: VolumeName
) -> None:
    rados.ceph.run(["rbd", "create", "--size", "4M", f"{POOL}/{name}"])
    assert rados.write(name, "A")
    for opens, left in ((1, {name}), (2, set())):
        engine.adopt(name, other, uuid=UUID, size=Bytes(4 * MIB))
        for _ in range(opens):
            engine.open(other, exclusive=True)
        engine.detach(other)
        engine.remove(other)
        assert {name, other} & rados.images_there() == left
        assert {name, other} & set(engine.volumes()) == left
        assert not left or rados.read(name) == b"A" * 4096


def test_what_a_dead_node_has_is_removed_only_when_it_is_said_that_it_is_dead(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName
) -> None:
    rados.node("node2").create(name, uuid=UUID, size=SIZE)
    rados.node("node2").open(name, exclusive=True)
    with pytest.raises(InUse, match="node2 has it open"):
        engine.remove(name)
    engine.remove(name, deserted=True)
    assert name not in engine.volumes()


@pytest.mark.parametrize("step", ["create record", "create image", "create publish", "create done"])
def test_who_dies_while_making_a_clone_leaves_nothing_half_made(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, other: VolumeName, step: str
) -> None:
    engine.create(name, uuid=None, size=SIZE)
    assert rados.write(name, "A")

    def die(at: str) -> None:
        if at == step:
            raise Died(at)

    with pytest.raises(Died):
        rados.node(trace=die).clone(FromVolume(volume=name), other, uuid=UUID, size=Bytes(2 * SIZE))
    if step != "create done":
        with pytest.raises(NotFound):
            engine.attach(other)
        assert other not in engine.volumes()
    engine.clone(FromVolume(volume=name), other, uuid=UUID, size=Bytes(2 * SIZE))
    assert rados.read(other, count=2 * SIZE + 1) == b"A" * 4096 + bytes(2 * SIZE - 4096)


@pytest.mark.parametrize("step", ["remove record", "remove image", "remove done"])
def test_who_dies_while_removing_can_remove_again_and_make_anew(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, step: str
) -> None:
    def die(at: str) -> None:
        if at == step:
            raise Died(at)

    engine.create(name, uuid=None, size=SIZE)
    assert rados.write(name, "A")
    with pytest.raises(Died):
        rados.node(trace=die).remove(name)
    engine.create(name, uuid=None, size=SIZE) if step != "remove record" else engine.remove(name)
    if step != "remove record":
        assert rados.read(name) == bytes(4096)
    engine.remove(name)
    engine.remove(name)
    assert name not in rados.images_there()


# --- clones, snapshots, the store


def test_an_image_is_copied_once_and_its_clones_share_it(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, other: VolumeName
) -> None:
    store, marker = rados.store(), uuid4().bytes
    found = image_of(store, {0: marker, 3: b"third"}, size=4 * BLOCK_SIZE + 512)
    with pytest.raises(NotFound, match="no base of map"):
        engine.clone(FromBase(map=found.id), name, uuid=UUID, size=SIZE)
    engine.compose(found)
    engine.compose(found)
    assert found.id in engine.bases()
    with pytest.raises(SizeRefused, match="ask for that much"):
        engine.clone(FromBase(map=found.id), name, uuid=UUID, size=Bytes(4 * BLOCK_SIZE))
    uuid = str(uuid4())
    for volume in (name, other):
        engine.clone(FromBase(map=found.id), volume, uuid=uuid, size=SIZE)
        assert engine.facts(volume).stored == 0
        assert engine.facts(volume).origin == found.id
        assert engine.changed(volume, FromBase(map=found.id)) == 0
    assert engine.find(uuid) in (name, other)
    assert engine.find(str(uuid4())) is None
    assert rados.read(name, count=SIZE + 1) == content(found).ljust(SIZE, b"\0")
    assert rados.write(name, "A")
    assert rados.read(other, count=16) == marker
    rados.discard(other, at=0, count=BLOCK_SIZE)
    assert [engine.changed(volume, FromBase(map=found.id)) for volume in (name, other)] == [BLOCK_SIZE, BLOCK_SIZE]
    engine.drop_base(found.id)
    assert found.id not in engine.bases()
    assert rados.read(other, at=3 * BLOCK_SIZE, count=5) == b"third"
    engine.remove(name)
    engine.remove(other)
    assert [image for image in trash(rados) if found.id in image] == []


def test_a_clone_has_smaller_objects_than_its_image_so_a_first_write_copies_less(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName
) -> None:
    image = image_of(rados.store(), {0: b"a" * BLOCK_SIZE, 1: b"b" * BLOCK_SIZE}, size=SIZE)
    engine.compose(image)
    rados.node(images=rados.images(object_size=65536)).clone(FromBase(map=image.id), name, uuid=None, size=SIZE)
    info = json.loads(rados.ceph.run(["rbd", "info", "--format", "json", f"{POOL}/{name}"]).text)
    assert (info["object_size"], "striping" in info["features"]) == (65536, False)
    assert rados.write(name, "C", at=BLOCK_SIZE)
    copied = json.loads(rados.ceph.run(["rbd", "du", "--format", "json", f"{POOL}/{name}"]).text)
    assert copied["images"][0]["used_size"] == 65536
    assert rados.read(name, at=BLOCK_SIZE - 4096, count=3 * 4096) == b"a" * 4096 + b"C" * 4096 + b"b" * 4096


def trash(rados: RadosSite) -> list[str]:
    return rados.ceph.run(["rbd", "trash", "ls", POOL]).text.splitlines()


def test_a_snapshot_is_cloned_at_once_and_outlives_its_volume(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, other: VolumeName, snap: SnapshotName
) -> None:
    engine.create(name, uuid=None, size=SIZE)
    assert rados.write(name, "A")
    engine.snapshot({name: snap})
    with pytest.raises(Exists):
        engine.snapshot({name: snap})
    assert rados.write(name, "B")
    engine.clone(FromSnapshot(snapshot=snap), other, uuid=None, size=Bytes(2 * SIZE))
    assert (rados.read(other), rados.read(name)) == (b"A" * 4096, b"B" * 4096)
    changed = [engine.changed(volume, FromSnapshot(snapshot=snap)) for volume in (other, name)]
    assert changed == [0, SIZE]  # what is no clone of it counts as another content
    engine.remove(name)
    third = name_of(name)
    engine.clone(FromSnapshot(snapshot=snap), third, uuid=None, size=SIZE)
    assert rados.read(third) == b"A" * 4096
    engine.drop_snapshot(snap)
    engine.drop_snapshot(snap)
    assert rados.read(other) == b"A" * 4096
    engine.remove(other)
    assert rados.read(third) == b"A" * 4096
    engine.remove(third)
    assert not [image for image in rados.images_there() if image.startswith("gone.")]


def test_a_commit_is_what_the_volume_was_at_the_snapshot(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, snap: SnapshotName
) -> None:
    store = rados.store()
    engine.create(name, uuid=None, size=Bytes(5 * BLOCK_SIZE + 4096))
    assert rados.write(name, "A", at=BLOCK_SIZE)
    assert rados.write(name, "Z", at=5 * BLOCK_SIZE)
    engine.snapshot({name: snap})
    assert rados.write(name, "B", at=2 * BLOCK_SIZE)
    found = committed(engine, store, snap)
    assert content(found) == rados.read(f"{name}@{snap}", count=found.size + 1)
    assert [index for index, _ in found.blocks()] == [1, 5]
    assert committed(engine, store, snap).id == found.id


def test_what_changed_is_told_without_reading_what_did_not(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, other: VolumeName, snap: SnapshotName
) -> None:
    """Also what was discarded, and through a clone of a snapshot of a clone."""
    store = rados.store()
    base = image_of(store, {n: bytes([n + 1]) * 100 + uuid4().bytes for n in range(6)}, size=6 * BLOCK_SIZE)
    engine.compose(base)
    engine.clone(FromBase(map=base.id), name, uuid=None, size=Bytes(base.size))
    assert rados.write(name, "A", at=BLOCK_SIZE)
    rados.discard(name, at=2 * BLOCK_SIZE, count=BLOCK_SIZE)
    engine.snapshot({name: snap})
    dirty = [(e.start // BLOCK_SIZE, e.length // BLOCK_SIZE) for e in engine.dirty(snap, base.id)]
    assert dirty == [(1, 2)]
    found = committed(engine, store, snap, since=base.id)
    assert content(found) == rados.read(name, count=base.size)
    assert found.read(2) == bytes(BLOCK_SIZE)
    assert found.block(3) == base.block(3)

    engine.clone(FromSnapshot(snapshot=snap), other, uuid=None, size=Bytes(base.size))
    assert rados.write(other, "B", at=4 * BLOCK_SIZE)
    later = SnapshotName(f"{snap}-later")
    engine.snapshot({other: later})
    assert [(e.start // BLOCK_SIZE, e.length // BLOCK_SIZE) for e in engine.dirty(later, base.id)] == [(1, 2), (4, 1)]
    assert content(committed(engine, store, later, since=base.id)) == rados.read(other, count=base.size)

    assert rados.write(name, "C", at=5 * BLOCK_SIZE)
    second = SnapshotName(f"{snap}-second")
    engine.snapshot({name: second})
    assert [(e.start // BLOCK_SIZE, e.length // BLOCK_SIZE) for e in engine.dirty(second, found.id)] == [(5, 1)]
    unknown = MapId("0" * 64)
    assert [(e.start, e.length) for e in engine.dirty(second, unknown)] == [(0, base.size)]


def test_without_an_object_map_everything_counts_as_changed(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, snap: SnapshotName
) -> None:
    engine.create(name, uuid=None, size=SIZE)
    rados.ceph.run(["rbd", "feature", "disable", f"{POOL}/{name}", "fast-diff", "object-map"])
    engine.snapshot({name: snap})
    assert [(e.start, e.length) for e in engine.dirty(snap, None)] == [(0, SIZE)]
    assert engine.facts(name).stored is None


def test_one_cut_over_two_disks_while_both_are_written(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, other: VolumeName, snap: SnapshotName
) -> None:
    """Pairs are written to one disk and then to the other: in a cut the second is never ahead of the first."""
    for volume in (name, other):
        engine.create(volume, uuid=None, size=SIZE)
    store, second = rados.store(), SnapshotName(f"{snap}-b")
    with pytest.raises(NotFound):
        engine.snapshot({name: snap, VolumeName("none"): second})
    assert snap not in engine.snapshots()
    stood: list[str] = []

    @contextlib.contextmanager
    def still() -> Iterator[None]:
        stood.append("still")
        yield
        stood.append("on")

    writer = pair_writer(rados, name, other)
    with writer:
        time.sleep(1)
        engine.snapshot({name: snap, other: second}, still=still())
        time.sleep(0.5)
    assert stood == ["still", "on"]
    first, then = (content(committed(engine, store, which))[:8] for which in (snap, second))
    ahead = int.from_bytes(first, "big") - int.from_bytes(then, "big")
    assert int.from_bytes(then, "big") > 0
    assert ahead in (0, 1)
    engine.clone(FromSnapshot(snapshot=snap), name_of(name), uuid=None, size=Bytes(2 * SIZE))
    assert rados.read(name_of(name), count=8) == first
    engine.remove(name)
    engine.drop_snapshot(snap)
    assert committed(engine, store, second).size == SIZE
    engine.drop_snapshot(second)
    engine.remove(other)
    assert rados.ceph.run(["rbd", "group", "ls", POOL]).text.split() == []
    assert not [image for image in rados.images_there() if image.startswith("gone.")]


@contextlib.contextmanager
def pair_writer(rados: RadosSite, name: str, other: str) -> Iterator[None]:
    """A process that writes 1, 2, 3... to the start of one image and then of the other, each flushed."""
    words = [sys.executable, "-c", PAIRS, str(rados.ceph.client_conf), POOL, name, other]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        try:
            yield
            assert process.poll() is None
        finally:
            process.terminate()


# --- looking after


def test_a_file_becomes_a_map_and_its_base_at_once(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, tmp_path: Path
) -> None:
    store, file = rados.store(), tmp_path / "image"
    size = 2 * BLOCK_SIZE + 4096
    file.write_bytes((b"begin" + uuid4().bytes).ljust(2 * BLOCK_SIZE, b"\0") + b"end")
    with open(file, "rb") as source, Commit(store, size=size, owner="test") as commit:
        made = engine.register(source.fileno(), Bytes(size), commit)
    assert content(open_map(store, made)) == file.read_bytes().ljust(size, b"\0")
    assert 0 <= engine.age_s("bases", made) < 60
    engine.clone(FromBase(map=made), name, uuid=None, size=SIZE)
    assert rados.read(name, count=size) == file.read_bytes().ljust(size, b"\0")


def test_a_file_that_changes_while_it_is_registered_becomes_no_image(
    rados: RadosSite, engine: RadosVolumes, tmp_path: Path
) -> None:
    file = tmp_path / "image"
    file.write_bytes(uuid4().bytes * 300)

    def change(step: str) -> None:
        if step == "compose image":
            file.write_bytes(uuid4().bytes * 300)

    changing, before = rados.node(trace=change), set(engine.bases())
    with (
        open(file, "rb") as source,
        Commit(rados.store(), size=4800, owner="test") as commit,
        pytest.raises(UserError, match="the file changed at byte 0"),
    ):
        changing.register(source.fileno(), Bytes(4800), commit)
    assert set(engine.bases()) == before


def test_what_the_dead_left_is_swept_after_an_hour_and_told_before(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, other: VolumeName, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(at: str) -> None:
        if at in ("create publish", "remove image"):
            raise Died(at)

    engine.create(other, uuid=None, size=SIZE)
    with pytest.raises(Died):
        rados.node(trace=die).create(name, uuid=None, size=SIZE)
    with pytest.raises(Died):
        rados.node(trace=die).remove(other)
    assert {f"volume {one} is half made or half removed" in told(engine) for one in (name, other)} == {True}
    assert f"volume {name}" not in engine.sweep()
    monkeypatch.setattr("snf_extstorage.rados.engine.LEFT_S", -5)
    swept = engine.sweep()
    assert {f"volume {name}", f"volume {other}"} <= set(swept)
    assert {name, other} & rados.images_there() == set()
    assert name not in told(engine)


def test_a_record_without_its_image_is_told(rados: RadosSite, engine: RadosVolumes, name: VolumeName) -> None:
    engine.create(name, uuid=None, size=SIZE)
    assert name not in told(engine)
    rados.ceph.run(["rbd", "rm", "--no-progress", f"{POOL}/{name}"])
    assert f"volume {name} has a record and no image" in told(engine)
    engine.remove(name)
    assert name not in told(engine)


def told(engine: RadosVolumes) -> str:
    return "\n".join(engine.check())
