"""What a disk's parameter `origin` names."""

from __future__ import annotations

import re
from typing import Final, Literal

from snf_extstorage.catalog import Catalog
from snf_extstorage.volume import FromBase, FromSnapshot, Origin, SnapshotName
from synnefo_light.errors import UserError
from synnefo_light.log import escape
from synnefo_light.store import cuts
from synnefo_light.store.errors import Absent
from synnefo_light.store.names import Entry, Named
from synnefo_light.store.store import Store

#: The second form is that of Synnefo's image catalogue.
_MAP: Final = re.compile(r"map:([0-9a-f]{64})|pithosmap://([0-9a-f]{64})(?:/[0-9]{1,20})?")


def find_origin(catalog: Catalog, text: str, *, engine: Literal["directory", "rados"]) -> Origin:
    """An image, snapshot or object by its name, or a map by "map:HASH" (or "pithosmap://HASH/SIZE").

    A name whose snapshot the engine still holds is cloned from that, committed or not; an image that the engine has no
    base of gets one now. A map that no name has is none, though its blocks may be there: who knows a hash has no right
    to its content. Raises Absent and UserError.
    """
    named = find_named(catalog.store, text)
    origin = origin_of(named.entry, engine=engine)
    if origin is None:
        raise UserError(f"{named.name} is a snapshot that another engine holds and that is not in the store yet")
    if isinstance(origin, FromBase):
        catalog.prepare(named.name)
    return origin


def find_named(store: Store, text: str) -> Named:
    """What a name or map:HASH stands for. Raises Absent and UserError."""
    match = _MAP.fullmatch(text)
    if match is None:
        if "/" in text or text.startswith("map:"):
            raise UserError(f"{escape(text)!r} is neither a name nor map:HASH with 64 hexadecimal digits")
        return cuts.load(store, text)
    wanted = match[1] or match[2]
    named = next((n for n in cuts.readable(store) if n.entry.map == wanted), None)
    if named is None:
        raise Absent(f"no image, snapshot or object has the map {wanted}")
    return named


def origin_of(entry: Entry, *, engine: Literal["directory", "rados"]) -> FromBase | FromSnapshot | None:
    """What this engine clones for it: the snapshot that it still holds, else the base of the map. None: neither."""
    if entry.snapshot is not None and entry.snapshot.engine == engine:
        return FromSnapshot(snapshot=SnapshotName(entry.snapshot.reference))
    return FromBase(map=entry.map) if entry.map is not None else None
