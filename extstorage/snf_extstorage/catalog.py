"""Images and snapshots: names of the store, and what the engine has of them.

    register   1 blocks, pages, root   2 base of the engine   3 pin of the base   4 name: commit point
    snapshot   1 snapshot of the engine                                           2 name: commit point
    commit     1 blocks, pages, root   2 base   3 pin of the base                 4 the name gets the map: commit point
    remove     1 the name: commit point

The names of a cut of several disks become certain with the first of them (`cuts.py` of the store): died after it,
whoever looks next publishes the others.

Died before the commit point: a base or a snapshot without a name, which `collect` removes when it is an hour old, and
blocks, which the store's collector removes after its grace. `commit` of a name is done again by whoever finds it
without a map. Volumes need none of it: removing an image or its base leaves its clones as they are.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal
from uuid import uuid4

from snf_extstorage.volume import RUNNING, NotFound, SnapshotFacts, SnapshotName, Still, VolumeFacts, Volumes
from synnefo_light.errors import UserError
from synnefo_light.ganeti import VolumeName
from synnefo_light.log import logger
from synnefo_light.store import cuts, names, pins
from synnefo_light.store.commit import Commit
from synnefo_light.store.errors import Absent, Corrupt
from synnefo_light.store.identity import MapId
from synnefo_light.store.maps import open_map
from synnefo_light.store.names import EngineSnapshot, Entry, Named
from synnefo_light.store.store import Store
from synnefo_light.units import Bytes

#: A pin must outlive the work under it; the largest volumes take hours to hash.
WORK_S = 86400.0
#: What is younger may be somebody's work whose name comes last.
YOUNG_S = 3600.0
#: How the pin of a base's map begins.
_BASE = "base-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One disk of an instance and the name that its snapshot gets."""

    volume: VolumeName
    name: str


