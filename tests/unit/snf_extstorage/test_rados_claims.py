"""Who commits a snapshot, among nodes that share a pool: in memory, by a clock that stands until it is moved."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from typing import cast

import pytest
from snf_extstorage.rados.claims import claimed, drop_old
from snf_extstorage.rados.record import ClaimRecord, DamagedRecord, Table
from snf_extstorage.volume import InUse, SnapshotName

from synnefo_light.ceph import CephFault
from synnefo_light.errors import EnvironmentFault
from synnefo_light.store.errors import StoreBroken, StoreFull
from synnefo_light.store.rados_objects import Objects
from tests.unit.snf_extstorage.pool_in_memory import EntriesInMemory

SNAP = SnapshotName("golden-1")
LEASE_S = 60


class Site:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entries = EntriesInMemory()
        self.table = Table(cast("Objects", self.entries), "snf.claims", ClaimRecord)
        self.now = 1000.0
        monkeypatch.setattr("snf_extstorage.rados.claims.time.time", lambda: self.now)

    def claim(self, node: str, *, wait_s: float = 0, beat_s: float = 3600) -> AbstractContextManager[None]:
        return claimed(self.table, SNAP, node=node, wait_s=wait_s, lease_s=LEASE_S, beat_s=beat_s)

    def holder(self) -> str:
        found = self.table.get(SNAP)
        return found.node if found else ""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(monkeypatch)


def test_the_second_is_told_who_is_at_it_and_may_when_the_first_has_ended(site: Site) -> None:
    with site.claim("node1"):
        with pytest.raises(InUse, match=r"golden-1 is to be committed, but process \d+ on node1 is at it already"):
            site.claim("node2").__enter__()
        assert site.holder() == "node1"
    assert site.entries.lines == {}
    with site.claim("node2"):
        assert site.holder() == "node2"


def test_who_waits_gets_it_as_soon_as_it_is_free(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first = site.claim("node1")
    first.__enter__()
    monkeypatch.setattr("snf_extstorage.rados.claims.time.sleep", lambda _: first.__exit__(None, None, None))
    with site.claim("node2", wait_s=60):
        assert site.holder() == "node2"


def test_what_fails_leaves_no_claim(site: Site) -> None:
    with pytest.raises(EnvironmentFault, match="the disk is full"), site.claim("node1"):
        raise EnvironmentFault("the disk is full")
    assert site.entries.lines == {}


def test_a_claim_that_is_not_renewed_is_taken_and_who_had_it_takes_nothing_back(site: Site) -> None:
    with site.claim("node1"):
        site.now += LEASE_S
        with pytest.raises(InUse):
            site.claim("node2").__enter__()
        site.now += 1
        second = site.claim("node2")
        second.__enter__()
    assert site.holder() == "node2"
    second.__exit__(None, None, None)
    assert site.entries.lines == {}


def test_who_works_renews_his_claim(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    renewed = threading.Event()
    swap = site.entries.swap_entry

    def swap_entry(name: str, key: str, new: str, *, value: str) -> bool:
        done = swap(name, key, new, value=value)
        if value and f'"beat_s":{int(site.now)}' in new:
            renewed.set()
        return done

    monkeypatch.setattr(site.entries, "swap_entry", swap_entry)
    with site.claim("node1", beat_s=0.01):
        site.now += 10 * LEASE_S
        renewed.clear()
        assert renewed.wait(10)
        with pytest.raises(InUse):
            site.claim("node2").__enter__()


def test_a_claim_that_cannot_be_renewed_stops_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    def swap_entry(*_: object, **__: object) -> bool:
        asked.set()
        raise EnvironmentFault("Ceph did not answer")

    done = []
    with site.claim("node1", beat_s=0.05):
        monkeypatch.setattr(site.entries, "swap_entry", swap_entry)
        assert asked.wait(10)
        done.append("the work")
    assert done == ["the work"]


def test_a_claim_that_cannot_be_read_stops_nobody_and_is_told(site: Site) -> None:
    site.entries.lines["snf.claims", SNAP] = "1 damaged"
    with site.claim("node1"):
        assert site.entries.lines == {("snf.claims", SNAP): "1 damaged"}
    assert [isinstance(fault, DamagedRecord) for _, fault in site.table.damaged()] == [True]


def test_what_the_dead_claimed_is_forgotten_in_the_end(site: Site) -> None:
    dead = site.claim("node1")
    dead.__enter__()
    site.now += 3600
    drop_old(site.table, older_than_s=3600)
    assert site.holder() == "node1"
    site.now += 1
    drop_old(site.table, older_than_s=3600)
    assert site.entries.lines == {}
    dead.__exit__(None, None, None)
    assert site.entries.lines == {}


def test_what_the_dead_claimed_by_a_clock_that_was_ahead_stands_no_longer_than_other_claims(site: Site) -> None:
    def claim_and_die() -> AbstractContextManager[None]:
        site.now += 86400
        dead = site.claim("node1")
        dead.__enter__()
        site.now -= 86400
        return dead

    dead = [claim_and_die()]
    drop_old(site.table, older_than_s=86400)
    assert site.holder() == "node1"
    with site.claim("node2"):
        assert site.holder() == "node2"
    dead.append(claim_and_die())
    drop_old(site.table, older_than_s=3600)
    assert site.entries.lines == {}


@pytest.mark.parametrize("fault", [StoreFull("the pool is full"), StoreBroken("no answer"), CephFault("no answer")])
def test_a_claim_that_cannot_be_written_stops_nobody_and_is_told(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    def swap_entry(*_: object, **__: object) -> bool:
        raise fault

    monkeypatch.setattr(site.entries, "swap_entry", swap_entry)
    done = []
    with site.claim("node1"):
        done.append("the work")
    assert done == ["the work"]
    assert f"committed without a claim, and perhaps by others too: {fault}" in caplog.text
