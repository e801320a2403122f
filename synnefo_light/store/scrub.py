"""Reads every block, page and root again and compares it with its name; what differs is set aside.

A damaged object is moved to where people can look at it, so that nobody is given its bytes and whoever stores the same
content again makes it whole. The report names every map that needs it. What cannot be read at all stays where it is: a
storage that answers with errors for a while must not empty the store.

1 an object is read and found damaged, 2 it is set aside, unless its bytes are good by then: whoever stores the same
content meanwhile was told that it is there; 3 the next; at the end the report. A crash leaves objects
either in place or aside; the next run finds the rest, and `fsck` names what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from synnefo_light.store import blocks, pins, reach
from synnefo_light.store.backend import Kind
from synnefo_light.store.errors import Absent, Corrupt, StoreFault
from synnefo_light.store.formats import HOLE, PAGE_ENTRIES, check_page, parse_root
from synnefo_light.store.identity import BlockId, MapId
from synnefo_light.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """`aside`: where its bytes are now, None when it could not be read. `needed_by`: "name web: block 7"."""

    kind: Kind
    key: str
    why: str
    aside: str | None
    needed_by: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Scrubbed:
    objects: int = 0
    bytes: int = 0
    damaged: list[Damaged] = field(default_factory=list)


def scrub(
    store: Store, *, bytes_per_s: float = 100e6, sleep: Callable[[float], None] = time.sleep, begin: str = ""
) -> Scrubbed:
    """All of it, not faster than `bytes_per_s`. `begin`: leave out blocks whose id is smaller, to go on somewhere."""
    done = Scrubbed()
    found: list[Damaged] = []
    started = time.monotonic()
    for kind in (Kind.ROOT, Kind.PAGE, Kind.BLOCK):
        for key in store.backend.keys(kind):
            if kind is Kind.BLOCK and key < begin:
                continue
            try:
                done.bytes += _check(store, kind, key)
            except Absent:
                continue
            except Corrupt as e:
                store.trace("scrub.1 found damaged")
                aside = _set_aside(store, kind, key)
                store.trace("scrub.2 set aside")
                if aside is not None:
                    found.append(Damaged(kind=kind, key=key, why=e.why, aside=aside))
            except StoreFault as e:
                found.append(Damaged(kind=kind, key=key, why=str(e), aside=None))
            done.objects += 1
            ahead = done.bytes / bytes_per_s - (time.monotonic() - started)
            if ahead > 0.1:
                sleep(ahead)
    whose = _whose(store, {(one.kind, one.key) for one in found}) if found else {}
    for one in found:
        needed_by = tuple(whose.get((one.kind, one.key), ()))
        done.damaged.append(Damaged(kind=one.kind, key=one.key, why=one.why, aside=one.aside, needed_by=needed_by))
    return done


def _set_aside(store: Store, kind: Kind, key: str) -> str | None:
    """None when it is good by now, or gone."""

    def is_good(data: bytes) -> bool:
        try:
            _check_bytes(kind, key, data)
        except Corrupt:
            return False
        return True

    try:
        return store.backend.set_aside(kind, key, is_good=is_good)
    except Absent:
        return None


def _check(store: Store, kind: Kind, key: str) -> int:
    data = store.backend.read(kind, key)
    _check_bytes(kind, key, data)
    return len(data)


def _check_bytes(kind: Kind, key: str, data: bytes) -> None:
    if kind is Kind.ROOT:
        parse_root(data, key)
    elif kind is Kind.PAGE:
        check_page(data, key)
    else:
        blocks.check(data, BlockId(bytes.fromhex(key)))


def _whose(store: Store, damaged: set[tuple[Kind, str]]) -> dict[tuple[Kind, str], list[str]]:
    """Who needs what is damaged. What cannot be read on the way is itself among it, or fsck's to tell."""
    found: dict[tuple[Kind, str], list[str]] = {}
    references = [(r.who, r.map_id) for r in reach.from_names(store)]
    for held in pins.living(store, store.backend.now()):
        references += [(f"pin {held.key}", MapId(map_id)) for map_id in held.pin.maps]
    for who, map_id in references:
        if (Kind.ROOT, map_id) in damaged:
            found.setdefault((Kind.ROOT, map_id), []).append(who)
        try:
            root = reach.read_root(store, map_id)
        except (Absent, StoreFault):
            continue
        for number, entry in enumerate(root.pages):
            if (Kind.PAGE, entry.page.hex()) in damaged:
                found.setdefault((Kind.PAGE, entry.page.hex()), []).append(f"{who}: page {number}")
            elif entry.page != HOLE:
                _blocks_of(store, who, number, entry.page, damaged, found)
    return found


def _blocks_of(
    store: Store,
    who: str,
    number: int,
    page: bytes,
    damaged: set[tuple[Kind, str]],
    found: dict[tuple[Kind, str], list[str]],
) -> None:
    try:
        entries = reach.read_entries(store, page)
    except (Absent, StoreFault):
        return
    for place in range(len(entries) // 32):
        key = (Kind.BLOCK, entries[place * 32 : place * 32 + 32].hex())
        if key in damaged:
            found.setdefault(key, []).append(f"{who}: block {number * PAGE_ENTRIES + place}")
