"""The collector: removes blocks, pages and roots that no name and no pin leads to and nobody touched for the grace.

1 the collector's record counts a new run; 2 names, then pins, are read and followed to every root and page, and each
block that these name is marked; 3 the sweep retires what is not marked and was not touched since the cut-off, roots
before pages before blocks; 4 leftovers of dead writers, the trash of earlier runs and expired pins go; 5 the record
says that the run ended.

The cut-off is one grace before the mark began, or before the oldest instant that a pin protects. An error in step 2,
one root that cannot be read, or a mark that took longer than half the grace, and nothing is swept: what was not read
may need anything. A crash anywhere leaves less garbage than before; the next run begins at 1. Two collectors at once
only do the same work twice. `pins.py` and `backend.py` say why writers at the same time lose nothing.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from synnefo_light.records import RecordError, dump_json, parse_json
from synnefo_light.store import pins, reach
from synnefo_light.store.backend import LIMIT, Instant, Kind
from synnefo_light.store.errors import Absent, Conflict, Corrupt, StoreFault
from synnefo_light.store.formats import encode_record, parse_record
from synnefo_light.store.identity import MapId
from synnefo_light.store.reach import Digests, Reached
from synnefo_light.store.store import Store

GC_KEY = "GC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The collector's record: the runs so far, and when the last began and ended, in milliseconds."""

    runs: int = 0
    began_ms: int = 0
    ended_ms: int = 0


@dataclass(slots=True, kw_only=True)
class Collected:
    """What a run saw and removed; with `dry_run`, would have removed. `young`: not needed, but within the grace."""

    roots: int = 0
    pages: int = 0
    blocks: int = 0
    entries: int = 0
    removed: int = 0
    removed_bytes: int = 0
    young: int = 0
    leftovers: int = 0
    pins: int = 0


def collect(store: Store, *, dry_run: bool = False, now: Instant | None = None) -> Collected:
    """One run. Raises StoreFault, having removed nothing, when not everything that is needed could be read.

    `now`: by the backend's clock; another one is for tests.
    """
    began = store.backend.now() if now is None else now
    if not dry_run:
        _note(store, began=began)
    store.trace("gc.1 begun")
    reached, cutoff = mark(store, began)
    try:
        took = store.backend.now() - began
        if took > store.format.grace_s / 2:
            raise StoreFault(
                f"reading what is needed in {store.backend.place} took {took:.0f} s, more than half the grace of"
                f" {store.format.grace_s} s, so nothing was removed; run it when the storage is less busy"
            )
        store.trace("gc.2 marked")
        done = Collected(roots=len(reached.roots), pages=len(reached.pages), entries=reached.blocks.added)
        _sweep(store, reached, cutoff, done, dry_run=dry_run)
    finally:
        reached.blocks.close()
    store.trace("gc.3 swept")
    if not dry_run:
        done.leftovers = store.backend.sweep_leftovers(untouched_since=Instant(began - store.format.grace_s))
        done.pins = _drop_expired_pins(store, began)
        store.trace("gc.4 leftovers gone")
        _note(store, began=began, ended=store.backend.now())
        store.trace("gc.5 noted")
    return done


def mark(store: Store, began: Instant) -> tuple[Reached, Instant]:
    """Everything that is needed, and the cut-off. Raises StoreFault naming what could not be read."""
    reached = Reached()
    oldest: float = began
    try:
        for reference in reach.from_names(store):
            _follow(store, reached, reference.map_id, reference.who)
        store.trace("gc.2a names read")
        for held in pins.living(store, began):
            if held.pin.since_ms is not None:
                oldest = min(oldest, held.pin.since_ms / 1000)
            for map_id in held.pin.maps:
                _follow(store, reached, MapId(map_id), f"pin {held.key}")
    except StoreFault as e:
        reached.blocks.close()
        raise StoreFault(f"nothing was removed, for not everything that is needed can be read: {e}") from e
    return reached, Instant(oldest - store.format.grace_s)


def _follow(store: Store, reached: Reached, map_id: MapId, who: str) -> None:
    try:
        reached.follow(store, map_id)
    except Absent as e:
        raise Corrupt(who, f"needs what is not there: {e}") from e


def _sweep(store: Store, reached: Reached, cutoff: Instant, done: Collected, *, dry_run: bool) -> None:
    pages = {page.hex() for page in reached.pages}
    for kind, needed in ((Kind.ROOT, reached.roots), (Kind.PAGE, pages)):
        for key in list(store.backend.keys(kind)):
            if key not in needed:
                _retire(store, kind, key, cutoff, done, dry_run=dry_run)
        store.trace(f"gc.3 {kind.value} swept")
    listed = Digests()
    try:
        for key in store.backend.keys(Kind.BLOCK):
            listed.add(bytes.fromhex(key))
        for number in range(256):
            needed_here = reached.blocks.part(number)
            done.blocks += len(needed_here)
            for block in listed.part(number) - needed_here:
                _retire(store, Kind.BLOCK, block.hex(), cutoff, done, dry_run=dry_run)
    finally:
        listed.close()


def _retire(store: Store, kind: Kind, key: str, cutoff: Instant, done: Collected, *, dry_run: bool) -> None:
    try:
        found = store.backend.stat(kind, key)
    except Absent:
        return
    if found.touched >= cutoff:
        done.young += 1
    elif dry_run or store.backend.retire(kind, key, untouched_since=cutoff):
        done.removed += 1
        done.removed_bytes += found.size


def _drop_expired_pins(store: Store, now: Instant) -> int:
    dropped = 0
    for key in list(store.backend.keys(Kind.PIN)):
        try:
            held = pins.load(store, key)
            if not held.pin.alive(now):
                store.backend.delete(Kind.PIN, key, expected=held.version)
                dropped += 1
        except (Absent, Conflict):
            continue
    return dropped


def last_run(store: Store) -> Run:
    try:
        data = store.backend.load(Kind.STORE, GC_KEY).data
    except Absent:
        return Run()
    try:
        return parse_json(parse_record(data, GC_KEY), Run, limit=LIMIT[Kind.STORE])
    except RecordError as e:
        raise Corrupt(GC_KEY, f"is not the collector's record: {e}") from None


def _note(store: Store, *, began: Instant, ended: Instant | None = None) -> None:
    """Another collector may note at the same time; whoever is last is told, which is enough for people."""
    try:
        version = store.backend.load(Kind.STORE, GC_KEY).version
        runs = last_run(store).runs
    except Absent:
        version, runs = None, 0
    run = Run(
        runs=runs + (ended is None),
        began_ms=int(began * 1000),
        ended_ms=0 if ended is None else int(ended * 1000),
    )
    with contextlib.suppress(Conflict):
        store.backend.replace(Kind.STORE, GC_KEY, encode_record(dump_json(run)), expected=version)
