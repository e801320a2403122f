"""Snapshots of several disks that were cut at once get their names at once: all of them, or none.

1 the first name is published; its record has what the others are to be in `cut` (the commit point); 2 the others are
published, one by one; 3 the first record is written without `cut`.

A crash before 1 leaves no name. After 1 all names are certain: whoever next looks for one of them, or lists names,
publishes what is missing (`load`, `readable`, `finish`), and so does `snf-store upkeep`. Two who finish the same cut at
once publish the same. Only where somebody else was quicker with one of the names, all of them are taken back, the first
one last; a crash in the midst of that is followed by the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

from synnefo_light.errors import Error
from synnefo_light.log import logger
from synnefo_light.store import names
from synnefo_light.store.backend import Kind
from synnefo_light.store.errors import Absent, Conflict
from synnefo_light.store.names import Entry, Named
from synnefo_light.store.store import Store


def publish(store: Store, entries: Mapping[str, Entry]) -> list[Named]:
    """Give new names to entries without maps. Raises Conflict when one is taken; then none of them is there."""
    (first, entry), *rest = entries.items()
    head = names.publish(store, first, replace(entry, cut=dict(rest)), under=None)
    store.trace("cut.1 certain")
    _finish(store, head)
    return [names.load(store, name) for name in entries]


def unfinished(store: Store) -> Iterator[Named]:
    """The first names of cuts whose other names may be missing."""
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


def load(store: Store, name: str) -> Named:
    """`names.load`, also of a name that a cut is certain to have."""
    try:
        return names.load(store, name)
    except Absent:
        if not finish(store):
            raise
    return names.load(store, name)


def readable(store: Store) -> Iterator[Named]:
    """`names.readable`, with what cuts are certain to have."""
    found = list(names.readable(store))
    if any(named.entry.cut for named in found):
        finish(store)
        found = list(names.readable(store))
    return iter(found)


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
                store.backend.delete(Kind.NAME, name, expected=found.version)
                store.trace("cut.4 taken back")
