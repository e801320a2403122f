"""Names of images, snapshots and objects. A name's record is replaced by compare-and-swap, which is the commit point.

What stands under a name is a map of the store, or a snapshot that a volume engine holds and that is not committed yet,
or both: then the engine's copy is a shortcut to the same content. A name can be used as soon as it is published;
`seal` adds the map when the engine has committed it. A name that was removed can be used again at once: what it was is
told by its uuid, not by its spelling.

`publish` of a map and `seal`: 1 the pin is checked, 2 the record is replaced (the commit point), 3 the pin is checked
once more; should it have expired while the process stood still, the record is withdrawn: what was there before comes
back. A crash before 2 leaves nothing, a crash after 2 the published name. `seal` drops the snapshot in a step of its
own, when the map is certain. `remove`, and replacing one map by another: 1 the map is pinned for the grace, 2 the
record is removed or replaced (the commit point). A crash after 1 leaves a pin that expires.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from uuid import UUID

from synnefo_light.errors import UserError
from synnefo_light.log import logger
from synnefo_light.records import RecordError, dump_json, parse_json, plain
from synnefo_light.resource_names import is_name
from synnefo_light.store import pins
from synnefo_light.store.backend import LIMIT, Kind, Version, check_key
from synnefo_light.store.errors import Absent, Conflict, Corrupt, FormatRefused
from synnefo_light.store.formats import encode_record, parse_record
from synnefo_light.store.identity import MAP_SIZE_LIMIT, MapId, parse_map_id
from synnefo_light.store.pins import Held
from synnefo_light.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSnapshot:
    """A snapshot that an engine holds. `reference` means something to that engine alone."""

    engine: Literal["directory", "rados"]
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a name's record says.

    `size` in bytes. `parent`: the map that it was cloned from, to send what changed. `origin`: for people, what it was
    made from. `generation` rises with each replacement. `properties`: an image's, as snf-image(7) names them. `cut`:
    what is published next, under these names (`cuts.py`).
    """

    uuid: str
    kind: Literal["image", "snapshot", "object"]
    size: int
    created_ms: int
    map: MapId | None = None
    snapshot: EngineSnapshot | None = None
    parent: MapId | None = None
    origin: str = ""
    generation: int = 1
    properties: Mapping[str, str] = field(default_factory=dict)
    cut: Mapping[str, Entry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        UUID(self.uuid)
        for map_id in (self.map, self.parent):
            if map_id is not None:
                parse_map_id(map_id)
        if not 0 <= self.size <= MAP_SIZE_LIMIT:
            raise ValueError(f"size {self.size} is not between 0 and {MAP_SIZE_LIMIT}")
        if self.map is None and self.snapshot is None:
            raise ValueError("there is neither a map nor a snapshot")
        if any(not is_name(name) or other.cut or other.map for name, other in self.cut.items()):
            raise ValueError("what is published next are snapshots under names, with nothing after them")


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    name: str
    entry: Entry
    version: Version


def encode_entry(entry: Entry) -> bytes:
    """The record. `cut` is left out where there is none, so that releases that know of none can read it."""
    return encode_record(dump_json(_fields(entry)))


def _fields(entry: Entry) -> dict[str, object]:
    found = plain(entry)
    assert isinstance(found, dict)
    del found["cut"]
    return found | ({"cut": {name: _fields(other) for name, other in entry.cut.items()}} if entry.cut else {})


def parse_entry(data: bytes, name: str) -> Entry:
    """Raises Corrupt naming the name."""
    place = f"name {name}"
    try:
        return parse_json(parse_record(data, place), Entry, limit=LIMIT[Kind.NAME])
    except RecordError as e:
        raise Corrupt(place, f"has a record that is none: {e}") from None


def load(store: Store, name: str) -> Named:
    """Raises Absent, Corrupt, and UserError for what cannot be a name."""
    check_key(Kind.NAME, name)
    try:
        loaded = store.backend.load(Kind.NAME, name)
    except Absent:
        raise Absent(f"there is no image, snapshot or object {name} in {store.backend.place}") from None
    return Named(name=name, entry=parse_entry(loaded.data, name), version=loaded.version)


def listing(store: Store) -> Iterator[Named]:
    """All names, in no order. Raises Corrupt at one that cannot be read: for who would remove what that one needs."""
    for key in store.backend.keys(Kind.NAME):
        try:
            yield load(store, key)
        except Absent:
            continue


def readable(store: Store) -> Iterator[Named]:
    """All names that can be read, in no order; others are logged."""
    for key in store.backend.keys(Kind.NAME):
        try:
            yield load(store, key)
        except Absent:
            continue
        except (Corrupt, FormatRefused) as e:
            logger.warning("name=%s is left out: %s", key, e)


def publish(store: Store, name: str, entry: Entry, *, under: Held | None, over: Named | None = None) -> Named:
    """Give a new name to `entry`, or to replace what `over` showed. Raises Conflict when somebody was faster.

    `under`: the pin that protects `entry.map`; None only for an entry without a map. Raises Conflict when the pin
    expired before the name was published; then the name is as it was before, and the work begins again. (Where `over`
    has a map, and the process stood still for longer than the grace, that may be gone as well: then so is the name.)
    """
    check_key(Kind.NAME, name)
    if entry.map is not None:
        if under is None:
            raise ValueError("a map is published under a pin")
        pins.check_alive(store, under)
    if over is not None:
        entry = replace(entry, generation=over.entry.generation + 1)
        if over.entry.map not in (None, entry.map):
            pins.linger(store, MapId(str(over.entry.map)))
    store.trace("publish.1 pinned")
    named = _swap(store, name, entry, over)
    store.trace("publish.2 published")
    if entry.map is not None and under is not None:
        try:
            pins.check_alive(store, under)
        except Conflict:
            _withdraw(store, named, over)
            raise
    store.trace("publish.3 checked")
    return named


def _withdraw(store: Store, published: Named, over: Named | None) -> None:
    """Put the record back that `publish` replaced; whoever changed it since decides about it."""
    if over is None or not _stays(store, over, published):
        with contextlib.suppress(Absent):
            store.backend.delete(Kind.NAME, published.name, expected=published.version)
        return
    back = _swap(store, published.name, over.entry, published)
    if not _stays(store, over, published):
        store.backend.delete(Kind.NAME, published.name, expected=back.version)


def _stays(store: Store, over: Named, published: Named) -> bool:
    """Whether the map that was replaced was protected all the time: by the name itself, or by the pin of `publish`."""
    if over.entry.map in (None, published.entry.map):
        return True
    try:
        return pins.load(store, pins.lingering(MapId(str(over.entry.map)))).pin.alive(store.backend.now())
    except Absent:
        return False


def seal(store: Store, name: str, map_id: MapId, *, uuid: str, under: Held, keep_snapshot: bool = False) -> Named:
    """Add the map to a name that had only a snapshot so far; then the snapshot goes unless `keep_snapshot`.

    A second call with the same map changes nothing more. Raises Absent or Conflict when the name is gone or is that of
    another `uuid` by now: then nobody wants the map, and the collector will have it.
    """
    while True:
        named = load(store, name)
        if named.entry.uuid != uuid:
            raise Conflict(f"{name} is another snapshot by now than the one that was committed")
        try:
            if named.entry.map != map_id:
                named = publish(store, name, replace(named.entry, map=map_id), under=under, over=named)
        except Conflict:
            pins.check_alive(store, under)
            continue
        return named if keep_snapshot else forget_snapshot(store, name, uuid=uuid)


def forget_snapshot(store: Store, name: str, *, uuid: str) -> Named:
    """Leave a name its map alone; nothing happens when that is so. Raises Absent, Conflict as `seal`."""
    while True:
        named = load(store, name)
        if named.entry.uuid != uuid or named.entry.map is None:
            raise Conflict(f"{name} is another snapshot by now than the one that was committed")
        if named.entry.snapshot is None:
            return named
        with contextlib.suppress(Conflict):
            named = replace_entry(store, named, replace(named.entry, snapshot=None))
            store.trace("seal.1 dropped")
            return named


def replace_entry(store: Store, over: Named, entry: Entry) -> Named:
    """Write another entry with the same map. Raises Absent, and Conflict when somebody changed it since."""
    return _swap(store, over.name, replace(entry, generation=over.entry.generation + 1), over)


def remove(store: Store, name: str) -> Named:
    """Forget a name and return what it was. Its blocks stay for the grace, and as long as something else needs them.

    Raises Absent. Volumes cloned from it are not touched: they do not depend on the name.
    """
    while True:
        named = load(store, name)
        if named.entry.map is not None:
            pins.linger(store, named.entry.map)
        store.trace("remove.1 pinned")
        try:
            store.backend.delete(Kind.NAME, name, expected=named.version)
        except Conflict:
            continue
        store.trace("remove.2 removed")
        return named


def remove_damaged(store: Store, name: str) -> None:
    """Forget a name whose record is damaged. What its map was nobody knows, so that is not kept for the grace.

    Raises Absent, and Conflict for a name whose record can be read.
    """
    check_key(Kind.NAME, name)
    while True:
        loaded = store.backend.load(Kind.NAME, name)
        with contextlib.suppress(Corrupt):
            parse_entry(loaded.data, name)
            raise Conflict(f"the name {name} was mended, or made anew, by somebody else meanwhile")
        try:
            store.backend.delete(Kind.NAME, name, expected=loaded.version)
        except Conflict:
            continue
        store.trace("remove.2 removed")
        return


def _swap(store: Store, name: str, entry: Entry, over: Named | None) -> Named:
    data = encode_entry(entry)
    if len(data) > LIMIT[Kind.NAME]:
        raise UserError(
            f"the record of the name {name} would have {len(data)} bytes, and {LIMIT[Kind.NAME]} are accepted; give it "
            "fewer or shorter properties"
        )
    try:
        version = store.backend.replace(Kind.NAME, name, data, expected=over.version if over else None)
    except Conflict:
        said = "was changed by somebody else meanwhile" if over else "is taken; remove it first or choose another name"
        raise Conflict(f"the name {name} {said}") from None
    return Named(name=name, entry=entry, version=version)
