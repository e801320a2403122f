"""What the dead leave on a real Ceph, what cannot be read, and what lives though it takes long."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from snf_extstorage.rados.claims import claimed
from snf_extstorage.rados.engine import RadosVolumes
from snf_extstorage.rados.record import DamagedRecord
from snf_extstorage.volume import FromBase, FromSnapshot, FromVolume, InUse, NotFound, SnapshotName

from synnefo_light.errors import UserError
from synnefo_light.ganeti import VolumeName
from synnefo_light.store.commit import Commit
from synnefo_light.store.identity import BLOCK_SIZE
from synnefo_light.store.maps import Map, open_map
from synnefo_light.units import Bytes
from tests import child
from tests.real.snf_extstorage.rados_site import MIB, POOL, RadosSite

SIZE = Bytes(16 * MIB)


def die_at(rados: RadosSite, step: str, act: Callable[[RadosVolumes], object], *, node: str = "node1") -> None:
    """A child does it, and is killed when it comes to this step."""

    def die(at: str) -> None:
        if at == step:
            os.kill(os.getpid(), signal.SIGKILL)

    pid = child.start(lambda: act(rados.node(node, trace=die)))
    assert child.was_killed(pid), f"it did not come to the step {step!r}"


def told(engine: RadosVolumes) -> str:
    return "\n".join(engine.check())


def snapshots_of(rados: RadosSite, name: str) -> list[str]:
    listed = rados.ceph.run(["rbd", "snap", "ls", f"{POOL}/{name}"]).text.splitlines()[1:]
    return [line.split()[1] for line in listed]


def gone(rados: RadosSite) -> list[str]:
    return [image for image in rados.images_there() if image.startswith("gone.")]


# --- killed in the middle


def test_who_dies_on_the_way_to_the_trash_leaves_what_the_collector_frees(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, other: VolumeName, snap: SnapshotName
) -> None:
    engine.create(name, uuid=None, size=SIZE)
    engine.snapshot({name: snap})
    engine.clone(FromSnapshot(snapshot=snap), other, uuid=None, size=SIZE)
    engine.drop_snapshot(snap)
    die_at(rados, "dispose renamed", lambda node: node.remove(name))
    engine.remove(name)
    (left,) = gone(rados)
    assert f"image {left} was to be removed by a process that died" in told(engine)
    engine.sweep()
    assert gone(rados) == []
    assert left not in told(engine)
    engine.remove(other)
    assert left not in rados.ceph.run(["rbd", "trash", "ls", POOL]).text


def test_images_of_others_that_are_called_gone_stay_and_so_does_their_trash(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName
) -> None:
    theirs, discarded = f"gone.{name}", f"gone.{name}-trash"
    for image in (theirs, discarded):
        rados.ceph.run(["rbd", "create", "--size", "1M", f"{POOL}/{image}"])
    rados.ceph.run(["rbd", "snap", "create", f"{POOL}/{theirs}@before-upgrade"])
    rados.ceph.run(["rbd", "trash", "mv", f"{POOL}/{discarded}"])
    try:
        assert theirs not in told(engine)
        engine.sweep()
        assert snapshots_of(rados, theirs) == ["before-upgrade"]
        (entry,) = [line for line in trash(rados) if line.split()[1] == discarded]
        rados.ceph.run(["rbd", "trash", "rm", f"{POOL}/{entry.split()[0]}"])
    finally:
        rados.ceph.run(["rbd", "snap", "purge", f"{POOL}/{theirs}"])
        rados.ceph.run(["rbd", "rm", f"{POOL}/{theirs}"])


def trash(rados: RadosSite) -> list[str]:
    return rados.ceph.run(["rbd", "trash", "ls", POOL]).text.splitlines()


@pytest.mark.parametrize("step", ["fence blocklist", "fence wait", "fence break", "open record"])
def test_a_take_over_that_is_killed_is_finished_by_the_next_one(rados: RadosSite, name: VolumeName, step: str) -> None:
    lost, taker = rados.node("node1"), rados.node("node2")
    lost.create(name, uuid=None, size=SIZE)
    lost.open(name, exclusive=True)
    with rados.writer(name) as late:
        assert "wrote" in rados.tell(late, "write -P 65 0 4096")
        die_at(rados, step, lambda node: node.open(name, exclusive=True), node="node2")
        assert taker.facts(name).holders == ("node1",)
        taker.open(name, exclusive=True)
        assert (taker.facts(name).holders, taker.facts(name).exclusive) == (("node2",), True)
        assert "wrote" not in rados.tell(late, "write -P 67 0 4096")
        assert rados.write(name, "B")
    assert rados.read(name) == b"B" * 4096


def test_a_snapshot_that_is_being_made_is_not_lost_with_its_volume(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, other: VolumeName, snap: SnapshotName
) -> None:
    """The volume goes when the snapshot is there and its record does not say so yet: one of the two is refused."""
    engine.create(name, uuid=None, size=SIZE)
    assert rados.write(name, "A")

    def remove(step: str) -> None:
        if step == "snapshot publish":
            engine.remove(name)

    rados.node(trace=remove).snapshot({name: snap})
    engine.clone(FromSnapshot(snapshot=snap), other, uuid=None, size=SIZE)
    assert rados.read(other) == b"A" * 4096
    assert told_of(engine, snap) == []
    engine.drop_snapshot(snap)
    engine.remove(other)
    assert gone(rados) == []


def test_a_snapshot_of_a_volume_that_goes_before_it_is_cut_is_refused(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, snap: SnapshotName
) -> None:
    engine.create(name, uuid=None, size=SIZE)

    def begin_to_remove(step: str) -> None:
        if step == "snapshot image":
            die_at(rados, "remove image", lambda node: node.remove(name))

    with pytest.raises(NotFound, match="there is no volume"):
        rados.node(trace=begin_to_remove).snapshot({name: snap})
    engine.remove(name)
    assert told_of(engine, snap) == []
    assert gone(rados) == []


@pytest.mark.parametrize("together", [False, True])
def test_a_snapshot_of_a_volume_that_grows_before_it_is_cut_has_the_size_that_was_cut(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, other: VolumeName, snap: SnapshotName, together: bool
) -> None:
    larger = Bytes(2 * SIZE)
    cut = {name: snap} | ({other: SnapshotName(f"{snap}-1")} if together else {})
    for volume in cut:
        engine.create(volume, uuid=None, size=SIZE)

    @contextlib.contextmanager
    def grows() -> Iterator[None]:
        rados.node("node2").grow(name, larger)
        yield

    engine.snapshot(cut, still=grows())
    assert [engine.snapshot_facts(one).size for one in cut.values()] == [larger, SIZE][: len(cut)]
    clone = VolumeName(f"{name}-clone")
    with pytest.raises(UserError, match="ask for that much"):
        engine.clone(FromSnapshot(snapshot=snap), clone, uuid=None, size=SIZE)
    engine.clone(FromSnapshot(snapshot=snap), clone, uuid=None, size=larger)
    assert len(rados.read(clone, count=4 * SIZE)) == larger
    engine.remove(clone)
    for one in cut.values():
        engine.drop_snapshot(one)


def told_of(engine: RadosVolumes, name: str) -> list[str]:
    return [line for line in engine.check() if name in line]


@pytest.mark.parametrize(
    ("step", "after"), [("clone image", "again"), ("clone forget", "remove"), ("clone forget", "sweep")]
)
def test_a_clone_of_a_volume_leaves_no_snapshot_in_it_whoever_dies(
    rados: RadosSite,
    engine: RadosVolumes,
    name: VolumeName,
    other: VolumeName,
    step: str,
    after: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def clone(node: RadosVolumes) -> None:
        node.clone(FromVolume(volume=name), other, uuid=None, size=SIZE)

    engine.create(name, uuid=None, size=SIZE)
    die_at(rados, step, clone)
    monkeypatch.setattr("snf_extstorage.rados.engine.LEFT_S", -5)
    if after == "again":
        clone(engine)
    elif after == "remove":
        engine.remove(other)
    else:
        engine.sweep()
    assert snapshots_of(rados, name) == []
    assert told_of(engine, other) == []


def test_an_image_that_a_dead_process_left_in_a_group_is_cut_again(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, other: VolumeName, snap: SnapshotName
) -> None:
    for volume in (name, other):
        engine.create(volume, uuid=None, size=SIZE)
    for group, refused in (("snf.cut-dead", False), ("somebodys", True)):
        rados.ceph.run(["rbd", "group", "create", f"{POOL}/{group}"])
        rados.ceph.run(["rbd", "group", "image", "add", f"{POOL}/{group}", f"{POOL}/{other}"])
        cut = {name: SnapshotName(f"{snap}-{group}-a"), other: SnapshotName(f"{snap}-{group}-b")}
        if refused:
            with pytest.raises(InUse, match=f"it is in the RBD group {group}"):
                engine.snapshot(cut)
        else:
            engine.snapshot(cut)
            for one in cut.values():
                engine.drop_snapshot(one)
        rados.ceph.run(["rbd", "group", "rm", f"{POOL}/{group}"])
    assert rados.ceph.run(["rbd", "group", "ls", POOL]).text.split() == []


def test_what_is_refused_in_the_middle_leaves_nothing_half_made(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, other: VolumeName, snap: SnapshotName
) -> None:
    engine.create(name, uuid=None, size=SIZE)
    engine.snapshot({name: snap})

    def drop(step: str) -> None:
        if step == "create image":
            engine.drop_snapshot(snap)

    with pytest.raises(NotFound):
        rados.node(trace=drop).clone(FromSnapshot(snapshot=snap), other, uuid=None, size=SIZE)
    assert told_of(engine, other) == []
    assert other not in rados.images_there()


def test_an_image_that_died_in_ceph_s_own_making_is_made_anew(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName
) -> None:
    """First Ceph writes which image a name has, then the image."""
    die_at(rados, "create image", lambda node: node.create(name, uuid=None, size=SIZE))
    identity = rados.ceph.folder / "identity"
    identity.write_bytes(b"\x0c\0\0\0deadbeef0000")
    rados.ceph.run(["rados", "-p", POOL, "put", f"rbd_id.{name}", identity])
    engine.create(name, uuid=None, size=SIZE)
    assert rados.write(name, "A")
    engine.remove(name)
    assert name not in rados.images_there()


# --- what takes long


class Clock:
    def __init__(self) -> None:
        self.now = 1.8e9

    def time(self) -> float:
        return self.now


def test_a_base_that_takes_hours_to_compose_is_not_swept(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, clock, marker = rados.store(), Clock(), uuid4().bytes
    with Commit(store, size=6 * BLOCK_SIZE, owner="test") as commit:
        for index in range(6):
            commit.put(index, bytes([index]) + marker)
        content = open_map(store, commit.finish())
    collector = rados.node("node2")
    monkeypatch.setattr("snf_extstorage.rados.kept.time", clock)
    monkeypatch.setattr("snf_extstorage.rados.upkeep.time", clock)
    swept: list[str] = []
    read = Map.read

    def slow(self: Map, index: int) -> bytes:
        clock.now += 1800
        swept.extend(one for one in collector.sweep() if content.id in one)
        return read(self, index)

    monkeypatch.setattr(Map, "read", slow)
    engine.compose(content)
    assert swept == []
    monkeypatch.undo()
    engine.clone(FromBase(map=content.id), name, uuid=None, size=Bytes(content.size))
    assert rados.read(name, at=5 * BLOCK_SIZE, count=17) == bytes([5]) + marker


# --- records that cannot be read


def write_line(rados: RadosSite, table: str, key: str, line: str) -> None:
    rados.ceph.run(["rados", "-p", POOL, "setomapval", table, key, line])


def read_line(rados: RadosSite, table: str, key: str) -> str:
    rados.ceph.run(["rados", "-p", POOL, "getomapval", table, key, f"{rados.ceph.folder}/line"])
    return (rados.ceph.folder / "line").read_text()


@pytest.mark.parametrize("how", ["newer", "flipped", "torn", "another's"])
def test_a_damaged_record_stops_its_volume_alone_and_is_named(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, other: VolumeName, how: str
) -> None:
    for volume in (name, other):
        engine.create(volume, uuid=None, size=SIZE)
    assert rados.write(name, "A")
    line = read_line(rados, "snf.volumes", name)
    assert line.startswith("1 ")
    damaged = {
        "newer": line.replace("1 ", "2 ", 1),
        "flipped": line.replace('"exclusive":false', '"exclusive":true'),
        "torn": line[:-1],
        "another's": read_line(rados, "snf.volumes", other),
    }[how]
    write_line(rados, "snf.volumes", name, damaged)
    words = "has version 2, and this release reads 1" if how == "newer" else "is damaged"
    acts: tuple[Callable[[], object], ...] = (
        lambda: engine.attach(name),
        lambda: engine.open(name, exclusive=True),
        lambda: engine.remove(name),
        lambda: engine.create(name, uuid=None, size=SIZE),
    )
    for act in acts:
        with pytest.raises(DamagedRecord, match=f"the record snf.volumes/{name} {words}"):
            act()
    assert f"the record snf.volumes/{name} {words}" in told(engine)
    engine.open(other, exclusive=True)
    assert other in engine.volumes()
    engine.remove(other)
    # As the manual has it: the record goes, the image is adopted.
    rados.ceph.run(["rados", "-p", POOL, "rmomapkey", "snf.volumes", name])
    engine.adopt(name, other, uuid=None, size=SIZE)
    assert rados.read(other) == b"A" * 4096
    assert told_of(engine, name) == []


def test_a_snapshot_whose_record_is_damaged_keeps_its_image(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName, other: VolumeName, snap: SnapshotName
) -> None:
    engine.create(name, uuid=None, size=SIZE)
    assert rados.write(name, "A")
    engine.snapshot({name: snap})
    line = read_line(rados, "snf.snapshots", snap)
    write_line(rados, "snf.snapshots", snap, line[:-1])
    engine.remove(name)
    engine.sweep()
    with pytest.raises(DamagedRecord, match=f"snf.snapshots/{snap} is damaged"):
        engine.clone(FromSnapshot(snapshot=snap), other, uuid=None, size=SIZE)
    write_line(rados, "snf.snapshots", snap, line)
    engine.clone(FromSnapshot(snapshot=snap), other, uuid=None, size=SIZE)
    assert rados.read(other) == b"A" * 4096
    engine.drop_snapshot(snap)
    assert gone(rados) == []


def test_two_nodes_do_not_commit_the_same_and_a_killed_one_stops_nobody_for_long(
    rados: RadosSite, engine: RadosVolumes, snap: SnapshotName
) -> None:
    read, write = os.pipe()

    def hold() -> None:
        with rados.node("node1").claim(snap, wait_s=0):
            os.write(write, b"claimed")
            time.sleep(2 * child.LIMIT_S)

    pid = child.start(hold)
    os.close(write)  # so that the end of a child that never claims it is an end here too
    with open(read, "rb") as heard:
        assert heard.read(7) == b"claimed"
    with pytest.raises(InUse, match=rf"{snap} is to be committed, but process {pid} on node1 is at it already"):
        rados.node("node2").claim(snap, wait_s=0).__enter__()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    table = engine._kept.claims
    with claimed(table, snap, node="node2", wait_s=30, lease_s=1):
        assert [record.node for key, record in table.items() if key == snap] == ["node2"]
        with pytest.raises(InUse, match="on node2 is at it already"):
            engine.claim(snap, wait_s=0).__enter__()
    with engine.claim(snap, wait_s=0):
        assert told_of(engine, snap) == []
    assert table.get(snap) is None
