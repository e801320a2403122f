"""Any order of operations, with kill -9 at any step, against a plain model: names and bytes."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from snf_extstorage.catalog import Catalog, Cut
from snf_extstorage.origins import find_origin
from snf_extstorage.volume import FromVolume
from snf_lab.ceph import Ceph

from synnefo_light.errors import Error
from synnefo_light.ganeti import VolumeName
from synnefo_light.store import fsck, names
from synnefo_light.store.maps import open_map
from synnefo_light.units import MIB, Bytes
from tests.real.snf_extstorage.places import mounted_xfs
from tests.real.snf_extstorage.storages import (
    OnDirectory,
    OnRados,
    Storage,
    catalog_of,
    collect,
    run_and_die,
    uncollected,
)

UNIT = 4096
#: Which of those that there are.
ANY = st.integers(0, 11)
MOST = 4
SIZES = st.sampled_from([MIB, 5 * MIB, 9 * MIB])
PLACES = st.integers(0, MIB // UNIT - 1)
#: The step to die at; most operations have fewer than twelve, and then nobody dies.
DEATHS = st.one_of(st.none(), st.integers(0, 11))
#: What a crash may leave on Ceph until the same is asked again, or swept.
LEFT = ("is half made or half removed", "was to be removed by a process that died")


class Model(RuleBasedStateMachine):
    """`volumes` and `images`: what each name should read as. One of the two of a crash: before, or after."""

    @staticmethod
    def place() -> Storage:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.storage = self.place()
        self.volumes: dict[VolumeName, bytearray] = {}
        self.images: dict[str, bytes] = {}

    def teardown(self) -> None:
        self.storage.close()

    def act(self, act: Callable[[Catalog], object], death: int | None) -> None:
        """Do it; or have a child do it that dies at a step, and do it again."""
        if death is not None:
            run_and_die(self.storage, act, death)
        with contextlib.suppress(Error):  # "there is one already": the child came that far
            act(catalog_of(self.storage))

    def free(self) -> VolumeName:
        """A name that no volume has; one that a volume had may come again."""
        return next(n for n in (VolumeName(f"v{k}.ext.disk0") for k in range(MOST)) if n not in self.volumes)

    def one(self, number: int) -> VolumeName:
        return sorted(self.volumes)[number % len(self.volumes)]

    def image(self, number: int) -> str:
        return sorted(self.images)[number % len(self.images)]

    @initialize(size=SIZES)
    def begin(self, size: int) -> None:
        self.create(size, None)
        self.write(0, 3, 7, 20)
        self.snapshot(0, None)

    @precondition(lambda self: len(self.volumes) < MOST)
    @rule(size=SIZES, death=DEATHS)
    def create(self, size: int, death: int | None) -> None:
        name = self.free()
        self.act(lambda c: c.volumes.create(name, uuid=None, size=Bytes(size)), death)
        self.volumes[name] = bytearray(size)

    @precondition(lambda self: self.volumes)
    @rule(number=ANY, at=PLACES, byte=st.integers(0, 255), units=st.integers(1, 64))
    def write(self, number: int, at: int, byte: int, units: int) -> None:
        name = self.one(number)
        data = bytes([byte]) * min(units * UNIT, len(self.volumes[name]) - at * UNIT)
        self.storage.write(name, at * UNIT, data)
        self.volumes[name][at * UNIT : at * UNIT + len(data)] = data

    @precondition(lambda self: 0 < len(self.volumes) < MOST)
    @rule(number=ANY, death=DEATHS)
    def clone(self, number: int, death: int | None) -> None:
        source, name = self.one(number), self.free()
        size = Bytes(len(self.volumes[source]))
        self.act(lambda c: c.volumes.clone(FromVolume(volume=source), name, uuid=None, size=size), death)
        self.volumes[name] = bytearray(self.volumes[source])

    @precondition(lambda self: self.volumes and len(self.images) < MOST)
    @rule(number=ANY, death=DEATHS)
    def snapshot(self, number: int, death: int | None) -> None:
        name = self.one(number)
        image = next(i for i in (f"image{k}" for k in range(MOST)) if i not in self.images)
        self.act(lambda c: c.snapshot([Cut(volume=name, name=image)]), death)
        self.images[image] = bytes(self.volumes[name])

    @precondition(lambda self: self.images)
    @rule(number=ANY, death=DEATHS)
    def commit(self, number: int, death: int | None) -> None:
        image = self.image(number)
        self.act(lambda c: c.commit(image), death)

    @precondition(lambda self: self.images and len(self.volumes) < MOST)
    @rule(number=ANY, extra=st.sampled_from([0, MIB]), death=DEATHS)
    def clone_image(self, number: int, extra: int, death: int | None) -> None:
        image, name = self.image(number), self.free()
        size = len(self.images[image]) + extra

        def make(catalog: Catalog) -> None:
            origin = find_origin(catalog, image, engine=self.storage.engine)
            catalog.volumes.clone(origin, name, uuid=None, size=Bytes(size))

        self.act(make, death)
        self.volumes[name] = bytearray(self.images[image].ljust(size, b"\0"))

    @precondition(lambda self: self.volumes)
    @rule(number=ANY, death=DEATHS)
    def grow(self, number: int, death: int | None) -> None:
        name = self.one(number)
        if len(self.volumes[name]) < 12 * MIB:
            size = Bytes(len(self.volumes[name]) + MIB)
            self.act(lambda c: c.volumes.grow(name, size), death)
            self.volumes[name] += bytes(MIB)

    @precondition(lambda self: len(self.volumes) > 1)
    @rule(number=ANY, death=DEATHS)
    def remove(self, number: int, death: int | None) -> None:
        name = self.one(number)
        self.act(lambda c: c.volumes.remove(name), death)
        del self.volumes[name]

    @precondition(lambda self: self.images)
    @rule(number=ANY, death=DEATHS)
    def forget(self, number: int, death: int | None) -> None:
        image = self.image(number)
        self.act(lambda c: c.remove(image), death)
        del self.images[image]

    @rule(death=DEATHS)
    def collect(self, death: int | None) -> None:
        self.act(collect, death)
        assert uncollected(catalog_of(self.storage)) == []

    @precondition(lambda self: self.volumes)
    @rule(number=ANY)
    def take_over(self, number: int) -> None:
        name = self.one(number)
        self.storage.volumes(node="node2").open(name, exclusive=True)
        self.storage.volumes().open(name, exclusive=True)
        self.storage.volumes().close(name)

    @invariant()
    def everything_reads_as_it_should(self) -> None:
        catalog = catalog_of(self.storage)
        assert sorted(catalog.volumes.volumes()) == sorted(self.volumes)
        assert sorted(n.name for n in catalog.listing()) == sorted(self.images)
        for name, content in self.volumes.items():
            assert self.storage.read("volumes", name) == content
            assert catalog.volumes.facts(name).size == len(content)
        for image, whole in self.images.items():
            entry = names.load(catalog.store, image).entry
            assert entry.size == len(whole)
            if entry.map is not None:
                opened = open_map(catalog.store, entry.map)
                assert b"".join(opened.read(n) for n in range(opened.block_count)) == whole
            if entry.snapshot is not None:
                assert self.storage.read("snapshots", entry.snapshot.reference) == whole
        assert [line for line in catalog.problems() if not any(words in line for words in LEFT)] == []
        assert fsck.check(catalog.store).exit_code in (0, 2)


def run_model(place: Callable[[], Storage], *, runs: int) -> int:
    """How many places went through it."""
    begun = 0

    class Here(Model):
        @staticmethod
        def place() -> Storage:
            nonlocal begun
            begun += 1
            return place()

    count = int(os.environ.get("SNF_MODEL_RUNS", str(runs)))
    limits = settings(
        max_examples=count, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Here, settings=limits)  # type: ignore[no-untyped-call]
    return begun


def test_a_directory_is_its_model_whoever_dies(xfs: Path) -> None:
    """In memory, where an fsync costs nothing: killing a process loses no page that it wrote."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, mounted_xfs(Path(folder), size=640 * MIB) as mount:
        assert run_model(lambda: OnDirectory(Path(tempfile.mkdtemp(dir=mount))), runs=12) >= 1


def test_a_pool_is_its_model_whoever_dies(ceph: Ceph) -> None:
    assert run_model(lambda: OnRados(ceph), runs=2) >= 1
