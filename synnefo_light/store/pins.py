"""Pins: what the collector must leave alone though no name says so.

A pin names maps, or an instant (everything touched since then stays), or both, and may expire. It is a record of the
store, so it holds on every node and survives whoever made it.

The rules that make collecting safe, whatever runs at the same time:

1. The collector reads names first, pins second, then follows both.
2. Nobody drops a reference to a map at once. Removing or replacing a name first pins its map for the grace
   (`gone-...`); releasing a pin lets it expire after the grace instead of deleting it.
3. A reference to a map is added under a pin, and a pin on a map is made from a reference that is still there *after*
   the pin was written (`hold` checks), or on a map that was made under that same pin.

A reference that moves (an image renamed, a volume's pin that becomes a name) is therefore seen in one place or the
other: it was old enough to be read among the names, or what was dropped is still among the pins, as long as a mark
takes less than the grace; the collector sweeps nothing after one that took longer than half of it.

`hold`: 1 the pin is written (durable), 2 the names are looked up once more. A crash after 1 leaves a pin that expires.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from synnefo_light.records import RecordError, dump_json, parse_json
from synnefo_light.store.backend import LIMIT, Instant, Kind, Version
from synnefo_light.store.errors import Absent, Conflict, Corrupt
from synnefo_light.store.formats import encode_record, parse_record
from synnefo_light.store.identity import MapId, parse_map_id
from synnefo_light.store.store import Store

HOLD_TTL_S = 3600.0
#: How the owner of a released pin begins, so that people can tell it from one whose operation runs, or was killed.
_ENDED = "ended: "
_AT_WORK = "hold-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """As it is stored. Times in milliseconds of the backend's clock; `expires_ms` None: until it is released."""

    owner: str
    maps: tuple[str, ...] = ()
    since_ms: int | None = None
    expires_ms: int | None = None

    def __post_init__(self) -> None:
        for map_id in self.maps:
            parse_map_id(map_id)

    def alive(self, now: Instant) -> bool:
        return self.expires_ms is None or self.expires_ms > now * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A pin in the store."""

    key: str
    pin: Pin
    version: Version


def parse_pin(data: bytes, key: str) -> Pin:
    """Raises Corrupt naming the pin."""
    place = f"pin {key}"
    try:
        return parse_json(parse_record(data, place), Pin, limit=LIMIT[Kind.PIN])
    except RecordError as e:
        raise Corrupt(place, f"is no pin: {e}") from None


@contextlib.contextmanager
def hold(
    store: Store, *, owner: str, names: Sequence[str] = (), since_now: bool = False, ttl_s: float = HOLD_TTL_S
) -> Iterator[Held]:
    """Pin the maps of these names, and with `since_now` all that is created or touched from now on, while in here.

    Raises Absent for a name that is not there or has no map yet. An operation that may last longer than `ttl_s` calls
    `renew`. A name that is replaced after `hold` returned keeps its old map pinned.
    """
    held = acquire(store, owner=owner, names=names, since_now=since_now, ttl_s=ttl_s)
    try:
        yield held
    finally:
        release(store, held.key)


def acquire(
    store: Store,
    *,
    owner: str,
    names: Sequence[str] = (),
    since_now: bool = False,
    under: Held | None = None,
    ttl_s: float = HOLD_TTL_S,
) -> Held:
    """`hold` for who cannot use a context: `release` it, or it expires. `under`: a pin whose maps it names too."""
    from synnefo_light.store.names import load  # names need pins to drop maps

    now = store.backend.now()
    found = [load(store, name) for name in names]
    maps: list[str] = list(under.pin.maps) if under else []
    for record in found:
        if record.entry.map is None:
            raise Absent(f"{record.name} has no map yet: it is a snapshot that was not committed")
        maps.append(record.entry.map)
    pin = Pin(
        owner=owner,
        maps=tuple(dict.fromkeys(maps)),
        since_ms=int(now * 1000) if since_now else None,
        expires_ms=int((now + ttl_s) * 1000),
    )
    held = _write(store, f"{_AT_WORK}{secrets.token_hex(16)}", pin, expected=None)
    store.trace("hold.1 pinned")
    for record in found:
        if load(store, record.name).entry.map != record.entry.map:
            raise Conflict(f"{record.name} was replaced while it was being pinned; ask again")
    if under is not None:
        check_alive(store, under)
    store.trace("hold.2 checked")
    return held


def keep(store: Store, key: str, *, owner: str, map_id: MapId, under: Held) -> Held:
    """Pin a map until `release(key)`, for example as long as a volume lives that was cloned from it.

    `under`: a pin that protects the map: it names it, or the map was made since. A second call replaces the pin of
    this key. Raises Conflict when `under` has expired.
    """
    check_alive(store, under)
    with contextlib.suppress(Absent):
        return _replace_kept(store, key, owner, map_id)
    return _write(store, key, Pin(owner=owner, maps=(map_id,)), expected=None)


def _replace_kept(store: Store, key: str, owner: str, map_id: MapId) -> Held:
    before = load(store, key)
    for other in before.pin.maps:
        if other != map_id:
            linger(store, MapId(other))
    return _write(store, key, Pin(owner=owner, maps=(map_id,)), expected=before.version)


def renew(store: Store, held: Held, *, ttl_s: float = HOLD_TTL_S) -> Held:
    """Let a pin live for `ttl_s` from now on. Raises Conflict when it has expired: begin again."""
    check_alive(store, held)
    pin = replace(held.pin, expires_ms=int((store.backend.now() + ttl_s) * 1000))
    return _write(store, held.key, pin, expected=load(store, held.key).version)


def check_alive(store: Store, held: Held) -> None:
    """Raises Conflict when what it protects may be gone."""
    with contextlib.suppress(Absent):
        if load(store, held.key).pin.alive(store.backend.now()):
            return
    raise Conflict(f"the pin {held.key} of {held.pin.owner} expired before the work under it was done; begin again")


def release(store: Store, key: str) -> None:
    """Let the pin expire after the grace (rule 2). A second call, and one for a pin that is gone, does nothing."""
    until = int((store.backend.now() + store.format.grace_s) * 1000)
    while True:
        try:
            held = load(store, key)
            owner = f"{_ENDED}{held.pin.owner.removeprefix(_ENDED)}"
            _write(store, key, replace(held.pin, owner=owner, expires_ms=until), expected=held.version)
            return
        except Absent:
            return
        except Conflict:
            continue


def linger(store: Store, map_id: MapId) -> None:
    """Keep a map for the grace from now on; whoever drops a reference calls this first."""
    key = lingering(map_id)
    while True:
        until = int((store.backend.now() + store.format.grace_s) * 1000)
        pin = Pin(owner="dropped", maps=(map_id,), expires_ms=until)
        try:
            expected = load(store, key).version
        except Absent:
            expected = None
        try:
            _write(store, key, pin, expected=expected)
            return
        except Conflict:
            continue


def lingering(map_id: MapId) -> str:
    """The key of the pin that `linger` makes."""
    return f"gone-{map_id}"


def living(store: Store, now: Instant) -> Iterator[Held]:
    """What the collector minds. Raises Corrupt at one that cannot be read."""
    for key in store.backend.keys(Kind.PIN):
        try:
            held = load(store, key)
        except Absent:
            continue
        if held.pin.alive(now):
            yield held


def is_at_work(held: Held) -> bool:
    """Whether an operation holds it that has not ended: it runs, or it was killed and the pin expires."""
    return held.key.startswith(_AT_WORK) and not held.pin.owner.startswith(_ENDED)


def load(store: Store, key: str) -> Held:
    """Raises Absent, Corrupt."""
    loaded = store.backend.load(Kind.PIN, key)
    return Held(key=key, pin=parse_pin(loaded.data, key), version=loaded.version)


def _write(store: Store, key: str, pin: Pin, *, expected: Version | None) -> Held:
    version = store.backend.replace(Kind.PIN, key, encode_record(dump_json(pin)), expected=expected)
    return Held(key=key, pin=pin, version=version)
