"""A cut of several disks, killed at each of its steps: all of its names are there afterwards, or none."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from snf_extstorage.catalog import Catalog, Cut
from snf_extstorage.volume import FromBase

from synnefo_light.errors import UserError
from synnefo_light.store import cuts, fsck, names
from synnefo_light.store.backend import Kind, Version
from synnefo_light.store.errors import Absent, Conflict, StoreFull
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


def full_at(place: OnDirectory, name: str) -> Catalog:
    """There is room for other records, but not for this one."""
    catalog = catalog_of(place)
    replace = catalog.store.backend.replace

    def replaced(kind: Kind, key: str, data: bytes, *, expected: Version | None) -> Version:
        if key == name:
            raise StoreFull("the disk is full")
        return replace(kind, key, data, expected=expected)

    catalog.store.backend.replace = replaced  # type: ignore[method-assign]
    return catalog


@pytest.mark.parametrize("name", ["golden", "golden-disk1"])
def test_no_name_is_removed_while_the_others_of_its_cut_cannot_be_published(place: OnDirectory, name: str) -> None:
    assert run_and_die(place, cut, "cut.1 certain")
    with pytest.raises(StoreFull):
        full_at(place, "golden-disk2").remove(name)
    is_whole(place)
    catalog_of(place).remove(name)
    assert listed(place) == sorted(set(NAMES) - {name})


def test_what_is_committed_is_not_taken_back_by_who_was_quicker_with_another_of_its_names(place: OnDirectory) -> None:
    assert run_and_die(place, cut, "cut.1 certain")
    with pytest.raises(StoreFull):  # the control: the others come first
        full_at(place, "golden-disk2").commit("golden")
    assert names.load(place.store(), "golden").entry.map is None
    map_id = catalog_of(place).commit("golden")
    held = names.EngineSnapshot(engine="directory", reference="x")
    late = names.Entry(uuid=str(uuid4()), kind="snapshot", size=1, created_ms=0, snapshot=held)
    with pytest.raises(Conflict, match="the name golden-disk1 is taken"):
        names.publish(place.store(), "golden-disk1", late, under=None)
    assert listed(place) == NAMES
    assert names.load(place.store(), "golden").entry.map == map_id


def test_disks_whose_properties_do_not_fit_into_one_record_are_not_cut(place: OnDirectory, tmp_path: Path) -> None:
    catalog, image, clones = catalog_of(place), tmp_path / "image", own_names(3)
    image.write_bytes(b"image".ljust(MIB, b"\0"))
    properties = {f"P{number}": "v" * 100 for number in range(200)}
    with open(image, "rb") as file:
        named = catalog.register("image", file.fileno(), SIZE, origin="", properties=properties)
    assert named.entry.map is not None
    for name in clones:
        catalog.volumes.clone(FromBase(map=named.entry.map), name, uuid=None, size=SIZE)
    wanted = [Cut(volume=volume, name=name) for volume, name in zip(clones, NAMES, strict=True)]
    with pytest.raises(UserError, match=r"the record of golden would have .* make a snapshot of fewer disks"):
        catalog.snapshot(wanted)
    assert list(catalog.volumes.snapshots()) == []
    made = catalog.snapshot(wanted[:2])
    assert [one.entry.properties for one in made] == [properties, properties]
    assert {one.entry.parent for one in made} == {named.entry.map}


def test_fsck_tells_of_it_and_mends_it(place: OnDirectory) -> None:
    assert run_and_die(place, cut, "cut.2 published")
    report = fsck.check(place.store())
    assert [str(p) for p in report.problems] == ["name golden begins a cut that was not finished"]
    assert report.exit_code == 2
    report = fsck.check(place.store(), mend=True)
    assert [str(p) for p in report.problems] == ["name golden begins a cut that was finished now"]
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
