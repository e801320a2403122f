"""Random operations, with crashes in them, against a plain model: a dictionary of lists of block numbers.

`SNF_STORE_RUNS` sets how many runs there are on a directory, `SNF_STORE_RUNS_ON_CEPH` how many on a real Ceph; the
defaults are for every day, thousands are for a night.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from snf_lab.ceph import POOLS

from synnefo_light.ceph import Cluster
from synnefo_light.store import fsck, gc, maps, names, pins, stats
from synnefo_light.store.backend import Backend, Instant, Kind, Trace
from synnefo_light.store.commit import Commit
from synnefo_light.store.directory import Directory, make_directory
from synnefo_light.store.errors import Absent, Conflict
from synnefo_light.store.identity import BLOCK_SIZE, MapId, block_id, merkle
from synnefo_light.store.rados import RadosBackend, make_rados
from synnefo_light.store.rados_objects import Objects
from synnefo_light.store.store import Store, open_store
from tests.real.store import operations
from tests.real.store.contents import block, entry
from tests.real.store.operations import Unsynced

RUNS = int(os.environ.get("SNF_STORE_RUNS", "25"))
RUNS_ON_CEPH = int(os.environ.get("SNF_STORE_RUNS_ON_CEPH", "0"))
NAMES = st.sampled_from(["a", "b", "c", "d"])
NUMBERS = st.integers(0, 6)
#: A place in the first page or in the second.
PLACES = st.one_of(st.integers(0, 5), st.integers(4094, 4099))
CHANGES = st.dictionaries(PLACES, NUMBERS, max_size=6)
#: At which step of the operation the process dies; most do not.
DEATHS = st.one_of(st.none(), st.integers(1, 60))


class Died(BaseException):
    """What no handler of ours may catch: the process is gone."""


class Mortal(Unsynced):
    """After death no system call is made any more, so that no clean-up hides what a dead process leaves."""

    dead = False

    def __getattribute__(self, name: str) -> Any:
        if object.__getattribute__(self, "dead") and not name.startswith("_"):
            raise Died
        return object.__getattribute__(self, name)


class MortalObjects(Objects):
    """The same of requests to Ceph."""

    dead = False

    def __getattribute__(self, name: str) -> Any:
        if object.__getattribute__(self, "dead") and not name.startswith("_"):
            raise Died
        return object.__getattribute__(self, name)


class Place(Protocol):
    """An empty store."""

    def backend(self, trace: Trace) -> tuple[Backend, Mortal | MortalObjects]:
        """And what dies with the process that has it."""

    def remove(self) -> None: ...


class InDirectory:
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        make_directory(self.folder / "store", operations.FORM, files=Unsynced())

    def backend(self, trace: Trace) -> tuple[Backend, Mortal]:
        files = Mortal()
        return Directory(self.folder / "store", files=files, trace=trace), files

    def remove(self) -> None:
        shutil.rmtree(self.folder)


class OnRados:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.namespace = f"model-{uuid4()}"
        make_rados(cluster, operations.FORM, pool=POOLS[2], namespace=self.namespace)

    def backend(self, trace: Trace) -> tuple[Backend, MortalObjects]:
        backend = RadosBackend(self.cluster, pool=POOLS[2], namespace=self.namespace, trace=trace)
        backend._objects = objects = MortalObjects(self.cluster, pool=POOLS[2], namespace=self.namespace)
        return backend, objects

    def remove(self) -> None:
        """It goes with the session's cluster."""


