"""A cut of several disks, killed at each of its steps: all of its names are there afterwards, or none."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from snf_extstorage.catalog import Catalog, Cut

from synnefo_light.errors import UserError
from synnefo_light.store import cuts, fsck, names
from synnefo_light.store.errors import Absent, Conflict
from synnefo_light.units import MIB, Bytes
from tests.real.snf_extstorage.places import own_names, release
from tests.real.snf_extstorage.storages import OnDirectory, OnRados, Storage, catalog_of, run_and_die

DISKS = own_names(3)
NAMES = ["golden", "golden-disk1", "golden-disk2"]
CUT = [Cut(volume=volume, name=name) for volume, name in zip(DISKS, NAMES, strict=True)]
SIZE = Bytes(MIB)


def made(storage: Storage) -> None:
    for number, name in enumerate(DISKS):
        storage.volumes().create(name, uuid=None, size=SIZE)
        storage.write(name, 0, bytes([65 + number]) * 4096)


@pytest.fixture
def place(xfs: Path, tmp_path: Path) -> Iterator[OnDirectory]:
    root = xfs / tmp_path.name
    storage = OnDirectory(root)
    made(storage)
    yield storage
    release(root)
    storage.close()


def cut(catalog: Catalog) -> None:
    catalog.snapshot(CUT)


def listed(storage: Storage) -> list[str]:
    return sorted(named.name for named in catalog_of(storage).listing())


def is_whole(storage: Storage) -> None:
    catalog = catalog_of(storage)
    assert listed(storage) == NAMES
    assert not any(named.entry.cut for named in names.readable(catalog.store))
    for number, name in enumerate(NAMES):
        entry = names.load(catalog.store, name).entry
        assert entry.snapshot is not None
        assert storage.read("snapshots", entry.snapshot.reference)[:4096] == bytes([65 + number]) * 4096
    assert fsck.check(catalog.store).problems == []


def test_killed_at_every_step_all_names_are_there_or_none(place: OnDirectory) -> None:
    outcomes, died = [], 0
    while run_and_die(place, cut, died):
        bare = sorted(named.name for named in names.readable(place.store()))
        found = listed(place)
        assert found in ([], NAMES), f"step {died}"
        outcomes.append((len(bare), len(found)))
        if not found:
            cut(catalog_of(place))
        is_whole(place)
        for name in NAMES:
            catalog_of(place).remove(name)
        died += 1
    is_whole(place)
    # The control: there were crashes that left some of the names.
    assert {(0, 0), (1, 3), (2, 3), (3, 3)} == set(outcomes)


@pytest.mark.parametrize("step", ["publish.1 pinned", "cut.1 certain", "cut.2 published"])
def test_on_ceph_too(request: pytest.FixtureRequest, step: str) -> None:
    storage = OnRados(request.getfixturevalue("ceph"))
    made(storage)
    assert run_and_die(storage, cut, step)
    assert sorted(n.name for n in names.readable(storage.store())) == NAMES[: int(step[4]) if step[0] == "c" else 0]
    assert listed(storage) == ([] if step.startswith("publish") else NAMES)
    if not listed(storage):
        cut(catalog_of(storage))
    is_whole(storage)
    storage.close()


@pytest.mark.parametrize("name", ["golden-disk1", "golden-disk2"])
def test_who_asks_for_one_of_the_names_finds_it(place: OnDirectory, name: str) -> None:
    assert run_and_die(place, cut, "cut.1 certain")
    with pytest.raises(Absent):  # the control
        names.load(place.store(), name)
    assert cuts.load(place.store(), name).entry.kind == "snapshot"
    is_whole(place)


def test_none_of_the_names_can_be_had_by_others_or_comes_back(place: OnDirectory) -> None:
    assert run_and_die(place, cut, "cut.1 certain")
    with pytest.raises(UserError, match="there is a snapshot golden-disk1 already"):
        catalog_of(place).require_free("golden-disk1")
    catalog_of(place).remove("golden")
    assert listed(place) == NAMES[1:]


def test_fsck_tells_of_it_and_mends_it(place: OnDirectory) -> None:
    assert run_and_die(place, cut, "cut.2 published")
    report = fsck.check(place.store())
    assert [str(p) for p in report.problems] == ["name golden is of a cut whose names are not all there"]
    assert report.exit_code == 2
    report = fsck.check(place.store(), mend=True)
    assert [str(p) for p in report.problems] == ["name golden is of a cut whose names are all there now"]
    assert report.exit_code == 1
    is_whole(place)


def test_a_name_that_somebody_else_took_takes_the_others_back(place: OnDirectory) -> None:
    """Between the look at the beginning and the names; the control is every other test here."""
    taken = io.StringIO()

    def other(step: str) -> None:
        if step == "cut.1 certain":
            entry = names.load(place.store(), "golden").entry
            mine = names.Entry(uuid=str(uuid4()), kind="snapshot", size=1, created_ms=0, snapshot=entry.snapshot)
            names.publish(place.store(), "golden-disk2", mine, under=None)
            taken.write(mine.uuid)

    with pytest.raises(Conflict, match="the name golden-disk2 is taken, so nothing was kept"):
        catalog_of(place, other).snapshot(CUT)
    assert listed(place) == ["golden-disk2"]
    assert names.load(place.store(), "golden-disk2").entry.uuid == taken.getvalue()


def test_killed_while_it_is_taken_back_it_is_taken_back(place: OnDirectory) -> None:
    def taken_meanwhile(catalog: Catalog) -> None:
        held = names.EngineSnapshot(engine="directory", reference="x")
        entry = names.Entry(uuid=str(uuid4()), kind="snapshot", size=1, created_ms=0, snapshot=held)
        names.publish(place.store(), "golden-disk2", entry, under=None)

    assert run_and_die(place, cut, "cut.2 published")
    taken_meanwhile(catalog_of(place))
    assert run_and_die(place, lambda c: list(c.listing()), "cut.4 taken back")
    assert [n.name for n in names.readable(place.store()) if n.entry.cut] == ["golden"]
    assert listed(place) == ["golden-disk2"]