class Catalog:
    def __init__(self, store: Store, volumes: Volumes, *, engine: Literal["directory", "rados"]) -> None:
        self.store = store
        self.volumes = volumes
        self._engine = engine

    def register(self, name: str, source: int, size: Bytes, *, origin: str, properties: Mapping[str, str]) -> Named:
        """An open file's bytes become the image `name`. Raises Conflict when the name is taken."""
        self.require_free(name)
        with Commit(self.store, size=size, owner=f"image {name}", ttl_s=WORK_S) as commit:
            map_id = self.volumes.register(source, size, commit)
            self._keep(map_id, commit.held)
            entry = _entry("image", size, map=map_id, origin=origin, properties=properties)
            return names.publish(self.store, name, entry, under=commit.held)

    def prepare(self, name: str) -> None:
        """The engine has the image's base afterwards; what came by another way has it made now. Raises Absent."""
        map_id = cuts.load(self.store, name).entry.map
        if map_id is None or self.volumes.has_base(map_id):
            return
        logger.warning("image=%s is composed for the first time; the next volume of it will be quick", name)
        with pins.hold(self.store, owner=f"base of {name}", names=[name], ttl_s=WORK_S) as held:
            map_id = MapId(held.pin.maps[0])
            self.volumes.compose(open_map(self.store, map_id))
            self._keep(map_id, held)

    def snapshot(self, cut: Sequence[Cut], *, still: Still = RUNNING) -> list[Named]:
        """Freeze these volumes in one cut; each is an image at once. Raises Conflict when a name is taken.

        It has the properties of the image that its volume holds, where that is certain.

        `still` as of `Volumes.snapshot`.
        """
        for one in cut:
            self.require_free(one.name)
        made = {one.volume: SnapshotName(f"{one.name}-{uuid4().hex}") for one in cut}
        before = [self.volumes.facts(one.volume) for one in cut]
        properties = self._properties_of({facts.origin for facts in before if facts.origin is not None})

        def entry(one: Cut, facts: VolumeFacts | SnapshotFacts) -> Entry:
            return _entry(
                "snapshot",
                facts.size,
                snapshot=EngineSnapshot(engine=self._engine, reference=made[one.volume]),
                parent=facts.origin,
                origin=f"volume {one.volume}",
                properties=properties.get(facts.origin) if facts.origin else None,
            )

        cuts.require_fits({one.name: entry(one, facts) for one, facts in zip(cut, before, strict=True)})
        self.volumes.snapshot(made, still=still)
        return cuts.publish(
            self.store, {one.name: entry(one, self.volumes.snapshot_facts(made[one.volume])) for one in cut}
        )

    def claim(self, name: str, *, wait_s: float) -> contextlib.AbstractContextManager[None]:
        """Before `commit`, so that no two do the same work. Raises Absent, and InUse after that long."""
        held = cuts.load(self.store, name).entry.snapshot
        if held is None or held.engine != self._engine:
            return contextlib.nullcontext()
        return self.volumes.claim(SnapshotName(held.reference), wait_s=wait_s)

    def commit(self, name: str) -> MapId:
        """Make the snapshot of that name a map; one that is a map already stays. Raises Absent, Conflict."""
        cuts.complete(self.store, name)  # what is committed is not taken back with its cut
        entry = cuts.load(self.store, name).entry
        if entry.map is not None:
            self._drop_committed(name, entry)
            return entry.map
        if entry.snapshot is None or entry.snapshot.engine != self._engine:
            raise UserError(f"{name} is a snapshot of another engine than ours, {self._engine}; commit it there")
        source = SnapshotName(entry.snapshot.reference)
        facts = self.volumes.snapshot_facts(source)
        parent = self._base_pin(facts.origin)
        with Commit(self.store, size=facts.size, owner=f"snapshot {name}", parent=parent, ttl_s=WORK_S) as commit:
            map_id = self.volumes.commit(source, commit, facts.origin if parent else None)
            based = map_id in self.volumes.bases()
            if based:
                self._keep(map_id, commit.held)
            names.seal(self.store, name, map_id, uuid=entry.uuid, under=commit.held, keep_snapshot=not based)
        if based:
            self.volumes.drop_snapshot(source)
        return map_id

    def _drop_committed(self, name: str, entry: Entry) -> None:
        """What a commit leaves that died when all but this was done."""
        held = entry.snapshot
        if held is not None and held.engine == self._engine and entry.map in set(self.volumes.bases()):
            names.forget_snapshot(self.store, name, uuid=entry.uuid)
            self.volumes.drop_snapshot(SnapshotName(held.reference))

    def uncommitted(self) -> list[str]:
        return [n.name for n in self.listing() if n.entry.map is None]

    def change(self, name: str, plan: Callable[[Mapping[str, str]], Mapping[str, str]]) -> Named:
        """Replace the properties by what `plan` makes of them; clones and running deployments keep what they had.

        Raises Absent, and Conflict when somebody changed the name meanwhile.
        """
        over = cuts.load(self.store, name)
        entry = replace(over.entry, properties=plan(over.entry.properties))
        if entry.map is None:
            return names.publish(self.store, name, entry, under=None, over=over)
        with pins.hold(self.store, owner=f"properties of {name}", names=[name]) as held:
            return names.publish(self.store, name, entry, under=held, over=over)

    def remove(self, name: str) -> Named:
        """Forget the name; its clones stay. What else there was of it goes with `collect`.

        Raises Absent, and Error when the names of its cut cannot all be published: then it stays.
        """
        cuts.complete(self.store, name)  # or it came back with the rest of its cut, or that were lost with it
        return names.remove(self.store, name)

    def remove_damaged(self, name: str) -> None:
        """Forget a name whose record cannot be read. Raises Absent, Conflict."""
        names.remove_damaged(self.store, name)

    def listing(self) -> Iterator[Named]:
        """Without those that are damaged."""
        yield from cuts.readable(self.store)

    def collect(self, *, dry_run: bool) -> list[str]:
        """Bases and snapshots that nothing refers to, and pins of bases that are gone. Returns what went, or would go.

        Raises Corrupt, Damaged for whatever cannot be read: it may refer to any of them.
        """
        cuts.finish(self.store)
        found = list(names.listing(self.store))
        maps = {n.entry.map for n in found if n.entry.map}
        entries = [entry for n in found for entry in (n.entry, *n.entry.cut.values())]
        kept = {entry.snapshot.reference for entry in entries if entry.snapshot}
        snapshots = [s for s in self.volumes.snapshots() if s not in kept and self._is_old("snapshots", s)]
        # A clone that was not committed yet is compared with its base: without it, all of its blocks are hashed.
        maps |= set(self._origins())
        bases = [b for b in self.volumes.bases() if b not in maps and self._is_old("bases", b)]
        lone = list(self._lone_pins())
        if not dry_run:
            for snapshot in snapshots:
                self.volumes.drop_snapshot(snapshot)
            for base in bases:
                # The pin first: who dies in between leaves a base that the next run finds, not a pin that nobody does.
                pins.release(self.store, _pin_key(base))
                self.volumes.drop_base(base)
            for key in lone:
                pins.release(self.store, key)
        return [*(f"snapshot {s}" for s in snapshots), *(f"base {b}" for b in bases), *(f"pin {key}" for key in lone)]

    def _lone_pins(self) -> Iterator[str]:
        """Pins of bases that are not there: dropped while another made the same, or lost. Nobody else lets them go."""
        living = pins.living(self.store, self.store.backend.now())
        kept = {held.key for held in living if held.key.startswith(_BASE) and held.pin.expires_ms is None}
        yield from sorted(kept - set(map(_pin_key, self.volumes.bases())))

    def _origins(self) -> Iterator[MapId]:
        """What volumes and snapshots began as. Raises Damaged, and NotFound for one that is there and is not whole."""
        for volume in self.volumes.volumes():
            try:
                found = self.volumes.facts(volume).origin
            except NotFound:
                if volume in self.volumes.volumes():
                    raise
                continue  # removed meanwhile
            if found is not None:
                yield found
        for snapshot in self.volumes.snapshots():
            try:
                found = self.volumes.snapshot_facts(snapshot).origin
            except NotFound:
                if snapshot in self.volumes.snapshots():
                    raise
                continue
            if found is not None:
                yield found

    def problems(self) -> Iterator[str]:
        """What is wrong with the engine's things, and between them and the names. Mends nothing."""
        yield from self.volumes.check()
        snapshots = set(self.volumes.snapshots())
        for named in names.readable(self.store):
            held = named.entry.snapshot
            if held is None or held.engine != self._engine or held.reference in snapshots:
                continue
            if self._is_missing(named.name, held):
                rest = "its map is there" if named.entry.map else "and it has no map: its content is lost"
                yield f"the snapshot {held.reference} of {named.name} is missing, {rest}"

    def _is_missing(self, name: str, held: EngineSnapshot) -> bool:
        """Looked at again, in this order: a snapshot is made before its name, and goes after it."""
        if held.reference in set(self.volumes.snapshots()):
            return False
        try:
            return names.load(self.store, name).entry.snapshot == held
        except Absent:
            return False

    def _is_old(self, kind: Literal["snapshots", "bases"], name: str) -> bool:
        try:
            return self.volumes.age_s(kind, name) > YOUNG_S
        except NotFound:
            return False  # removed meanwhile

    def _keep(self, map_id: MapId, held: pins.Held) -> None:
        pins.keep(self.store, _pin_key(map_id), owner=f"base {map_id}", map_id=map_id, under=held)

    def _properties_of(self, maps: Set[MapId]) -> Mapping[MapId, Mapping[str, str]]:
        """Those of the names that have these maps; none where they differ: which of them was meant is not known."""
        found: dict[MapId, list[Mapping[str, str]]] = {map_id: [] for map_id in maps}
        for entry in (named.entry for named in self.listing()) if maps else ():
            if entry.map in found and entry.properties:
                found[entry.map].append(entry.properties)
        return {m: every[0] for m, every in found.items() if every and all(one == every[0] for one in every)}

    def _base_pin(self, map_id: MapId | None) -> pins.Held | None:
        """The pin that keeps a base's map, if the base is there and stays."""
        if map_id is None or map_id not in self.volumes.bases():
            return None
        try:
            held = pins.load(self.store, _pin_key(map_id))
        except Absent:
            return None
        return held if held.pin.expires_ms is None else None

    def require_free(self, name: str) -> None:
        """Before any work; `publish` says so for certain. Raises UserError, also for what cannot be a name."""
        try:
            entry = cuts.load(self.store, name).entry
        except Absent:
            return
        except Corrupt as e:
            raise UserError(f"there is something {name} already, which cannot be read ({e}); remove it first") from None
        what = "a snapshot" if entry.kind == "snapshot" else f"an {entry.kind}"
        raise UserError(f"there is {what} {name} already; remove it first or choose another name")


def _pin_key(map_id: MapId) -> str:
    return f"{_BASE}{map_id}"


def _entry(
    kind: Literal["image", "snapshot"],
    size: int,
    *,
    origin: str,
    map: MapId | None = None,
    snapshot: EngineSnapshot | None = None,
    parent: MapId | None = None,
    properties: Mapping[str, str] | None = None,
) -> Entry:
    return Entry(
        uuid=str(uuid4()),
        kind=kind,
        size=size,
        created_ms=int(time.time() * 1000),
        map=map,
        snapshot=snapshot,
        parent=parent,
        origin=origin,
        properties=properties or {},
    )


def open_source(path: str) -> tuple[int, Bytes]:
    """An image's file or device, opened for reading, and its size. Raises UserError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as e:
        raise UserError(f"the image {path} cannot be read: {e.strerror}") from e
    size = os.lseek(fd, 0, os.SEEK_END)
    if size == 0:
        os.close(fd)
        raise UserError(f"the image {path} is empty")
    return fd, Bytes(size)
