"""kill -9 at steps of every operation on a real Ceph: nothing is half made or lost, and asking again ends as asked.

Every step of each with SNF_CRASH_STEPS=all; a few of each otherwise.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from snf_extstorage.catalog import Catalog, Cut
from snf_extstorage.origins import find_origin
from snf_extstorage.volume import Exists, FromSnapshot, FromVolume, NotFound, SnapshotName
from snf_lab.ceph import POOLS, Ceph

from synnefo_light.errors import UserError
from synnefo_light.ganeti import VolumeName
from synnefo_light.store import fsck, names
from synnefo_light.store.maps import open_map
from synnefo_light.units import MIB, Bytes
from tests.real.snf_extstorage.storages import OnRados, catalog_of, collect, run_and_die

V, W = VolumeName("a.ext.disk0"), VolumeName("b.ext.disk0")
SNAP = SnapshotName("frozen")
SIZE = Bytes(9 * MIB)
CONTENT: Final = bytes(range(256)) * 4096  # 1 MiB, at the beginning of V
#: Of each operation, killed at so many steps, spread over all.
SAMPLE: Final = 1
EVERY: Final = os.environ.get("SNF_CRASH_STEPS") == "all"

#: What a crash may leave until the same is asked again, or swept.
LEFT: Final = ("is half made or half removed", "was to be removed by a process that died")

Act = Callable[[Catalog], object]


@dataclass(frozen=True)
class Case:
    before: Act
    act: Act
    after: Callable[[OnRados], object]
    steps: int  # at least; an operation that lost its steps would pass otherwise


def read(storage: OnRados, name: str) -> bytes:
    """As the tool `rbd` exports it."""
    file = storage.ceph.folder / "exported"
    with contextlib.suppress(FileNotFoundError):
        file.unlink()
    place = f"{POOLS[0]}/{storage.namespace}/{name}"
    storage.ceph.run(["rbd", "export", "--no-progress", place, file], timeout_s=60)
    return file.read_bytes()


def nothing(_: object) -> None:
    pass


def made(catalog: Catalog) -> None:
    catalog.volumes.create(V, uuid=None, size=SIZE)


def frozen(catalog: Catalog) -> None:
    with contextlib.suppress(Exists):
        catalog.volumes.snapshot({V: SNAP})


def golden(catalog: Catalog) -> None:
    with contextlib.suppress(UserError):  # it was published before the crash
        catalog.snapshot([Cut(volume=V, name="golden")])


def both(catalog: Catalog) -> None:
    catalog.volumes.create(W, uuid="w", size=SIZE)


def cut(catalog: Catalog) -> None:
    wanted = [Cut(volume=V, name="golden"), Cut(volume=W, name="golden-disk1")]
    try:
        catalog.snapshot(wanted)
    except UserError as e:
        assert "there is a snapshot golden already; remove it first" in str(e)
        assert {n.name for n in catalog.listing()} == {"golden", "golden-disk1"}


def clone_golden(catalog: Catalog) -> None:
    origin = find_origin(catalog, "golden", engine="rados")
    catalog.volumes.clone(origin, W, uuid="w", size=Bytes(2 * SIZE))


def only_in_the_store(catalog: Catalog) -> None:
    """As an image that another store sent: there is no base of it."""
    golden(catalog)
    reference = names.load(catalog.store, "golden").entry.snapshot
    assert reference is not None
    catalog.commit("golden")
    names.forget_snapshot(catalog.store, "golden", uuid=names.load(catalog.store, "golden").entry.uuid)
    catalog.volumes.drop_snapshot(SnapshotName(reference.reference))


def register(catalog: Catalog) -> None:
    file = Path(os.environ["SNF_TEST_IMAGE"])
    fd = os.open(file, os.O_RDONLY)
    try:
        with contextlib.suppress(UserError):  # it was published before the crash
            catalog.register("golden", fd, SIZE, origin="test", properties={})
    finally:
        os.close(fd)


def forgotten(catalog: Catalog) -> None:
    only_in_the_store(catalog)
    clone_golden(catalog)
    catalog.remove("golden")


def frozen_and_removed(catalog: Catalog) -> None:
    frozen(catalog)
    catalog.volumes.clone(FromSnapshot(snapshot=SNAP), W, uuid="w", size=Bytes(2 * SIZE))
    catalog.volumes.remove(V)


def is_clone(storage: OnRados) -> None:
    assert storage.volumes().facts(W).size == 2 * SIZE
    assert read(storage, W) == CONTENT + bytes(2 * SIZE - len(CONTENT))


def is_image(storage: OnRados) -> None:
    """The name has a map, or a snapshot that a disk can begin as."""
    catalog = catalog_of(storage)
    entry = names.load(catalog.store, "golden").entry
    if entry.map is not None:
        found = open_map(catalog.store, entry.map)
        assert b"".join(found.read(n) for n in range(found.block_count)) == CONTENT + bytes(SIZE - len(CONTENT))
    if entry.snapshot is not None:
        assert storage.read("snapshots", entry.snapshot.reference) == CONTENT + bytes(SIZE - len(CONTENT))


def is_committed(storage: OnRados) -> None:
    assert names.load(storage.store(), "golden").entry.map is not None
    is_image(storage)


def are_images(storage: OnRados) -> None:
    is_image(storage)
    assert names.load(storage.store(), "golden-disk1").entry.size == SIZE


def is_grown(storage: OnRados) -> None:
    assert storage.volumes().facts(V).size == 2 * SIZE
    assert read(storage, V) == CONTENT + bytes(2 * SIZE - len(CONTENT))


def is_ours(storage: OnRados) -> None:
    assert storage.volumes().facts(V).holders == ("node1",)
    assert read(storage, V)[: len(CONTENT)] == CONTENT


def is_gone(storage: OnRados) -> None:
    assert V not in storage.volumes().volumes()
    assert V not in storage.volumes()._images.names()


def is_adopted(storage: OnRados) -> None:
    assert read(storage, W)[: len(CONTENT)] == CONTENT
    is_gone(storage)


def is_back(storage: OnRados) -> None:
    assert (list(storage.volumes().volumes()), storage.volumes().facts(V).uuid) == ([V], None)
    assert read(storage, V)[: len(CONTENT)] == CONTENT


def is_dropped(storage: OnRados) -> None:
    with pytest.raises(NotFound):
        storage.volumes().snapshot_facts(SNAP)


def is_gone_but_for_its_snapshot(storage: OnRados) -> None:
    is_gone(storage)
    is_image(storage)


CASES: Final[dict[str, Case]] = {
    "create": Case(nothing, lambda c: c.volumes.create(W, uuid="w", size=SIZE), nothing, 4),
    "clone a volume": Case(
        nothing, lambda c: c.volumes.clone(FromVolume(volume=V), W, uuid="w", size=Bytes(2 * SIZE)), is_clone, 8
    ),
    "clone a snapshot": Case(golden, clone_golden, is_clone, 5),
    "clone an image without a base": Case(only_in_the_store, clone_golden, is_clone, 16),
    "snapshot": Case(nothing, golden, is_image, 9),
    "cut": Case(both, cut, are_images, 14),
    "grow": Case(nothing, lambda c: c.volumes.grow(V, Bytes(2 * SIZE)), is_grown, 2),
    "open": Case(nothing, lambda c: c.volumes.open(V, exclusive=True), is_ours, 1),
    "remove": Case(nothing, lambda c: c.volumes.remove(V), is_gone, 3),
    "remove under a snapshot": Case(golden, lambda c: c.volumes.remove(V), is_gone_but_for_its_snapshot, 4),
    "drop the last snapshot": Case(frozen_and_removed, lambda c: c.volumes.drop_snapshot(SNAP), is_dropped, 3),
    "adopt": Case(nothing, lambda c: c.volumes.adopt(V, W, uuid="w", size=SIZE), is_adopted, 4),
    "give back": Case(lambda c: c.volumes.adopt(V, W, uuid="w", size=SIZE), lambda c: c.volumes.remove(W), is_back, 4),
    "register": Case(nothing, register, is_committed, 25),
    "commit": Case(golden, lambda c: c.commit("golden"), is_committed, 18),
    "collect": Case(forgotten, collect, is_clone, 10),
}


def steps_of(ceph: Ceph, case: Case) -> list[str]:
    storage = OnRados(ceph)
    told: list[str] = []
    prepare(storage, case)
    case.act(catalog_of(storage, told.append))
    case.after(storage)
    storage.close()
    return told


def prepare(storage: OnRados, case: Case) -> None:
    catalog = catalog_of(storage)
    made(catalog)
    storage.write(V, 0, CONTENT)
    case.before(catalog)


@pytest.mark.parametrize("name", CASES)
def test_killed_at_a_step(ceph: Ceph, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    image = tmp_path / "image"
    image.write_bytes(CONTENT + bytes(SIZE - len(CONTENT)))
    monkeypatch.setenv("SNF_TEST_IMAGE", str(image))
    steps = steps_of(ceph, case)
    assert len(steps) >= case.steps, steps
    chosen = range(len(steps)) if EVERY else sorted({len(steps) * (2 * n + 1) // (2 * SAMPLE) for n in range(SAMPLE)})
    for at in chosen:
        storage = OnRados(ceph)
        prepare(storage, case)
        assert run_and_die(storage, case.act, at), f"it did not come to step {at} of {steps}"
        where = f"killed at {steps[at]!r}, step {at}"
        catalog = catalog_of(storage)
        wrong = [line for line in catalog.problems() if not any(words in line for words in LEFT)]
        assert wrong == [], where
        assert fsck.check(catalog.store).exit_code in (0, 2), where
        case.act(catalog)
        case.after(storage)
        storage.sweep()
        collect(catalog)
        case.after(storage)
        assert list(catalog.problems()) == [], where
        assert set(storage.volumes()._images.names()) <= expected(storage), where
        storage.close()


def expected(storage: OnRados) -> set[str]:
    """Images that have a record, or that a snapshot of ours keeps."""
    kept = storage.volumes()._kept
    return {
        *(name for name, _ in kept.volumes.items()),
        *(f"base.{key}" for key, _ in kept.bases.items()),
        *(f"gone.{record.image}" for _, record in kept.snapshots.items()),
    }
