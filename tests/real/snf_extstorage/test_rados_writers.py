"""Who may write a volume on a real Ceph, the fence, and a Ceph that does not answer."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from snf_extstorage.rados.engine import RadosVolumes
from snf_extstorage.rados.images import Client, Images
from snf_extstorage.volume import (
    InUse,
    NotFound,
    SizeRefused,
)
from snf_lab.ceph import Ceph

from synnefo_light.ceph import Access, CephFault, Cluster
from synnefo_light.errors import UserError
from synnefo_light.ganeti import VolumeName
from synnefo_light.units import Bytes
from tests.real.snf_extstorage.rados_site import MIB, POOL, RadosSite

UUID = "efa8d6e0-c062-4b14-b829-467e6499f266"
SIZE = Bytes(32 * MIB)


# --- use


def test_grow_is_seen_by_who_has_it_open_and_what_is_new_is_zeros(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName
) -> None:
    engine.create(name, uuid=None, size=SIZE)
    with rados.writer(name) as guest:
        assert "wrote" in rados.tell(guest, "write -P 65 0 4096")
        engine.grow(name, Bytes(2 * SIZE))
        engine.grow(name, Bytes(2 * SIZE))
    assert engine.facts(name).size == 2 * SIZE
    assert rados.read(name, count=2 * SIZE + 1) == b"A" * 4096 + bytes(2 * SIZE - 4096)
    with pytest.raises(SizeRefused, match="only grow"):
        engine.grow(name, SIZE)


def test_remove_refuses_while_a_qemu_has_it_open(rados: RadosSite, engine: RadosVolumes, name: VolumeName) -> None:
    engine.create(name, uuid=None, size=SIZE)
    with rados.writer(name) as guest:
        assert "wrote" in rados.tell(guest, "write -P 65 0 4096")
        with pytest.raises(InUse, match="has it open"):
            engine.remove(name)
        assert "wrote" in rados.tell(guest, "write -P 66 0 4096")
    assert name in engine.volumes()


def test_remove_waits_for_a_qemu_that_was_killed_to_be_forgotten(rados: RadosSite, name: VolumeName) -> None:
    patient = rados.node(patience_s=45)
    patient.create(name, uuid=None, size=SIZE)
    with rados.writer(name) as guest:
        assert "wrote" in rados.tell(guest, "write -P 65 0 4096")
    patient.remove(name)
    assert name not in rados.images_there()


def test_detach_refuses_while_a_qemu_of_this_node_has_it_open(
    rados: RadosSite, engine: RadosVolumes, name: VolumeName
) -> None:
    engine.create(name, uuid=None, size=SIZE)
    engine.open(name, exclusive=True)
    with rados.writer(name) as guest:
        assert "wrote" in rados.tell(guest, "write -P 65 0 4096")
        rados.ours = clients(engine, name)
        with pytest.raises(InUse, match="on this node has it open"):
            engine.detach(name)
        assert "wrote" in rados.tell(guest, "write -P 66 0 4096")
    assert engine.facts(name).holders == ("node1",)
    rados.ours = set()
    engine.detach(name)
    assert engine.facts(name).holders == ()


def test_detach_and_remove_and_close_of_what_is_not_there_succeed(engine: RadosVolumes, name: VolumeName) -> None:
    for act in (engine.detach, engine.remove, engine.close):
        act(name)
        act(name)
    with pytest.raises(NotFound):
        engine.attach(name)
    with pytest.raises(NotFound):
        engine.open(name, exclusive=True)


def test_a_live_migration_hands_the_volume_over_and_one_writer_is_left(rados: RadosSite, name: VolumeName) -> None:
    one, two = rados.node("node1"), rados.node("node2")
    one.create(name, uuid=None, size=SIZE)
    one.open(name, exclusive=True)
    two.attach(name)
    two.close(name)
    with pytest.raises(InUse, match="node1 has it for itself"):
        two.open(name, exclusive=False)
    one.open(name, exclusive=False)
    with rados.writer(name) as source, rados.writer(name) as target:
        assert "wrote" in rados.tell(source, "write -P 65 0 4096")
        two.open(name, exclusive=False)
        assert "wrote" in rados.tell(target, "write -P 66 4096 4096")
        one.close(name)
        two.open(name, exclusive=True)
        assert "wrote" in rados.tell(target, "write -P 67 8192 4096")
    one.detach(name)
    assert two.facts(name).holders == ("node2",)
    assert two.facts(name).generation == 0
    assert rados.read(name, count=12288) == b"A" * 4096 + b"B" * 4096 + b"C" * 4096
    with pytest.raises(InUse, match="node2 has it open"):
        one.remove(name)


def test_a_dead_nodes_late_writes_reach_nobody(rados: RadosSite, name: VolumeName) -> None:
    dead, next_node = rados.node("node1"), rados.node("node2")
    dead.create(name, uuid=None, size=SIZE)
    dead.open(name, exclusive=True)
    with rados.writer(name) as late, rados.writer(name) as bystander:
        assert "wrote" in rados.tell(late, "write -P 65 0 4096")
        assert rados.tell(bystander, "read -P 65 0 4096").startswith("read 4096")
        address = clients(next_node, name)
        with rados.writer(name) as ours:
            assert rados.tell(ours, "read -P 65 0 4096").startswith("read 4096")
            rados.ours = clients(next_node, name) - address
            next_node.open(name, exclusive=True)
            assert "wrote" in rados.tell(ours, "write -P 66 0 4096")
            assert "wrote" not in rados.tell(late, "write -P 67 0 4096")
            assert "wrote" not in rados.tell(bystander, "write -P 68 0 4096")
            assert rados.tell(ours, "read -P 66 0 4096").startswith("read 4096")
    facts = next_node.facts(name)
    assert (facts.holders, facts.exclusive, facts.generation) == (("node2",), True, 1)
    assert rados.read(name) == b"B" * 4096


def test_without_the_fence_late_writes_would_be_seen(rados: RadosSite, name: VolumeName) -> None:
    """The control of the test above: the same writers, and nobody opens the volume in between."""
    rados.node().create(name, uuid=None, size=SIZE)
    with rados.writer(name) as late, rados.writer(name) as ours:
        assert "wrote" in rados.tell(late, "write -P 65 0 4096")
        assert "wrote" in rados.tell(ours, "write -P 66 0 4096")
        assert "wrote" in rados.tell(late, "write -P 67 0 4096")
    assert rados.read(name) == b"C" * 4096


def test_a_take_over_fails_when_the_blocklist_call_does(rados: RadosSite, name: VolumeName) -> None:
    dead = rados.node("node1")
    dead.create(name, uuid=None, size=SIZE)
    dead.open(name, exclusive=True)
    images = rados.images(timeout_s=3)
    taker = rados.node("node2", images=images)
    with rados.writer(name) as late:
        assert "wrote" in rados.tell(late, "write -P 65 0 4096")
        assert images.clients(name) != ()
        with frozen(rados.ceph, "mon.a"), pytest.raises(CephFault, match="on the blocklist, without which"):
            taker.open(name, exclusive=True)
        assert "wrote" in rados.tell(late, "write -P 67 0 4096")
    assert dead.facts(name).holders == ("node1",)


def clients(engine: RadosVolumes, name: str) -> set[str]:
    return {client.address for client in engine._images.clients(name)}


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
    rados: RadosSite, engine: RadosVolumes, name: VolumeName
) -> None:
    quick = rados.node(images=rados.images(timeout_s=2, limit_s=6))
    with pytest.raises(NotFound):
        quick.attach(name)
    with frozen(rados.ceph, "osd.0"):
        began = time.monotonic()
        with pytest.raises(Exception, match="did not answer in time"):
            quick.create(name, uuid=UUID, size=SIZE)
        assert time.monotonic() - began < 20
    assert name not in engine.volumes()
    engine.create(name, uuid=UUID, size=SIZE)
    assert rados.read(name) == bytes(4096)


def test_monitors_that_do_not_answer_are_told_in_time(rados: RadosSite, name: VolumeName) -> None:
    with frozen(rados.ceph, "mon.a"):
        began = time.monotonic()
        with pytest.raises(CephFault, match="Ceph did not answer in time"):
            rados.node(images=rados.images(timeout_s=2)).attach(name)
        assert time.monotonic() - began < 10


def test_a_wrong_key_is_told_in_words_and_makes_nothing(rados: RadosSite, name: VolumeName, tmp_path: Path) -> None:
    keyring, conf = tmp_path / "keyring", tmp_path / "ceph.conf"
    keyring.write_text("[client.ganeti]\nkey = AQBSyD5nAAAAABAAdvNHlGWjTlqlI0t6B8xmRA==\n")
    conf.write_text(rados.ceph.client_conf.read_text().replace(str(rados.ceph.client_keyring), str(keyring)))
    wrong = RadosVolumes(Images(Cluster(Access(conf=conf, user="ganeti")), pool=POOL), node="node1")
    for act in ("create", "open"):
        with pytest.raises(CephFault, match=r"its key is not the one that the cluster knows"):
            wrong.create(name, uuid=None, size=SIZE) if act == "create" else wrong.open(name, exclusive=True)
    assert name not in rados.images_there()
    assert name not in rados.ceph.run(["rados", "-p", POOL, "listomapkeys", "snf.volumes"]).text


def test_a_pool_that_is_not_there_is_named(rados: RadosSite, name: VolumeName) -> None:
    with pytest.raises(CephFault, match="the pool 'none' does not exist"):
        rados.node(images=rados.images(pool="none")).create(name, uuid=UUID, size=SIZE)


@pytest.mark.parametrize(("pool", "namespace"), [("with-hyphen", ""), (POOL, "tenant")])
def test_a_place_that_ganeti_could_not_name_is_refused_before_anything_is_made(
    rados: RadosSite, name: VolumeName, pool: str, namespace: str
) -> None:
    images = rados.images(pool=pool, namespace=namespace)
    with pytest.raises(UserError, match=r"Ganeti 3\.1 cannot pass to QEMU"):
        rados.node(images=images).create(name, uuid=UUID, size=SIZE)


def test_qemu_takes_the_user_from_the_address_alone(rados: RadosSite, engine: RadosVolumes, name: VolumeName) -> None:
    """Which is why a user that Ganeti cannot pass on is refused: librados takes none from CEPH_ARGS."""
    engine.create(name, uuid=None, size=SIZE)
    environ = {**os.environ, "CEPH_ARGS": "--id ganeti"}
    for user, works in ((":id=ganeti", True), ("", False)):
        address = f"rbd:{POOL}/{name}{user}:conf={rados.ceph.client_conf}"
        words = ["qemu-io", "-f", "raw", "-c", "read 0 4096", address]
        done = subprocess.run(words, env=environ, capture_output=True, timeout=60, check=False)
        assert (done.returncode == 0) is works, done.stderr


def test_objects_are_as_small_as_asked_for(rados: RadosSite, name: VolumeName) -> None:
    rados.node(images=rados.images(object_size=65536)).create(name, uuid=UUID, size=SIZE)
    assert "order 16 (64 KiB objects)" in rados.ceph.run(["rbd", "info", f"{POOL}/{name}"]).text
    assert rados.write(name, "A", at=65536 - 4096, count=8192)
    assert rados.read(name, at=65536 - 4096, count=8192) == b"A" * 8192


def test_a_client_tells_its_host() -> None:
    assert Client(address="10.0.0.1:0/123").host == "10.0.0.1"
    assert Client(address="[2001:db8::1]:0/123").host == "[2001:db8::1]"
