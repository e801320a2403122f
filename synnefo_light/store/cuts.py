"""Snapshots of several disks that were cut at once get their names at once: all of them, or none.

1 the store's record CUTS says that a cut of this first name begins; 2 the first name is published; its record has what
the others are to be in `cut` (the commit point); 3 the others are published, one by one; 4 the first record is written
without `cut`; 5 CUTS forgets it.

A crash before 2 leaves no name. After 2 all names are certain: whoever next looks for one of them, or lists names,
publishes what is missing (`load`, `readable`, `complete`, `finish`), and so does `snf-store upkeep --commit`. Two who
finish the same cut at once publish the same. Only where somebody else was quicker with one of the names, all of them
are taken back, the first one last; a crash in the midst of that is followed by the same. What is committed, replaced or
removed is `complete` before: nothing is taken back of which that is known, and no name comes back.

CUTS is there so that who looks for a name that nobody has need not read all names. What it says of cuts that are none
is passed over, and goes after STALE_S with the next cut; should it be damaged, all names are read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from synnefo_light.errors import Error, UserError
from synnefo_light.log import logger
from synnefo_light.records import RecordError, dump_json, parse_json
from synnefo_light.resource_names import is_name
from synnefo_light.store import names, pins
from synnefo_light.store.backend import LIMIT, Kind, Version
from synnefo_light.store.errors import Absent, Conflict, Corrupt, FormatRefused
from synnefo_light.store.formats import encode_record, parse_record
from synnefo_light.store.names import Entry, Named
from synnefo_light.store.store import CUTS_KEY, Store

#: How long a cut may take from its first word in CUTS to its first name before others think that it died.
STALE_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A cut that begins or began with this name, and when, by the backend's clock."""

    name: str
    since_ms: int

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ValueError(f"{self.name[:80]!r} is no name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """The record CUTS. `begun`: by the uuid of the first name, for two may want the same name."""

    begun: Mapping[str, Begun] = field(default_factory=dict)


def require_fits(entries: Mapping[str, Entry]) -> None:
    """Before disks are cut: that the first record can hold what all of them are to be. Raises UserError."""
    (first, entry), *rest = entries.items()
    size = len(names.encode_entry(replace(entry, cut=dict(rest))))
    if size > LIMIT[Kind.NAME]:
        raise UserError(
            f"the record of {first} would have {size} bytes, for it has the properties of all {len(entries)} disks "
            f"until the other names are there, and {LIMIT[Kind.NAME]} are accepted; make a snapshot of fewer disks, "
            "or give the images that they were made from fewer or shorter properties"
        )


def publish(store: Store, entries: Mapping[str, Entry]) -> list[Named]:
    """Give new names to entries without maps. Raises Conflict when one is taken; then none of them is there."""
    (first, entry), *rest = entries.items()
    if not rest:
        return [names.publish(store, first, entry, under=None)]
    began = store.backend.now()
    _begin(store, first, entry)
    store.trace("cut.0 begun")
    try:
        head = names.publish(store, first, replace(entry, cut=dict(rest)), under=None)
    except Error:
        _forget(store, entry)
        raise
    if store.backend.now() - began > STALE_S / 2:  # others may have thought that we died
        _begin(store, first, entry)
    store.trace("cut.1 certain")
    _finish(store, head)
    return [names.load(store, name) for name in entries]


def unfinished(store: Store) -> Iterator[Named]:
    """The first names of cuts whose other names may be missing. Reads all names."""
    return (named for named in names.readable(store) if named.entry.cut)


def finish(store: Store) -> list[str]:
    """Publish what is missing of every cut; the first names of these. What could not be done is logged."""
    done = []
    for head in list(unfinished(store)):
        try:
            _finish(store, head)
        except Error as e:
            logger.warning("name=%s the cut that it begins is not finished: %s", head.name, e)
        else:
            done.append(head.name)
    return done


def complete(store: Store, name: str) -> bool:
    """Publish what is missing of the cuts that this name is of, or was to be of; whether there were any.

    Raises Error when that cannot be done. A cut that is taken back is logged.
    """
    found = False
    for head in _heads_with(store, name):
        found = True
        try:
            _finish(store, head)
        except Conflict as e:
            logger.warning("name=%s the cut that it began is taken back: %s", head.name, e)
        except Absent:
            continue
    return found


def load(store: Store, name: str) -> Named:
    """`names.load`, also of a name that a cut is certain to have; Error when that cannot be published."""
    try:
        return names.load(store, name)
    except Absent:
        if not complete(store, name):
            raise
    return names.load(store, name)


def readable(store: Store) -> Iterator[Named]:
    """`names.readable`, with what cuts are certain to have."""
    found = list(names.readable(store))
    if any(named.entry.cut for named in found):
        finish(store)
        found = list(names.readable(store))
    return iter(found)


def begun(store: Store) -> Mapping[str, Begun]:
    """What CUTS says. Raises Corrupt."""
    try:
        return _parse(store.backend.load(Kind.STORE, CUTS_KEY).data)
    except Absent:
        return {}


def _heads_with(store: Store, name: str) -> Iterator[Named]:
    """The first names of cuts that are not finished and that `name` is of."""
    try:
        firsts = {one.name for one in begun(store).values()}
    except Corrupt as e:
        logger.warning("%s; all names are read instead", e)
        firsts = {head.name for head in unfinished(store)}
    for first in sorted({name} | firsts):
        with contextlib.suppress(Absent, Corrupt, FormatRefused):
            head = names.load(store, first)
            if head.entry.cut and (first == name or name in head.entry.cut):
                yield head


def _begin(store: Store, first: str, entry: Entry) -> None:
    while True:
        found, version = _load_record(store)
        mine = {entry.uuid: Begun(name=first, since_ms=int(store.backend.now() * 1000))}
        with contextlib.suppress(Conflict):
            _write(store, {u: one for u, one in found.items() if not _is_stale(store, one)} | mine, version)
            return


def _forget(store: Store, entry: Entry) -> None:
    """What is not forgotten costs whoever looks for an absent name one more look, so no failure of it counts."""
    try:
        while entry.uuid in (found := begun(store)):
            found, version = _load_record(store)
            with contextlib.suppress(Conflict):
                _write(store, {u: one for u, one in found.items() if u != entry.uuid}, version)
    except Error as e:
        logger.warning("%s still has a cut that is none any more: %s", CUTS_KEY, e)


def _load_record(store: Store) -> tuple[Mapping[str, Begun], Version | None]:
    """CUTS, or where it is damaged what it should say."""
    try:
        loaded = store.backend.load(Kind.STORE, CUTS_KEY)
    except Absent:
        return {}, None
    try:
        return _parse(loaded.data), loaded.version
    except Corrupt:
        now = int(store.backend.now() * 1000)
        return {n.entry.uuid: Begun(name=n.name, since_ms=now) for n in unfinished(store)}, loaded.version


def _parse(data: bytes) -> Mapping[str, Begun]:
    try:
        return parse_json(parse_record(data, CUTS_KEY), Cuts, limit=LIMIT[Kind.STORE]).begun
    except RecordError as e:
        raise Corrupt(CUTS_KEY, f"is not the record of the cuts that began: {e}") from None


def _write(store: Store, found: Mapping[str, Begun], version: Version | None) -> None:
    store.backend.replace(Kind.STORE, CUTS_KEY, encode_record(dump_json(Cuts(begun=found))), expected=version)


def _is_stale(store: Store, one: Begun) -> bool:
    """Looked at in this order: who was slower than that says so again behind his first name."""
    if store.backend.now() - one.since_ms / 1000 <= STALE_S:
        return False
    try:
        return not names.load(store, one.name).entry.cut
    except Absent:
        return True
    except (Corrupt, FormatRefused):
        return False


def _finish(store: Store, head: Named) -> None:
    """Raises Conflict when a name is another's: the cut is taken back then. Absent: its first name was removed."""
    while head.entry.cut:
        for name, entry in head.entry.cut.items():
            # A name that is missing although another process has finished the cut was removed since.
            if _uuid_of(store, name) is None and names.load(store, head.name).version == head.version:
                with contextlib.suppress(Conflict):
                    names.publish(store, name, entry, under=None)
                    store.trace("cut.2 published")
            if _uuid_of(store, name) not in (None, entry.uuid):
                _take_back(store, head)
                raise Conflict(f"the name {name} is taken, so nothing was kept; choose another name")
        with contextlib.suppress(Conflict):
            names.replace_entry(store, head, replace(head.entry, cut={}))
            store.trace("cut.3 finished")
            _forget(store, head.entry)
            return
        found = names.load(store, head.name)
        if found.entry.uuid != head.entry.uuid:
            return
        head = found


def _uuid_of(store: Store, name: str) -> str | None:
    try:
        return names.load(store, name).entry.uuid
    except Absent:
        return None


def _take_back(store: Store, head: Named) -> None:
    for name, entry in [*head.entry.cut.items(), (head.name, head.entry)]:
        with contextlib.suppress(Absent, Conflict):
            found = names.load(store, name)
            if found.entry.uuid == entry.uuid:
                if found.entry.map is not None:  # committed meanwhile, and cloned perhaps
                    pins.linger(store, found.entry.map)
                store.backend.delete(Kind.NAME, name, expected=found.version)
                store.trace("cut.4 taken back")
    _forget(store, head.entry)
