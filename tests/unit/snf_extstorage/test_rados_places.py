"""Where disks of the provider `rados` are written down, and what is looked at in other pools: in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from snf_extstorage.rados.elsewhere import Elsewhere
from snf_extstorage.rados.engine import RadosVolumes
from snf_extstorage.rados.places import Places
from snf_extstorage.rados.provider import Rados, parse_disk
from snf_extstorage.rados.record import DamagedRecord, PlaceRecord
from snf_extstorage.settings import CephSettings, Settings

from synnefo_light.ceph import CephFault
from synnefo_light.errors import Error, UserError
from synnefo_light.ganeti import CreateEnv, VolumeName
from synnefo_light.units import MiB
from tests.unit.snf_extstorage.pool_in_memory import EntriesInMemory

V = VolumeName("a.ext.disk0")
ENV = CreateEnv(volume=V, uuid="u", cname=None, access="userspace", params={}, size=MiB(16))
SETTINGS = Settings()
PLACE = parse_disk({}, SETTINGS).place


class Volumes:
    """As `RadosVolumes` of one pool and user: `made` has what was made, `create` does what it is told first."""

    def __init__(self, *, user: str = "", fault: Error | None = None) -> None:
        self.user = user
        self.fault = fault
        self.made: set[str] = set()
        self.meanwhile: Callable[[], object] = lambda: None

    def has(self, name: str) -> bool:
        if isinstance(self.fault, CephFault):
            raise self.fault
        return name in self.made

    def require_place(self, name: str) -> None:
        self.has(name)

    def create(self, name: str, **_: object) -> None:
        self.meanwhile()
        if self.fault is not None:
            raise self.fault
        self.made.add(name)

    def sweep(self) -> list[str]:
        if self.fault is not None:
            raise self.fault
        return [f"what client.{self.user} swept"]

    def check(self) -> list[str]:
        return self.sweep()


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Places:
    entries = EntriesInMemory()
    monkeypatch.setattr("snf_extstorage.rados.places.Objects", lambda *_, **__: entries)
    monkeypatch.setattr("snf_extstorage.rados.places.time.time", lambda: 1.8e9)
    return Places(SETTINGS)


def refused(places: Places, volumes: Volumes, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that creates the disk there and fails."""
    volumes.fault = UserError("it cannot be made")
    monkeypatch.setattr(places, "volumes_at", lambda _: cast("RadosVolumes", volumes))
    with pytest.raises(UserError, match="it cannot be made"):
        Rados(SETTINGS, {}, places).create(ENV)


def test_who_fails_alone_leaves_no_place(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(places, Volumes(), monkeypatch)
    assert places.get(V) is None


def test_who_fails_leaves_the_place_of_who_began_before_and_has_made_nothing_yet(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert places.put(V, None, PLACE) is not None
    refused(places, Volumes(), monkeypatch)
    assert places.get(V) is not None


def test_who_fails_leaves_the_place_of_who_began_meanwhile_even_in_the_same_second(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes, begun = Volumes(), []
    volumes.meanwhile = lambda: begun.append(places.put(V, None, PLACE))
    refused(places, volumes, monkeypatch)
    assert begun == [None]
    assert places.get(V) is not None


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *found: Volumes) -> Elsewhere:
    """A node with Ceph where each of these users has a disk in one pool."""
    (tmp_path / "ceph.conf").touch()
    by_user = {volumes.user: volumes for volumes in found}
    listed = [(f"v-{user}", dataclasses.replace(PLACE, user=user, since_s=1)) for user in by_user]

    class Listed:
        def __init__(self, _: Settings) -> None:
            pass

        def items(self) -> list[tuple[str, PlaceRecord]]:
            return listed

        def damaged(self) -> list[tuple[str, DamagedRecord]]:
            return []

        def volumes_at(self, place: PlaceRecord) -> Volumes:
            return by_user[place.user]

        def forget(self, name: str, place: PlaceRecord) -> bool:
            return True

    monkeypatch.setattr("snf_extstorage.rados.elsewhere.Places", Listed)
    return Elsewhere(Settings(ceph=CephSettings(conf=tmp_path / "ceph.conf")))


def test_a_pool_whose_first_disk_s_client_is_gone_is_looked_at_as_the_next_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone, alive = Volumes(user="gone", fault=CephFault("no keyring")), Volumes(user="alive")
    both = elsewhere(monkeypatch, tmp_path, gone, alive)
    assert both.volumes() == [cast("RadosVolumes", alive)]
    assert both.sweep()[0] == "what client.alive swept in pool volumes"
    assert list(both.check()) == ["pool volumes: what client.alive swept"]


def test_a_pool_that_no_client_can_read_is_told_and_its_places_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost = [Volumes(user=user, fault=CephFault(f"no keyring of {user}")) for user in ("a", "b")]
    found = elsewhere(monkeypatch, tmp_path, *lost)
    assert found.sweep() == []
    assert "pool volumes, which disks of the provider rados are in, could not be swept: no keyring of b" in caplog.text
    assert "the place of disk v-a is kept, for whether the disk is in pool volumes could not be told: no" in caplog.text
    (told,) = found.check()
    assert told.endswith("could not be checked: no keyring of b")


def test_a_damaged_record_is_told_as_one_and_not_as_a_pool_that_is_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = DamagedRecord("the record snf.snapshots/s is damaged")
    elsewhere(monkeypatch, tmp_path, Volumes(user="a", fault=damaged)).sweep()
    assert "could not be swept: the record snf.snapshots/s is damaged" in caplog.text
    assert "cannot be looked at" not in caplog.text
