"""What a disk's parameter `origin` names."""

from __future__ import annotations

import re
from typing import Final

from snf_extstorage.volume import FromBase, FromSnapshot, Origin, SnapshotName
from synnefo_light.errors import UserError
from synnefo_light.log import escape
from synnefo_light.store import names
from synnefo_light.store.identity import parse_map_id
from synnefo_light.store.store import Store

_MAP: Final = re.compile(r"map:([0-9a-f]{64})|pithosmap://([0-9a-f]{64})(?:/[0-9]{1,20})?")


class Origins:
    """The names and maps of one store. `engine` is which of its snapshots our volumes can be cloned from."""

    def __init__(self, store: Store, *, engine: str) -> None:
        self._store = store
        self._engine = engine

    def find(self, text: str) -> Origin:
        """An image, snapshot or object by its name, or a map by "map:HASH" (or "pithosmap://HASH/SIZE").

        A name whose snapshot the engine still holds is cloned from that: it is there whether committed or not.
        Raises Absent and UserError.
        """
        match = _MAP.fullmatch(text)
        if match is not None:
            return FromBase(map=parse_map_id(match[1] or match[2]))
        if "://" in text or text.startswith("map:"):
            raise UserError(f"the origin {escape(text)!r} is neither a name nor map:HASH with 64 hexadecimal digits")
        entry = names.load(self._store, text).entry
        if entry.snapshot is not None and entry.snapshot.engine == self._engine:
            return FromSnapshot(snapshot=SnapshotName(entry.snapshot.reference))
        if entry.map is None:
            raise UserError(f"{text} is a snapshot that another engine holds and that is not in the store yet")
        return FromBase(map=entry.map)