class StoreModel(RuleBasedStateMachine):
    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.model: dict[str, tuple[int, dict[int, int]]] = {}
        self.kept: dict[str, tuple[MapId, dict[int, int]]] = {}

    def teardown(self) -> None:
        self.place.remove()

    def open(self, death: int | None = None) -> Store:
        steps = 0

        def trace(step: str) -> None:
            nonlocal steps
            steps += 1
            if steps == death:
                mortal.dead = True
                raise Died

        backend, mortal = self.place.backend(trace)
        return open_store(backend, trace=trace)

    def attempt(self, death: int | None, operation: Callable[[Store], object]) -> bool:
        """Whether it ended, by itself."""
        try:
            operation(self.open(death))
        except Died:
            return False
        return True

    def content(self, name: str) -> tuple[int, dict[int, int]] | None:
        """What the store has under a name, in the model's words."""
        try:
            named = names.load(self.open(), name)
        except Absent:
            return None
        assert named.entry.map is not None
        opened = maps.open_map(self.open(), named.entry.map)
        numbers = {block_id(block(number)): number for number in range(1, 7)}
        return opened.size, {index: numbers[found] for index, found in opened.blocks()}

    def settle(self, name: str, before: object, after: tuple[int, dict[int, int]] | None) -> None:
        """After a death: as it was or as it was to be, and the model goes on from there."""
        found = self.content(name)
        assert found in (before, after)
        if found is None:
            self.model.pop(name, None)
        else:
            self.model[name] = found

    @rule(name=NAMES, parent=st.one_of(st.none(), NAMES), changes=CHANGES, more=st.integers(0, 3), death=DEATHS)
    def commit(self, name: str, parent: str | None, changes: dict[int, int], more: int, death: int | None) -> None:
        parent = parent if parent in self.model else None
        size, numbers = self.model[parent] if parent else (0, {})
        size = max(size, (max(changes, default=-1) + 1 + more) * BLOCK_SIZE)
        wanted = {n: number for n, number in {**numbers, **changes}.items() if number}
        before = self.model.get(name)

        def operation(store: Store) -> None:
            over = names.load(store, name) if before else None
            with Commit(store, size=size, parent=parent, owner="model") as change:
                for index in sorted(changes):
                    change.put(index, block(changes[index]))
                names.publish(store, name, entry(change.finish(), size), under=change.held, over=over)

        if self.attempt(death, operation):
            self.model[name] = (size, wanted)
        else:
            self.settle(name, before, (size, wanted))

    @rule(name=NAMES, death=DEATHS)
    def remove(self, name: str, death: int | None) -> None:
        before = self.model.get(name)
        try:
            if self.attempt(death, lambda store: names.remove(store, name)):
                assert before is not None
                del self.model[name]
            else:
                self.settle(name, before, None)
        except Absent:
            assert before is None

    @rule(old=NAMES, new=NAMES, death=DEATHS)
    def copy(self, old: str, new: str, death: int | None) -> None:
        wanted, before = self.model.get(old), self.model.get(new)

        def operation(store: Store) -> None:
            with pins.hold(store, owner="model", names=[old]) as held:
                names.publish(store, new, names.load(store, old).entry, under=held)

        try:
            if self.attempt(death, operation):
                assert wanted is not None
                assert before is None
                self.model[new] = wanted
            else:
                self.settle(new, before, wanted)
        except Absent:
            assert wanted is None
        except Conflict:
            assert before is not None

    @rule(name=NAMES, key=st.sampled_from(["v1", "v2"]), death=DEATHS)
    def clone(self, name: str, key: str, death: int | None) -> None:
        def operation(store: Store) -> None:
            with pins.hold(store, owner="model", names=[name]) as held:
                pins.keep(store, key, owner="model", map_id=MapId(held.pin.maps[0]), under=held)

        try:
            self.attempt(death, operation)
        except Absent:
            assert name not in self.model
            return
        self.reload_kept(key)

    @rule(key=st.sampled_from(["v1", "v2"]), death=DEATHS)
    def drop_clone(self, key: str, death: int | None) -> None:
        self.attempt(death, lambda store: pins.release(store, key))
        self.reload_kept(key)

    def reload_kept(self, key: str) -> None:
        self.kept.pop(key, None)
        try:
            held = pins.load(self.open(), key)
        except Absent:
            return
        if held.pin.expires_ms is None:
            opened = maps.open_map(self.open(), MapId(held.pin.maps[0]))
            numbers = {block_id(block(number)): number for number in range(1, 7)}
            self.kept[key] = (opened.id, {index: numbers[found] for index, found in opened.blocks()})

    @rule(graces=st.sampled_from([0.0, 0.5, 30.0]), death=DEATHS)
    def collect(self, graces: float, death: int | None) -> None:
        store = self.open()
        now = Instant(store.backend.now() + graces * store.format.grace_s)
        if self.attempt(death, lambda mortal: gc.collect(mortal, now=now)) and graces > 1:
            needed = {n for _, numbers in self.model.values() for n in numbers.values()}
            needed |= {n for _, numbers in self.kept.values() for n in numbers.values()}
            assert set(store.backend.keys(Kind.BLOCK)) == {block_id(block(n)).hex() for n in needed}
        elif graces > 1:
            gc.collect(store, now=now)  # pins of the past that it had still to drop

    @precondition(lambda self: self.model)
    @rule()
    def measure(self) -> None:
        figures = stats.measure(self.open())
        assert figures.names == len(self.model)
        assert figures.logical == sum(size for size, _ in self.model.values())
        assert figures.mapped == sum(8192 * len(numbers) for _, numbers in self.model.values())

    @invariant()
    def every_name_has_what_the_model_says_and_nothing_is_damaged(self) -> None:
        store = self.open()
        assert {named.name for named in names.listing(store)} == set(self.model)
        for name, wanted in self.model.items():
            assert self.content(name) == wanted
            size, numbers = wanted
            flat = [block_id(block(numbers.get(n, 0))) for n in range(-(-size // BLOCK_SIZE))]
            map_id = names.load(store, name).entry.map
            assert map_id is not None
            assert maps.open_map(store, map_id).root.merkle == merkle(flat)
        for map_id, numbers in self.kept.values():
            assert {n: block_id(block(number)) for n, number in numbers.items()} == dict(
                maps.open_map(store, map_id).blocks()
            )
        problems = fsck.check(store).problems
        assert [str(problem) for problem in problems if problem.weight is fsck.Weight.DAMAGE] == []


def check(make: Callable[[], Place], *, runs: int, steps: int) -> None:
    how = settings(
        max_examples=runs,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(lambda: StoreModel(make()), settings=how)  # type: ignore[no-untyped-call]


def test_in_a_directory_all_is_as_the_model_says() -> None:
    check(InDirectory, runs=RUNS, steps=25)


def test_on_ceph_all_is_as_the_model_says(cluster: Cluster) -> None:
    """Shorter runs by day: the invariants ask a real Ceph for every index."""
    check(lambda: OnRados(cluster), runs=RUNS_ON_CEPH or 2, steps=25 if RUNS_ON_CEPH else 8)
