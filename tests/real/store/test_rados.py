"""The backend on RADOS objects where it is unlike a directory, looked at with the tool `rados` as the administrator."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from snf_lab.ceph import CLIENT, POOLS, Ceph

from synnefo_light.ceph import Access, CephFault, Cluster
from synnefo_light.store.backend import Instant, Kind
from synnefo_light.store.errors import Absent, FormatRefused, StoreBroken, StoreFault, StoreFull
from synnefo_light.store.formats import Format
from synnefo_light.store.rados import RadosBackend, make_rados
from tests.real.store.conftest import UUID_OF_STORE

POOL = POOLS[2]
FORMAT = Format(uuid=UUID_OF_STORE, grace_s=3600)
KEY = hashlib.sha256(b"key").hexdigest()
QUICK_S = 2


class Died(BaseException):
    """What a test stops an operation with; no `except Exception` catches it."""


@pytest.fixture
def namespace() -> str:
    return f"store-{uuid4()}"


@pytest.fixture
def backend(cluster: Cluster, namespace: str) -> RadosBackend:
    return make_rados(cluster, FORMAT, pool=POOL, namespace=namespace)


def objects(ceph: Ceph, namespace: str) -> set[str]:
    return set(ceph.run(["rados", "--pool", POOL, "--namespace", namespace, "ls"]).text.split())


def test_a_block_is_an_object_with_its_bytes_and_nothing_else(
    ceph: Ceph, backend: RadosBackend, namespace: str
) -> None:
    backend.create(Kind.BLOCK, KEY, b"content")
    seen = ceph.run(["rados", "--pool", POOL, "--namespace", namespace, "get", f"blocks/{KEY}", "-"]).stdout
    assert seen == b"content"
    assert f"index/blocks/{KEY[:2]}" in objects(ceph, namespace)


def test_a_store_is_made_once_and_not_beside_what_is_somebody_elses(
    ceph: Ceph, cluster: Cluster, backend: RadosBackend, namespace: str
) -> None:
    with pytest.raises(FormatRefused, match="is a store already"):
        make_rados(cluster, FORMAT, pool=POOL, namespace=namespace)
    other = f"{namespace}-other"
    ceph.run(["rados", "--pool", POOL, "--namespace", other, "put", "letter", "-"], stdin=b"mine")
    with pytest.raises(FormatRefused, match="object letter is not a store's"):
        make_rados(cluster, FORMAT, pool=POOL, namespace=other)


def test_who_dies_between_index_and_object_leaves_nothing_that_is_seen(
    cluster: Cluster, backend: RadosBackend, namespace: str
) -> None:
    def die(step: str) -> None:
        if step.startswith("create.1"):
            raise Died(step)

    dying = RadosBackend(cluster, pool=POOL, namespace=namespace, trace=die)
    with pytest.raises(Died):
        dying.create(Kind.BLOCK, KEY, b"content")
    with pytest.raises(Absent):
        backend.stat(Kind.BLOCK, KEY)
    assert list(backend.keys(Kind.BLOCK)) == []
    assert backend.sweep_leftovers(untouched_since=Instant(0)) == 0
    assert backend.sweep_leftovers(untouched_since=Instant(backend.now() + 1)) == 1
    backend.create(Kind.BLOCK, KEY, b"content")
    assert backend.sweep_leftovers(untouched_since=Instant(backend.now() + 1)) == 0
    assert list(backend.keys(Kind.BLOCK)) == [KEY]


def test_who_dies_after_removing_leaves_an_entry_that_the_next_creator_takes_over(
    cluster: Cluster, backend: RadosBackend, namespace: str
) -> None:
    def die(step: str) -> None:
        if step.startswith("retire.1"):
            raise Died(step)

    backend.create(Kind.BLOCK, KEY, b"content")
    dying = RadosBackend(cluster, pool=POOL, namespace=namespace, trace=die)
    with pytest.raises(Died):
        dying.retire(Kind.BLOCK, KEY, untouched_since=Instant(backend.now() + 1))
    assert list(backend.keys(Kind.BLOCK)) == []
    backend.create(Kind.BLOCK, KEY, b"content")
    assert list(backend.keys(Kind.BLOCK)) == [KEY]
    assert list(backend.strays()) == []


def test_what_a_writer_was_told_to_be_there_stays_whatever_the_collector_does(
    cluster: Cluster, backend: RadosBackend, namespace: str
) -> None:
    """A collector that takes what is older than 20 ms, beside a writer that looks right after each creation."""
    collecting = RadosBackend(cluster, pool=POOL, namespace=namespace)
    over, retired = threading.Event(), 0

    def collect() -> None:
        nonlocal retired
        while not over.is_set():
            retired += collecting.retire(Kind.BLOCK, KEY, untouched_since=Instant(collecting.now() - 0.02))

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        for turn in range(150):
            backend.create(Kind.BLOCK, KEY, b"content")
            assert backend.read(Kind.BLOCK, KEY) == b"content"
            assert next(iter(backend._objects.entries(f"index/blocks/{KEY[:2]}"))) != []
            time.sleep(0.03 if turn % 2 else 0.01)
    finally:
        over.set()
        thread.join()
    assert retired > 10


def test_an_object_that_the_index_lacks_is_told(ceph: Ceph, backend: RadosBackend, namespace: str) -> None:
    backend.create(Kind.BLOCK, KEY, b"content")
    index = ["rados", "--pool", POOL, "--namespace", namespace, "rmomapkey", f"index/blocks/{KEY[:2]}", KEY]
    ceph.run(index)
    assert [stray.why for stray in backend.strays()] == ["is not in the index, so the collector does not see it"]


@contextmanager
def frozen(ceph: Ceph, name: str) -> Iterator[None]:
    """A daemon that does not answer."""
    pid = ceph.pids()[name]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def quick(ceph: Ceph) -> Cluster:
    return Cluster(Access(conf=ceph.client_conf, user=CLIENT, connect_timeout_s=QUICK_S, request_timeout_s=QUICK_S))


def test_an_osd_that_does_not_answer_breaks_writing_and_only_delays_reading(ceph: Ceph, namespace: str) -> None:
    with quick(ceph) as cluster:
        backend = make_rados(cluster, FORMAT, pool=POOL, namespace=namespace)
        backend.create(Kind.BLOCK, KEY, b"content")
        with frozen(ceph, "osd.0"):
            began = time.monotonic()
            with pytest.raises(StoreFault, match="did not answer in time"):
                backend.read(Kind.BLOCK, KEY)
            with pytest.raises(StoreBroken, match="did not answer in time"):
                backend.replace(Kind.NAME, "web", b"1", expected=None)
            assert time.monotonic() - began < 4 * QUICK_S
        assert backend.read(Kind.BLOCK, KEY) == b"content"
        with pytest.raises(StoreBroken, match="did not answer in time"):
            backend.replace(Kind.NAME, "other", b"1", expected=None)
    with quick(ceph) as cluster:
        again = RadosBackend(cluster, pool=POOL, namespace=namespace)
        again.replace(Kind.NAME, "other", b"1", expected=None)


def test_monitors_that_do_not_answer_are_told_within_the_limit(ceph: Ceph) -> None:
    with frozen(ceph, "mon.a"), quick(ceph) as cluster:
        began = time.monotonic()
        with pytest.raises(CephFault, match="asked to connect, Ceph did not answer in time"):
            cluster.connect()
        assert time.monotonic() - began < 3 * QUICK_S


def test_a_pool_that_is_not_there_and_a_user_without_a_key_are_named(ceph: Ceph) -> None:
    with quick(ceph) as cluster, pytest.raises(CephFault, match="the pool 'none' does not exist"):
        cluster.open_pool("none")
    with (
        Cluster(Access(conf=ceph.client_conf, user="nobody", connect_timeout_s=QUICK_S)) as cluster,
        pytest.raises(CephFault, match="no keyring"),
    ):
        cluster.connect()


def test_a_client_on_the_blocklist_is_told_so_and_writes_no_more(ceph: Ceph, namespace: str) -> None:
    with quick(ceph) as cluster:
        backend = make_rados(cluster, FORMAT, pool=POOL, namespace=namespace)
        ceph.run(["ceph", "osd", "blocklist", "add", cluster.connect().get_addrs()])
        with pytest.raises(StoreBroken, match="another node took over"):
            backend.create(Kind.BLOCK, KEY, b"content")
    assert not [name for name in objects(ceph, namespace) if name.startswith("blocks/")]


def test_a_full_cluster_refuses_at_once_and_takes_again_when_there_is_space(ceph: Ceph, backend: RadosBackend) -> None:
    backend.create(Kind.BLOCK, KEY, b"content")

    def ratios(nearfull: str, backfill: str, full: str) -> None:
        for name, value in (("nearfull", nearfull), ("backfillfull", backfill), ("full", full)):
            ceph.run(["ceph", "osd", f"set-{name}-ratio", value])

    other = hashlib.sha256(b"other").hexdigest()
    ratios("0.0000001", "0.0000002", "0.0000003")
    try:
        deadline = time.monotonic() + 30
        with pytest.raises(StoreFull, match="is full"):
            while time.monotonic() < deadline:
                backend.create(Kind.BLOCK, hashlib.sha256(os.urandom(8)).hexdigest(), b"content")
                time.sleep(0.1)
        assert backend.read(Kind.BLOCK, KEY) == b"content"
    finally:
        ratios("0.85", "0.90", "0.95")
    deadline = time.monotonic() + 30
    while True:
        try:
            backend.create(Kind.BLOCK, other, b"content")
            break
        except StoreFull:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert backend.read(Kind.BLOCK, other) == b"content"
